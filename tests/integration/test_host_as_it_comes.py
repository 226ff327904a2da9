"""A host whose home cannot be written, is full, or executes nothing; and files with names of Python's."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from remote_tools.host import run_folder
from tests.integration.conftest import Laptop

BIG = b"x" * 300_000
Mount = Callable[..., Path]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mount a folder over itself with options, or a file system of its own; skip if nobody may."""
    with ExitStack() as mounted:

        def make(folder: Path, options: str, kind: str = "bind") -> Path:
            folder.mkdir(exist_ok=True)
            how = ["-t", "tmpfs", "-o", options, "it"] if kind == "tmpfs" else ["--bind", str(folder)]
            if subprocess.run(["mount", *how, str(folder)], stderr=subprocess.DEVNULL).returncode:
                pytest.skip("nobody may mount here")
            mounted.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)
            if kind == "bind":
                subprocess.run(["mount", "-o", f"remount,bind,{options}", str(folder)], check=True)
            return folder

        yield make


def _start_up(laptop: Laptop, lines: str) -> None:
    enter = laptop.host.root / "enter"
    enter.write_text(f"{lines}\n{enter.read_text()}")


def _run(laptop: Laptop, **env: str) -> None:
    """Push by rsync and run once; the code path, the cache and temporary files lie outside the home."""
    place = laptop.host.root
    _start_up(laptop, f"TMPDIR={place}; export TMPDIR")
    env = {"INVOKE_REMOTE_CODE_PATH": f"{place}/code", "INVOKE_REMOTE_CACHE_DIR": f"{place}/cache", **env}
    laptop.write("hello.py", "print('hello')\n")
    (laptop.root / "data.bin").write_bytes(BIG)

    done = laptop.inv("dev", "--", "hello.py", **env)

    assert (0, "hello\n") == (done.returncode, done.stdout), done.stderr


