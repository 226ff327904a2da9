"""Several hosts at once, as a user types them, through `inv` and `fab`."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator

import pexpect
import pytest

from remote_tools.setup import sandbox as sandbox_module
from remote_tools.setup.sandbox import Sandbox
from tests.integration.conftest import Laptop

TASKS = """\
from invoke import task
from invoke import Collection
from remote_tools import ns as remote
from remote_tools.tasks.bench_task import bench_task

@task
def theirs(c):
    print("theirs at", c.host)

fill = bench_task("fill", "fill.py", ["--mode", "both"])
ns = Collection(*remote.tasks.values(), Collection("bench", fill), theirs)
"""
# Writes what a tuner would, says where it is, and fails where it is told to.
FILL = """\
import json, os, pathlib, sys
reading = {"median_ms": 2.0, "ci95_low_ms": 1.9, "ci95_high_ms": 2.1, "gflops": 12.5}
trial = {"status": "ok", "path": "x=1", "metrics": reading, "confirmed": None}
folder = pathlib.Path(os.environ["AUTOTUNE_CACHE_DIR"]) / "gemm" / "8x8_8x8"
folder.mkdir(parents=True, exist_ok=True)
summary = {"kernel": "gemm", "shapes": "8x8_8x8", "environment": {}, "trials": [trial]}
(folder / "perf_metrics.json").write_text(json.dumps(summary))
print("out of", pathlib.Path.cwd().name.rpartition("-")[2], *sys.argv[1:])
print("err", file=sys.stderr)
sys.exit(int(os.environ.get("FAIL", 0)))
"""


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Give another server beside the session's."""
    root = tmp_path_factory.mktemp("host")
    yield sandbox_module.up(root)
    sandbox_module.down(root)


@pytest.fixture
def fleet(make_laptop: Callable[[Sandbox], Laptop], sandbox: Sandbox, second: Sandbox) -> Laptop:
    """Give a project with two hosts, trn1 and trn2, and a group of both."""
    servers = {"trn1": sandbox, "trn2": second}
    laptop = make_laptop(sandbox)
    place = f"~/{laptop.root.parent.name}"
    config = laptop.write(
        "../ssh_config",
        "\n".join(
            server.ssh_config.read_text().replace("Host sandbox", f"Host {alias}")
            for alias, server in servers.items()
        ),
    )
    (laptop.root / ".remote_config").write_text(f"SSH_OPTIONS=\"-F '{config}'\"\n")
    hosts = {
        "trn1": {"code_path": f"{place}-one"},
        "trn2": {"code_path": f"{place}-two"},
        "fleet": ["trn1", "trn2"],
    }
    settings = {"hosts": hosts, "code_path": f"{place}-project", "cache_dir": f"{place}-cache"}
    laptop.write("invoke.yaml", json.dumps({"remote": settings}))
    laptop.write("tasks.py", TASKS)
    laptop.write("fabfile.py", "from tasks import ns\n")
    laptop.write("fabric.yaml", "tasks:\n  executor_class: remote_tools.tasks.executor.Executor\n")
    laptop.write("fill.py", FILL)
    laptop.env["COLUMNS"] = "120"
    return laptop


def rows(printed: str) -> list[list[str]]:
    """Return the closing table without its times."""
    return [
        re.split(r"\s{2,}", line.strip())[:-1]
        for line in printed.splitlines()
        if re.search(r"\d s\s*$", line)
    ]


DONE = "gemm 12.5 GFLOP/s at 8x8_8x8"


@pytest.mark.parametrize(
    "command",
    [
        ["inv", "bench.fill", "--hosts", "trn1,trn2"],
        ["inv", "bench.fill", "--host", "fleet"],
        ["fab", "-H", "trn1,trn2", "bench.fill"],
        ["fab", "-H", "fleet", "bench.fill"],
    ],
    ids=" ".join,
)
def test_a_benchmark_runs_on_every_host(fleet: Laptop, command: list[str]) -> None:
    done = fleet.run(*command, "--", "--budget", "5")

    outs = sorted(line for line in done.stdout.splitlines() if "out of" in line)
    assert [
        "[trn1] out of one --mode both --budget 5",
        "[trn2] out of two --mode both --budget 5",
    ] == outs, done.stderr
    assert {"[trn1] err", "[trn2] err"} <= set(done.stderr.splitlines())
    assert (0, [["trn1", "done", "0", DONE], ["trn2", "done", "0", DONE]]) == (
        done.returncode,
        rows(done.stdout),
    )
    assert ["trn1", "trn2"] == sorted(
        path.parts[-4] for path in fleet.root.glob("cache/*/gemm/8x8_8x8/perf_metrics.json")
    )


def test_one_hosts_failure_stops_no_other(fleet: Laptop) -> None:
    fleet.write(
        "fill.py", FILL.replace('os.environ.get("FAIL", 0)', '7 * (pathlib.Path.cwd().name.endswith("one"))')
    )

    done = fleet.inv("bench.fill", "--hosts", "nowhere.invalid,trn1,trn2")

    assert (
        68,
        [["nowhere.invalid", "connect", "68"], ["trn1", "done", "7", DONE], ["trn2", "done", "0", DONE]],
    ) == (
        done.returncode,
        rows(done.stdout),
    )
    assert "[nowhere.invalid] connect: cannot reach nowhere.invalid: " in done.stderr


