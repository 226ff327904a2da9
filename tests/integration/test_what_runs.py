"""What runs on the host is what is on the screen here; what differs is told."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.integration.conftest import Laptop


def git(folder: Path, *words: str, **env: str) -> None:
    """Run git with an author."""
    own = ("-c", "user.name=a", "-c", "user.email=a@localhost")
    subprocess.run(
        ["git", *own, "-C", folder, *words], check=True, capture_output=True, env={**os.environ, **env}
    )


def ran(laptop: Laptop, *words: str, **env: str) -> str:
    """Run `dev`, which must succeed; return what it printed."""
    done = laptop.inv("dev", *words, **env)
    assert 0 == done.returncode, done.stderr
    return done.stdout.strip()


def test_a_module_that_was_edited_within_a_second_runs_as_it_is_now(laptop: Laptop) -> None:
    """Python knows a compiled module by the size and the second of its source."""
    laptop.write("main.py", "import part\nprint(part.VALUE)\n")
    for value in "abc":
        path = laptop.write("part.py", f"VALUE = '{value}'\n")
        os.utime(path, ns=(10**18 + ord(value), 10**18 + ord(value)))
        assert value == ran(laptop, "--", "main.py")


@pytest.mark.parametrize("words", [(), ("--verify",)])
def test_another_content_of_the_same_size_and_time_is_sent(laptop: Laptop, words: tuple[str, ...]) -> None:
    laptop.write("other.py", "print('unchanged')\n")
    path = laptop.write("main.py", "print('one')\n")
    os.utime(path, (10**9, 10**9))
    assert "one" == ran(laptop, "--", "main.py")
    path.write_text("print('two')\n")
    os.utime(path, (10**9, 10**9))
    assert "two" == ran(laptop, *words, "--", "main.py")
    assert "is up to date" in laptop.inv("sync").stderr


@pytest.mark.parametrize(
    ("name", "words"), [("try.py", ("try.py",)), ("pkg/mod.py", ("-m", "pkg.mod")), ("run.sh", ("./run.sh",))]
)
def test_a_target_that_is_not_sent_does_not_run(laptop: Laptop, name: str, words: tuple[str, ...]) -> None:
    git(laptop.root, "init", "-q")
    laptop.write(name, "#!/bin/sh\necho 1\n" if name.endswith(".sh") else "print(1)\n").chmod(0o755)
    assert "1" == ran(laptop, "--", *words)
    laptop.write(".gitignore", f"{name}\n")
    done = laptop.inv("dev", "--", *words)
    assert (64, "") == (done.returncode, done.stdout)
    assert f"{name} is not sent to the host" in done.stderr
    assert f"REMOTE_INCLUDE={name}" in done.stderr
    assert "1" == ran(laptop, "--", *words, INVOKE_REMOTE_INCLUDE=name)


def test_a_file_that_a_run_changed_stays_and_the_next_run_is_told(laptop: Laptop) -> None:
    laptop.write("conf.txt", "here\n")
    laptop.write("main.py", "print(open('conf.txt').read().strip())\nopen('conf.txt', 'w').write('there')\n")
    assert "here" == ran(laptop, "--", "main.py")
    again = laptop.inv("dev", "--", "main.py")
    assert "there" == again.stdout.strip()
    assert (
        "the run reads another content than here: conf.txt changed on the host since the push" in again.stderr
    )
    assert 0 == laptop.inv("sync").returncode
    assert "here" == ran(laptop, "--", "main.py")


@pytest.mark.parametrize("variable", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"])
def test_gits_environment_names_no_other_repository(laptop: Laptop, tmp_path: Path, variable: str) -> None:
    git(tmp_path, "init", "-q")
    laptop.write("main.py", "print('here')\n")
    assert "here" == ran(laptop, "--", "main.py", **{variable: str(tmp_path / ".git")})


def test_the_project_of_search_root_is_pushed_and_no_other(laptop: Laptop, tmp_path: Path) -> None:
    laptop.write("main.py", "print('here')\n")
    assert "here" == ran(laptop, "--", "main.py")
    (tmp_path / "secret").write_text("private")
    command = laptop.command("inv", "-r", str(laptop.root), "sync")
    done = subprocess.run(command, cwd=tmp_path, env=laptop.env, capture_output=True, text=True)
    assert 0 == done.returncode, done.stderr
    assert not (laptop.there / "secret").exists()
    assert (laptop.there / "main.py").exists()


@pytest.mark.parametrize(
    ("flags", "instead"),
    [
        (("--dry",), "inv sync --dry-run"),
        (("-T", "2"), "timeout 60"),
        (("-T2",), "timeout 60"),
        (("-p",), "inv dev --pty"),
    ],
)
def test_a_flag_without_effect_is_refused(laptop: Laptop, flags: tuple[str, ...], instead: str) -> None:
    laptop.write("main.py", "print('here')\n")
    done = laptop.inv(*flags, "dev", "--", "main.py")
    assert (64, "") == (done.returncode, done.stdout)
    assert instead in done.stderr
    assert not laptop.there.exists() or not (laptop.there / "main.py").exists()


def test_empty_folders_travel_outside_of_git(laptop: Laptop) -> None:
    (laptop.root / "out/logs").mkdir(parents=True)
    laptop.write("main.py", "open('out/logs/x', 'w').write('1')\nprint('written')\n")
    assert "written" == ran(laptop, "--", "main.py")


def test_editors_files_do_not_travel_unless_git_tracks_them(laptop: Laptop) -> None:
    laptop.write("main.py", "import os\nprint(sorted(os.listdir('.')))\n")
    for name in (".main.py.swp", "main.py~", "#main.py#", "4913"):
        laptop.write(name, "x")
    (laptop.root / ".#main.py").symlink_to("me@here.1:2")
    git(laptop.root, "init", "-q")
    laptop.write("kept~", "tracked")
    git(laptop.root, "add", "kept~")
    there = ran(laptop, "--", "main.py")
    assert "kept~" in there
    assert not any(name in there for name in ("swp", "main.py~", "#", "4913"))


def test_what_a_running_run_has_written_can_be_fetched(laptop: Laptop) -> None:
    laptop.write(
        "main.py",
        "import os, pathlib, time\n"
        "folder = pathlib.Path(os.environ['AUTOTUNE_CACHE_DIR']); print('begun', flush=True)\n"
        "time.sleep(1) if not folder.is_dir() else None\n"
        "folder.mkdir(exist_ok=True); (folder / 'step1').write_text('1'); print('written', flush=True)\n"
        "time.sleep(600)\n",
    )
    assert 0 == laptop.inv("dev", "--detach", "--", "main.py").returncode
    while "written" not in laptop.inv("runs.log", "last").stdout:
        pass
    done = laptop.inv("runs.fetch", "last")
    assert (0, "1") == (done.returncode, (laptop.root / "cache/step1").read_text())
    assert "the run still runs, and may write more" in done.stderr
    assert 0 == laptop.inv("runs.kill", "last", "--signal", "KILL").returncode


def test_what_a_run_starts_in_a_session_of_its_own_ends_with_it(laptop: Laptop) -> None:
    laptop.write(
        "main.py",
        "import subprocess, sys, time\n"
        "words = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "print(subprocess.Popen(words, start_new_session=True).pid, flush=True)\ntime.sleep(600)\n",
    )
    assert 0 == laptop.inv("dev", "--detach", "--", "main.py").returncode
    while not (pid := laptop.inv("runs.log", "last").stdout.strip()):
        pass
    assert 0 == laptop.inv("runs.kill", "last", "--signal", "KILL").returncode
    while Path(f"/proc/{pid}/stat").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text():
        pass


def test_a_process_that_outlives_its_run_is_named(laptop: Laptop) -> None:
    laptop.write(
        "main.py",
        "import subprocess, sys\n"
        "words = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "subprocess.Popen(words, start_new_session=True, stdout=-3, stderr=-3)\n",
    )
    done = laptop.inv("dev", "--", "main.py")
    assert 0 == done.returncode
    assert "still run on" in done.stderr
    assert 0 == laptop.inv("runs.kill", "last", "--signal", "KILL").returncode


# -- our own state


def test_our_state_ignores_itself(laptop: Laptop) -> None:
    laptop.write("main.py", "print('here')\n")
    git(laptop.root, "init", "-q")
    git(laptop.root, "add", "main.py")
    git(laptop.root, "commit", "-qm", "Begin")
    ran(laptop, "--", "main.py")
    status = ["git", "-C", laptop.root, "status", "--porcelain", "--", ".remote"]
    assert "" == subprocess.run(status, capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", ["pushed/*", "holder", "stamp", "runs/*/run.json"])
def test_damaged_state_on_the_host_counts_as_missing(laptop: Laptop, name: str) -> None:
    laptop.write("main.py", "print('first')\n")
    assert "first" == ran(laptop, "--", "main.py")
    for content in (b"", b"\0\0\0", b"{}", b"[1"):
        damaged = [*(laptop.host.home / ".cache/remote-tools").glob(f"*/{name}")]
        assert damaged
        for path in damaged:
            path.write_bytes(content)
        laptop.write("main.py", f"print({content!r})\n")
        assert repr(content) == ran(laptop, "--", "main.py")
    laptop.write("main.py", "print('last')\n")
    assert "last" == ran(laptop, "--", "main.py")
    assert 0 == laptop.inv("runs.list").returncode


@pytest.mark.parametrize("name", ["client-id", "pushed/*", "runs/*/run.json"])
def test_damaged_state_here_counts_as_missing(laptop: Laptop, name: str) -> None:
    laptop.write("main.py", "print('one')\n")
    assert "one" == ran(laptop, "--", "main.py")
    for path in (laptop.root / ".remote").glob(name):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    laptop.write("main.py", "print('two')\n")
    assert "two" == ran(laptop, "--", "main.py")
    assert "two" == ran(laptop, "--", "main.py")


def test_a_file_that_another_run_may_have_written_is_told(laptop: Laptop) -> None:
    laptop.write(
        "writes.py",
        "import os, pathlib, sys, time\n"
        "folder = pathlib.Path(os.environ['AUTOTUNE_CACHE_DIR'], sys.argv[1])\n"
        "folder.mkdir(parents=True)\n"
        "(folder / 'result.txt').write_text('half')\n"
        "while sys.argv[1] == 'other': time.sleep(0.1)\n",
    )
    other = laptop.inv("dev", "--detach", "--", "writes.py", "other")
    assert 0 == other.returncode, other.stderr
    (other_id,) = (path.name for path in (laptop.root / ".remote" / "runs").iterdir())

    mine = laptop.inv("dev", "--auto-fetch", "--", "writes.py", "mine")
    laptop.inv("runs.kill", other_id)
    alone = laptop.inv("dev", "--auto-fetch", "--", "writes.py", "alone")

    assert "may be of another run" in mine.stderr
    assert other_id in mine.stderr
    assert "another run" not in alone.stderr


def test_what_makes_a_push_large_is_told_before_it_is_sent(laptop: Laptop) -> None:
    laptop.write("hello.py", "print('hello')\n")
    with (laptop.root / "checkpoint.bin").open("wb") as file:
        file.truncate(150_000_000)

    planned = laptop.inv("sync", "--dry-run")
    done = laptop.inv("dev", "--", "hello.py")

    assert 0 == done.returncode, done.stderr
    told = "150 MB to send; the largest: checkpoint.bin (150 MB); "
    assert told in done.stderr
    assert told in planned.stderr + planned.stdout
    assert done.stderr.index(told) < done.stderr.index("Uploaded")


def test_pointers_of_git_lfs_are_told(laptop: Laptop) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 5000000000\n"
    laptop.write(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n")
    laptop.write("weights.bin", pointer)
    laptop.write("hello.py", "print('hello')\n")

    done = laptop.inv("dev", "--", "hello.py")

    assert (0, "hello\n") == (done.returncode, done.stdout), done.stderr
    assert "only pointers are sent: weights.bin; git lfs pull" in done.stderr