# What the host keeps for us ---------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["every file", "one file", "half a file"])
def test_a_program_of_ours_that_was_damaged_is_sent_again(laptop: Laptop, damage: str) -> None:
    laptop.write("hello.py", "print('hello')\n")
    assert 0 == laptop.inv("dev", "--", "hello.py").returncode
    files = sorted(laptop.host.home.glob(".cache/remote-tools/program-*/host/*.py"))
    for file in files if damage == "every file" else [file for file in files if file.name == "owner.py"]:
        if damage == "half a file":
            file.write_text(file.read_text()[: file.stat().st_size // 2])
        else:
            file.unlink()

    done = laptop.inv("dev", "--", "hello.py")

    assert (0, "hello\n") == (done.returncode, done.stdout), done.stderr
    assert [] == list(laptop.host.home.glob(".cache/remote-tools/program-*.*")), (
        "nothing is left of the old one"
    )


def test_nodes_that_share_a_home_keep_states_of_their_own(tmp_path: Path) -> None:
    source = Path(run_folder.__file__).parents[1]
    code = f"import sys; sys.path.insert(0, {str(source)!r})\n"
    code += f"from host import run_folder; print(run_folder.place_of({str(tmp_path)!r}).state)"
    states = []
    for node in ("node1", "node2", "node1"):
        words = ["unshare", "--uts", "sh", "-c", f'hostname {node} && exec "$@"', "sh"]
        done = subprocess.run([*words, sys.executable, "-c", code], capture_output=True, text=True)
        if "unshare" in done.stderr:
            pytest.skip("nobody may name a node here")
        states.append(done.stdout)
    assert 2 == len(set(states))
    assert states[0] == states[2]


def test_a_push_waits_for_another_and_says_for_whose(laptop: Laptop) -> None:
    laptop.write("hello.py", "print('hello')\n")
    assert 0 == laptop.inv("dev", "--", "hello.py").returncode
    (lock,) = laptop.host.home.glob(".cache/remote-tools/*/push.lock")
    laptop.write("hello.py", "print('hello again')\n")
    with lock.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write("kim@desk")
        file.flush()
        words = laptop.command("inv", "dev", "--", "hello.py")
        client = subprocess.Popen(
            words,
            cwd=laptop.root,
            env=laptop.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert client.stderr is not None
        told = next(line for line in client.stderr if "waiting" in line)
    output, _ = client.communicate()
    assert "kim@desk is pushing to" in told
    assert (0, "hello again\n") == (client.returncode, output)


# Where our state goes ---------------------------------------------------------------------------------------


def test_a_home_that_is_read_only(laptop: Laptop, mount: Mount) -> None:
    mount(laptop.host.home, "ro")

    _run(laptop)

    assert [] == list(laptop.host.home.iterdir())


def test_a_home_that_executes_nothing(laptop: Laptop, mount: Mount) -> None:
    mount(laptop.host.home, "noexec")

    _run(laptop)


def test_a_state_path_of_the_settings(laptop: Laptop) -> None:
    _run(laptop, INVOKE_REMOTE_STATE_PATH="~/it's state")

    kinds = {path.name.partition("-")[0] for path in (laptop.host.home / "it's state").iterdir()}
    assert {"program", "code", "python"} >= kinds > {"program"}
    assert not (laptop.host.home / ".cache" / "remote-tools").exists()


def test_the_cache_home_of_the_xdg_specification(laptop: Laptop) -> None:
    _start_up(laptop, f"XDG_CACHE_HOME={laptop.host.root}/xdg; export XDG_CACHE_HOME")

    _run(laptop)

    assert (laptop.host.root / "xdg" / "remote-tools").is_dir()
    assert not (laptop.host.home / ".cache" / "remote-tools").exists()


def test_a_state_path_that_cannot_be_made_is_named(laptop: Laptop) -> None:
    done = laptop.inv("sync", INVOKE_REMOTE_STATE_PATH="/proc/1/nothing")

    assert (74, True) == (done.returncode, "/proc/1" in done.stderr and "state_path" in done.stderr), (
        done.stderr
    )


# The path of Python -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["profile.py", "queue.py"])
def test_a_name_of_the_standard_librarys_hides_nothing_of_it(laptop: Laptop, name: str) -> None:
    laptop.write(name, "raise SystemExit('not the standard library')\n")
    laptop.write("pushed/__init__.py", "WORD = 'from the root'\n")
    laptop.write("scripts/run.py", "import cProfile, logging, queue\nimport pushed; print(pushed.WORD)\n")

    done = laptop.inv("dev", "--", "scripts/run.py")

    assert (0, "from the root\n") == (done.returncode, done.stdout), done.stderr


def test_what_was_pushed_comes_before_what_is_installed(laptop: Laptop) -> None:
    venv = laptop.host.home / "venv"
    subprocess.run(["python3", "-m", "venv", "--without-pip", str(venv)], check=True)
    (installed,) = venv.glob("lib/python3*/site-packages")
    (installed / "pushed.py").write_text("WORD = 'an older copy'\n")
    laptop.write("pushed.py", "WORD = 'from the root'\n")
    laptop.write("scripts/run.py", "import pushed; print(pushed.WORD)\n")

    done = laptop.inv("dev", "--", "scripts/run.py", INVOKE_REMOTE_VENV_PATH="~/venv")

    assert (0, "from the root\n") == (done.returncode, done.stdout), done.stderr


def test_the_hosts_own_sitecustomize_and_pythonpath_still_hold(laptop: Laptop) -> None:
    theirs = laptop.host.home / "theirs"
    theirs.mkdir()
    (theirs / "sitecustomize.py").write_text("import builtins; builtins.word = 'theirs'\n")
    (theirs / "extra.py").write_text("")
    _start_up(laptop, f"PYTHONPATH={theirs}; export PYTHONPATH")
    laptop.write("scripts/run.py", "import extra; print(word)\n")

    done = laptop.inv("dev", "--", "scripts/run.py")

    assert (0, "theirs\n") == (done.returncode, done.stdout), done.stderr