def test_hosts_without_all_settings_start_nothing(fleet: Laptop) -> None:
    fleet.write("invoke.yaml", json.dumps({"remote": {"hosts": {"trn1": {"code_path": "~/one"}}}}))

    done = fleet.inv("bench.fill", "--hosts", "trn1,trn2")

    assert (78, "", "settings: no code_path is set for trn2") == (
        done.returncode,
        done.stdout,
        done.stderr.splitlines()[0],
    )


def test_a_foreign_task_stays_as_fabric_has_it(fleet: Laptop) -> None:
    done = fleet.run("fab", "-H", "trn1,trn2", "theirs")

    assert (0, "theirs at trn1\ntheirs at trn2\n") == (done.returncode, done.stdout)


def test_without_a_terminal_nothing_is_coloured(fleet: Laptop) -> None:
    done = fleet.inv("bench.fill", "--hosts", "fleet")

    assert "\x1b" not in done.stdout + done.stderr


SLEEP = "import time\nprint('up', flush=True)\ntime.sleep(60)\n"


def test_an_interrupt_ends_the_runs_on_all_hosts(fleet: Laptop) -> None:
    fleet.write("fill.py", SLEEP)
    process = subprocess.Popen(
        fleet.command("inv", "bench.fill", "--hosts", "fleet"),
        cwd=fleet.root,
        env=fleet.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # no terminal, so no Ctrl-C but ours
    )
    assert process.stdout is not None
    up = [next(line for line in process.stdout if "up" in line) for _ in range(2)]

    process.send_signal(signal.SIGINT)

    printed = process.communicate(timeout=60)[0]
    assert ["[trn1] up\n", "[trn2] up\n"] == sorted(up)
    assert (130, [["trn1", "done", "130"], ["trn2", "done", "130"]]) == (process.returncode, rows(printed))


def test_ctrl_c_at_the_terminal_reaches_each_host_once(fleet: Laptop) -> None:
    fleet.write("fill.py", SLEEP)
    command = fleet.command("inv", "bench.fill", "--hosts", "fleet")
    terminal = pexpect.spawn(
        command[0],
        command[1:],
        cwd=fleet.root,
        env={**fleet.env, "TERM": "xterm"},
        encoding="utf-8",
        timeout=60,
    )
    terminal.setwinsize(24, 120)
    for _ in range(2):
        terminal.expect(r"\[trn\d\]\x1b\[0m up")

    terminal.sendintr()

    terminal.expect(pexpect.EOF)
    terminal.close()
    said = terminal.before or ""
    assert (130, 2, 0) == (terminal.exitstatus, said.count("SIGINT sent to "), said.count("SIGTERM sent to"))


def test_a_bar_a_host_on_a_terminal(fleet: Laptop) -> None:
    (fleet.root / "big").write_bytes(b"x" * 3_000_000)
    command = fleet.command("inv", "bench.fill", "--hosts", "fleet")
    terminal = pexpect.spawn(
        command[0],
        command[1:],
        cwd=fleet.root,
        env={**fleet.env, "TERM": "xterm"},
        encoding="utf-8",
        timeout=60,
    )
    terminal.setwinsize(24, 120)

    terminal.expect(pexpect.EOF)

    said = terminal.before or ""
    bars = {host: re.findall(rf"\[{host}\] Uploading: +(\d+)%", said) for host in ("trn1", "trn2")}
    assert {"trn1": "100", "trn2": "100"} == {host: found[-1] for host, found in bars.items()}


def test_dev_and_exec_take_several_hosts_too(fleet: Laptop) -> None:
    ran = fleet.inv("dev", "--hosts", "trn1,trn2", "--", "fill.py", "two words")
    printed = fleet.run("fab", "-H", "trn1,trn2", "exec", "--", "sh", "-c", 'echo "${PWD##*-}"; exit 3')

    assert (0, ["[trn1] out of one two words", "[trn2] out of two two words"]) == (
        ran.returncode,
        sorted(line for line in ran.stdout.splitlines() if "out of" in line),
    )
    assert (3, [["trn1", "done", "3"], ["trn2", "done", "3"]]) == (printed.returncode, rows(printed.stdout))
    assert {"[trn1] one", "[trn2] two"} <= set(printed.stdout.splitlines())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--host", "trn1", "--hosts", "trn2"], "hosts: --host and --hosts cannot be used together"),
        (["--hosts", "fleet", "--pty"], "hosts: --pty takes one host"),
        (["--hosts", "fleet", "--watch"], "hosts: --watch takes one host"),
        (["--hosts", ","], "hosts: --hosts ',' contains no host"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(fleet: Laptop, words: list[str], message: str) -> None:
    done = fleet.inv("dev", *words, "--", "fill.py")

    assert (64, message) == (done.returncode, done.stderr.splitlines()[0])
