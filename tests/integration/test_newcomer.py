"""Small things that a newcomer met on the first afternoon."""

from __future__ import annotations

import json
import subprocess

from remote_tools.runs.client import INLINE_BYTES
from tests.integration.conftest import Laptop


def test_a_fetch_counts_all_its_files_in_its_bar(laptop: Laptop) -> None:
    laptop.write(
        "write.py",
        "import os, pathlib\n"
        "folder = pathlib.Path(os.environ['AUTOTUNE_CACHE_DIR'], 'kernel', '1x1')\n"
        "folder.mkdir(parents=True)\n"
        "for i in range(50): (folder / str(i)).write_text('x')\n"
        f"(folder / 'big').write_bytes(b'x' * {INLINE_BYTES + 1})\n",
    )

    done = laptop.inv("dev", "--auto-fetch", "--", "write.py")

    assert 0 == done.returncode, done.stderr
    assert "Downloading 51 files" in done.stderr


def test_a_watch_of_a_detached_run_is_refused(laptop: Laptop) -> None:
    laptop.write("hello.py", "print('hello')\n")

    done = laptop.inv("dev", "--watch", "--detach", "--", "hello.py", INVOKE_REMOTE_HOST="nowhere.invalid")

    assert (64, True) == (done.returncode, "leave out --detach" in done.stderr), done.stderr


def test_the_nearest_script_is_one_of_the_named_folder(laptop: Laptop) -> None:
    for name in ("examples/gemm.py", "examples/softmax.py", "tools/nosuch_.py", "nosuch_1.py"):
        laptop.write(name, "")

    done = laptop.inv("dev", "--", "examples/nosuch.py", INVOKE_REMOTE_HOST="nowhere.invalid")

    nearest = done.stderr.splitlines()[-1].partition("the nearest: ")[2].split(", ")
    assert ["examples/gemm.py", "examples/softmax.py"] == nearest[:2], done.stderr


def test_a_dry_run_writes_nothing(laptop: Laptop) -> None:
    before = sorted(laptop.root.rglob("*"))

    done = laptop.inv("sync", "--dry-run")

    assert 0 == done.returncode, done.stderr
    assert before == [path for path in sorted(laptop.root.rglob("*")) if "__pycache__" not in path.parts]
    state = laptop.host.home / ".cache" / "remote-tools"
    assert ["program"] == [path.name.partition("-")[0] for path in state.iterdir()]
    assert not laptop.there.exists()


def test_a_run_is_shown_with_its_diff(laptop: Laptop) -> None:
    script = laptop.write("hello.py", "print('hello')\n")
    git = ["git", "-C", str(laptop.root), "-c", "user.name=t", "-c", "user.email=t@example.invalid"]
    for words in (["init", "-q"], ["add", "hello.py"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    script.write_text("print('changed')\n")
    assert 0 == laptop.inv("dev", "--", "hello.py").returncode

    shown, as_json = laptop.inv("runs.show"), laptop.inv("runs.show", "--json")

    assert "+print('changed')\n" in shown.stdout
    assert "+print('changed')\n" in json.loads(as_json.stdout)["diff"]
