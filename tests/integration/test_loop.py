"""The loop as a user types it, through `inv` and `fab`, against a real sshd."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from remote_tools.runs.client import INLINE_BYTES
from tests.integration.conftest import Laptop

ECHO = "import json, sys\nprint(json.dumps(sys.argv[1:]))\n"
WRITE = """\
import os, pathlib, sys
folder = pathlib.Path(os.environ["AUTOTUNE_CACHE_DIR"]) / "gemm" / "8x8_8x8"
folder.mkdir(parents=True, exist_ok=True)
(folder / (sys.argv[1] if len(sys.argv) > 1 else "result")).write_text("it")
"""
ODD_WORDS = [
    "two words",
    "'single' \"double\"",
    "$HOME `id` $(id)",
    "*.py",
    "new\nline",
    "",
    "é ∑ 🙂",
    "-x",
    "--",
    "\\",
    "!",
]


def test_dev_pushes_the_script_runs_it_and_brings_what_it_wrote(laptop: Laptop) -> None:
    laptop.write("write.py", WRITE + "print('done')\n")

    done = laptop.inv("dev", "--auto-fetch", "--", "write.py")

    assert (0, "done\n") == (done.returncode, done.stdout)
    assert "it" == (laptop.root / "cache/gemm/8x8_8x8/result").read_text()
    assert "Fetched 1 file (2 B) of gemm into cache" in done.stderr


@pytest.mark.parametrize("task", ["dev", "exec"])
def test_words_arrive_as_typed(laptop: Laptop, task: str) -> None:
    laptop.write("echo.py", ECHO)
    target = ["echo.py"] if task == "dev" else ["python", "echo.py"]
    assert 0 == laptop.inv("sync").returncode

    done = laptop.inv(task, "--", *target, *ODD_WORDS)

    assert ODD_WORDS == json.loads(done.stdout)


def test_a_module_runs_with_dash_m(laptop: Laptop) -> None:
    laptop.write("package/__init__.py", "")
    laptop.write("package/tool.py", ECHO)

    done = laptop.inv("dev", "--", "-m", "package.tool", "-v")

    assert ["-v"] == json.loads(done.stdout)


def test_a_shell_string_keeps_its_pipes(laptop: Laptop) -> None:
    assert 0 == laptop.inv("sync").returncode

    done = laptop.inv("exec", "--command", "printf 'b\\na\\n' | sort; exit 3")

    assert (3, "a\nb\n") == (done.returncode, done.stdout)


@pytest.mark.parametrize(
    ("command", "code"),
    [("exit 0", 0), ("exit 1", 1), ("exit 255", 255), ("kill -SEGV $$", 139), ("kill -KILL $$", 137)],
)
def test_the_exit_code_is_the_commands_own(laptop: Laptop, command: str, code: int) -> None:
    laptop.there.mkdir()

    assert code == laptop.inv("exec", "--", "sh", "-c", command).returncode


def test_stdout_and_stderr_stay_apart(laptop: Laptop) -> None:
    laptop.there.mkdir()

    done = laptop.inv("exec", "--", "sh", "-c", "echo out; echo err >&2")

    assert ("out\n", "err\n") == (done.stdout, done.stderr)


def test_results_come_after_a_failure_too(laptop: Laptop) -> None:
    laptop.write("write.py", WRITE + "sys.exit(7)\n")

    done = laptop.inv("dev", "--auto-fetch", "--", "write.py")

    assert (7, True) == (done.returncode, (laptop.root / "cache/gemm/8x8_8x8/result").exists())


def test_only_this_runs_files_are_brought(laptop: Laptop) -> None:
    laptop.write("write.py", WRITE)
    laptop.inv("dev", "--", "write.py", "older")

    laptop.inv("dev", "--auto-fetch", "--", "write.py", "newer")

    assert ["newer"] == [path.name for path in (laptop.root / "cache/gemm/8x8_8x8").iterdir()]


def test_fetch_brings_the_last_runs_files_one_kernels_or_all(laptop: Laptop) -> None:
    laptop.write("write.py", WRITE)
    laptop.inv("dev", "--", "write.py", "older")
    laptop.inv("dev", "--", "write.py", "newer")

    brought = []
    for words in ([], ["--kernel", "gemm"], ["--all"]):
        folder = f"to-{len(brought)}"
        assert 0 == laptop.inv("fetch", *words, "--local-dir", folder).returncode
        brought.append(sorted(path.name for path in (laptop.root / folder).rglob("*") if path.is_file()))

    assert [["newer"], ["newer", "older"], ["newer", "older"]] == brought


def test_an_unknown_kernel_names_those_that_are_there(laptop: Laptop) -> None:
    laptop.write("write.py", WRITE)
    laptop.inv("dev", "--", "write.py")

    done = laptop.inv("fetch", "--kernel", "gemn")

    hint = done.stderr.splitlines()[-1]
    assert (64, "  next: sandbox says: choose one of: gemm") == (done.returncode, hint)


def test_results_never_go_back_up(laptop: Laptop) -> None:
    laptop.write("write.py", WRITE)
    laptop.inv("dev", "--auto-fetch", "--", "write.py")

    assert 0 == laptop.inv("sync").returncode

    assert [".remote_config", "cache", "tasks.py", "write.py"] == sorted(
        path.name for path in laptop.root.iterdir() if path.name not in (".remote", "__pycache__")
    )
    assert ["tasks.py", "write.py"] == sorted(path.name for path in laptop.there.iterdir())


def test_the_host_needs_nothing_of_ours_installed(laptop: Laptop) -> None:
    laptop.write("library/__init__.py", "NAME = 'library'\n")
    laptop.write("examples/use.py", "import library\nprint(library.NAME)\n")

    done = laptop.inv("dev", "--", "examples/use.py")

    assert (0, "library\n") == (done.returncode, done.stdout)


def test_the_run_is_in_the_venv(laptop: Laptop) -> None:
    laptop.write("where.py", "import sys\nprint(sys.prefix)\n")

    done = laptop.inv("dev", "--", "where.py", INVOKE_REMOTE_VENV_PATH=sys.prefix)

    assert f"{sys.prefix}\n" == done.stdout


def test_a_run_is_recorded_here_with_its_sources(laptop: Laptop) -> None:
    laptop.write("echo.py", ECHO)
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@x"]
    for words in (["init", "-q"], ["add", "echo.py"], ["commit", "-qm", "it"]):
        subprocess.run([*git, *words], cwd=laptop.root, check=True)
    sha = subprocess.run(["git", "rev-parse", "HEAD"], cwd=laptop.root, capture_output=True, text=True).stdout
    laptop.write("echo.py", ECHO + "print('changed')\n")

    laptop.inv("dev", "--", "echo.py")

    (record_path,) = laptop.root.glob(".remote/runs/*/run.json")
    record = json.loads(record_path.read_text())
    kept = {name: record[name] for name in ("argv", "exit", "git_dirty", "git_sha", "host", "state")}
    assert {
        "argv": ["python", "echo.py"],
        "exit": 0,
        "git_dirty": True,
        "git_sha": sha.strip(),
        "host": "sandbox",
        "state": "ended",
    } == kept
    assert "+print('changed')" in (record_path.parent / "diff.patch").read_text()


# What goes wrong --------------------------------------------------------------------------------------------


def test_a_missing_script_stops_before_any_connection(laptop: Laptop) -> None:
    laptop.write("gemm.py", ECHO)

    done = laptop.inv("dev", "--", "gem.py", INVOKE_REMOTE_HOST="nowhere.invalid")

    assert (64, "  next: the nearest: gemm.py") == (done.returncode, done.stderr.splitlines()[-1])


def host_key_line(laptop: Laptop, key: Path) -> str:
    return f"[127.0.0.1]:{laptop.host.port} {key.with_suffix('.pub').read_text()}"


def another_key(folder: Path) -> Path:
    path = folder / "another"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def first_line(done: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    return done.returncode, done.stderr.splitlines()[0]


@pytest.mark.parametrize(
    ("host", "options", "code", "message"),
    [
        (
            "nowhere.invalid",
            "",
            68,
            "connect: cannot reach nowhere.invalid: ssh: Could not resolve hostname nowhere.invalid: ",
        ),
        (
            "127.0.0.1",
            "-p 1",
            68,
            "connect: cannot reach 127.0.0.1: ssh: connect to host 127.0.0.1 port 1: Connection refused",
        ),
    ],
)
def test_a_host_that_is_not_there_is_said_in_one_line(
    laptop: Laptop, host: str, options: str, code: int, message: str
) -> None:
    env = {"INVOKE_REMOTE_HOST": host, "INVOKE_REMOTE_SSH_OPTIONS": options}
    got_code, said = first_line(laptop.inv("exec", "--", "true", **env))

    assert (code, message) == (got_code, said[: len(message)])


def test_an_unknown_host_key_is_refused(laptop: Laptop, tmp_path: Path) -> None:
    options = f"-F '{laptop.host.ssh_config}' -o UserKnownHostsFile={tmp_path / 'empty'}"

    code, said = first_line(laptop.inv("exec", "--", "true", INVOKE_REMOTE_SSH_OPTIONS=options))

    assert (77, True) == (code, "host key" in said)


def test_a_changed_host_key_is_refused_and_nothing_is_sent(laptop: Laptop, tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text(host_key_line(laptop, another_key(tmp_path)))
    options = f"-F '{laptop.host.ssh_config}' -o UserKnownHostsFile={known}"
    laptop.write("echo.py", ECHO)

    code, said = first_line(laptop.inv("dev", "--", "echo.py", INVOKE_REMOTE_SSH_OPTIONS=options))

    assert (77, "connect: cannot reach sandbox: WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!") == (
        code,
        said,
    )
    assert not laptop.there.exists()


def test_a_refused_key_is_told_from_an_unreachable_host(laptop: Laptop, tmp_path: Path) -> None:
    config = tmp_path / "config"
    text = laptop.host.ssh_config.read_text()
    config.write_text(text.replace(str(laptop.host.identity), str(another_key(tmp_path))))

    code, said = first_line(
        laptop.inv("exec", "--", "true", INVOKE_REMOTE_SSH_OPTIONS=f"-F '{config}' -o IdentityAgent=none")
    )

    assert (77, True) == (code, "Permission denied" in said)


@pytest.mark.parametrize(
    ("setting", "value", "code", "message"),
    [
        ("VENV_PATH", "~/no venv", 69, "no virtual environment at ~/no venv on the host"),
        ("CODE_PATH", "/nowhere/at/all", 74, "no folder /nowhere/at on the host"),
        ("CODE_PATH", "/proc/1/project", 77, "/proc/1 cannot be written"),
    ],
)
def test_a_wrong_path_is_named(laptop: Laptop, setting: str, value: str, code: int, message: str) -> None:
    laptop.write("echo.py", ECHO)

    done = laptop.inv("dev", "--", "echo.py", **{f"INVOKE_REMOTE_{setting}": value})

    assert (code, True) == (done.returncode, message in done.stderr)


def test_large_results_come_by_the_rsync_that_rsync_path_names(laptop: Laptop) -> None:
    elsewhere, tools = laptop.host.root / "elsewhere", laptop.host.root / "tools"
    elsewhere.mkdir()
    tools.mkdir()
    (elsewhere / "rsync").symlink_to(str(shutil.which("rsync")))
    for name in ("python3", "python"):
        (tools / name).symlink_to(Path(sys.executable).resolve())
    enter = laptop.host.root / "enter"
    enter.write_text(f"PATH='{tools}'\nexport PATH\n{enter.read_text()}")
    laptop.write("write.py", WRITE.replace('"it"', f'"x" * {INLINE_BYTES + 1}'))

    done = laptop.inv(
        "dev", "--auto-fetch", "--", "write.py", INVOKE_REMOTE_RSYNC_OPTIONS=f"--rsync-path={elsewhere}/rsync"
    )

    assert 0 == done.returncode, done.stderr
    assert INLINE_BYTES + 1 == (laptop.root / "cache/gemm/8x8_8x8/result").stat().st_size


def test_a_cut_fetch_of_dev_names_the_command_that_fetches_without_another_run(laptop: Laptop) -> None:
    cut = laptop.write("cut_fetch", '#!/bin/sh\ncase "$*" in *--sender*) exit 12 ;; esac\nexec rsync "$@"\n')
    cut.chmod(0o755)
    laptop.write("write.py", WRITE.replace('"it"', '"x" * 300_000') + "print('ran')\n")

    done = laptop.inv(
        "dev", "--auto-fetch", "--", "write.py", INVOKE_REMOTE_RSYNC_OPTIONS=f"--rsync-path={cut}"
    )
    assert (75, "ran\n") == (done.returncode, done.stdout)
    words = shlex.split(done.stderr.partition("next: ")[2])
    fetched = laptop.inv(*words[1:])

    assert (["inv", "runs.fetch"], 0, "") == (words[:2], fetched.returncode, fetched.stdout)
    assert 300_000 == (laptop.root / "cache/gemm/8x8_8x8/result").stat().st_size


def test_a_host_without_rsync_is_told_how_to_get_it(laptop: Laptop) -> None:
    laptop.write("echo.py", ECHO)

    done = laptop.inv("dev", "--", "echo.py", INVOKE_REMOTE_RSYNC_OPTIONS="--rsync-path=/nowhere/rsync")

    assert (69, True) == (done.returncode, "no rsync on sandbox" in done.stderr)


def test_without_a_terminal_nothing_printed_is_a_control_character(laptop: Laptop) -> None:
    laptop.write("write.py", WRITE)

    done = laptop.inv(
        "dev", "--auto-fetch", "--", "write.py", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"
    )

    said = done.stderr.replace("\n", "")
    assert (0, True, True) == (done.returncode, said.isprintable(), said.isascii())


# fab and bench ----------------------------------------------------------------------------------------------


def test_fab_takes_the_host_from_its_flag_and_the_words_after_the_dashes(laptop: Laptop) -> None:
    laptop.write("fabfile.py", "from remote_tools import ns\n")
    laptop.write("fabric.yaml", "tasks:\n  executor_class: remote_tools.tasks.executor.Executor\n")
    laptop.write("echo.py", ECHO)
    config = laptop.root / ".remote_config"
    config.write_text(config.read_text().replace("REMOTE_HOST=sandbox", "REMOTE_HOST=nowhere.invalid"))

    done = laptop.run("fab", "-H", "sandbox", "dev", "--", "echo.py", "two words")

    assert (0, ["two words"]) == (done.returncode, json.loads(done.stdout or "null"))


def test_a_bench_task_runs_its_script_with_flags_and_words(laptop: Laptop) -> None:
    laptop.write(
        "tasks.py",
        "from invoke import Collection\nfrom remote_tools import ns as remote\n"
        "from remote_tools.tasks.bench_task import bench_task\n"
        "echo = bench_task('echo', 'echo.py', ['--mode', 'both'])\n"
        "ns = Collection(*remote.tasks.values(), Collection('bench', echo))\n",
    )
    laptop.write("echo.py", ECHO)

    usual = laptop.inv("bench.echo")
    changed = laptop.inv("bench.echo", "--mode", "lhs rhs", "--", "--budget", "5")

    assert ["--mode", "both"] == json.loads(usual.stdout)
    assert ["--mode", "lhs rhs", "--budget", "5"] == json.loads(changed.stdout)
