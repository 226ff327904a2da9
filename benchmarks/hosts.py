"""How long a bench task takes on many hosts at once, beside what the cores of this machine allow.

Every host is an sshd of its own here, so that both ends of all connections share the cores. What they allow
is the CPU time that one host's run costs, both ends and everything started included, times the hosts, divided
by the cores. A first run pushes the tree; later ones find it unchanged.

    python benchmarks/hosts.py [--hosts 20] [--files 200] [--runs 3]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from remote_tools.setup import sandbox

PR_SET_CHILD_SUBREAPER = 36
"""prctl(2): what a session leaves behind becomes our child, so that its CPU time is counted here."""

TASKS = """\
from invoke import Collection
from remote_tools import ns as remote
from remote_tools.bench import bench_task
ns = Collection(*remote.tasks.values(), Collection("bench", bench_task("hello", "hello.py")))
"""


@dataclass(frozen=True)
class Cost:
    """What some runs cost.

    Args:
        walls_s: how long each took.
        cpu_s: of all of them, both ends.
    """

    walls_s: list[float]
    cpu_s: float


def measure(folder: Path, hosts: int, files: int, runs: int) -> Cost:
    """Run the bench task so often on so many fresh hosts."""
    before = _cpu_s()
    project, names = _project(folder, files), [f"host{number}" for number in range(hosts)]
    configs = []
    for name in names:
        found = sandbox.up(folder / name)
        configs.append(found.ssh_config.read_text().replace(f"Host {found.host_alias}", f"Host {name}"))
    config = folder / "ssh_config"
    config.write_text("\n".join(configs))
    settings = {"code_path": "~/project", "ssh_options": ["-F", str(config)]}
    (project / "invoke.yaml").write_text(json.dumps({"remote": settings}))
    walls_s = []
    try:
        for _ in range(runs):
            began = time.perf_counter()
            command = [sys.executable, "-m", "invoke", "bench.hello", "--hosts", ",".join(names)]
            env = {**os.environ, "HOME": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
            subprocess.run(command, cwd=project, env=env, check=True, capture_output=True)
            walls_s.append(time.perf_counter() - began)
        _close_masters(config, names)
    finally:
        for name in names:
            sandbox.down(folder / name)
    _reap()
    return Cost(walls_s, _cpu_s() - before)


def _project(folder: Path, files: int) -> Path:
    """Make a project of small sources and one script."""
    project = folder / "project"
    project.mkdir(parents=True)
    (project / "tasks.py").write_text(TASKS)
    (project / "hello.py").write_text("print('hello')\n")
    for number in range(files):
        (project / f"source{number}.py").write_text(f"# {number}\n" * 50)
    return project


def _close_masters(config: Path, names: list[str]) -> None:
    """End the shared connections, whose CPU time counts when they have ended."""
    from remote_tools.ssh.master import Destination, Master

    for name in names:
        Master(Destination(name, ("-F", str(config)))).close()


def _reap() -> None:
    """Take in what was left to us, until nothing of it runs."""
    deadline = time.monotonic() + 10
    with suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.01)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=20, help="how many at once")
    parser.add_argument("--files", type=int, default=200, help="how many are pushed to each")
    parser.add_argument("--runs", type=int, default=3, help="how often it is run after the first push")
    args = parser.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="hosts-") as name:
        folder = Path(name)
        idle = measure(folder / "idle", 1, args.files, 0)
        once = measure(folder / "once", 1, args.files, 1)
        often = measure(folder / "often", 1, args.files, 1 + args.runs)
        many = measure(folder / "many", args.hosts, args.files, 1 + args.runs)
    costs = {
        "first run, with push": (once.cpu_s - idle.cpu_s, often.walls_s[0], many.walls_s[0]),
        "unchanged tree": (
            (often.cpu_s - once.cpu_s) / args.runs,
            statistics.median(often.walls_s[1:]),
            statistics.median(many.walls_s[1:]),
        ),
    }
    rows = Table("", "1 host s", "its CPU s", f"{args.hosts} hosts s", f"{cores} cores allow s", "ratio")
    for what, (cpu_s, one_s, many_s) in costs.items():
        allowed_s = max(one_s, cpu_s * args.hosts / cores)
        figures = (one_s, cpu_s, many_s, allowed_s, many_s / allowed_s)
        rows.add_row(what, *(f"{figure:.2f}" for figure in figures))
    Console().print(rows)


if __name__ == "__main__":
    main()
