"""Measure the loop against ssh and rsync as one types them, over a network without and with delay.

    python benchmarks/loop.py [--rounds 7] [--start-up-s 0.26] [--quick] [--only watch]

A server of our own stands behind a proxy that delays every byte by half a round trip. The rows take turns, so
what else the machine does falls on all of them. A figure is the median of the rounds, a ratio that of
theirs. Round trips are counted over a network of one second each, less what the row needs without delay.
Each session's shell takes as long to start as a host's does whose ~/.bashrc sets up conda or pyenv;
`--start-up-s 0` is a host without any.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.proxy import Proxy
from remote_tools.setup import sandbox
from remote_tools.setup.sandbox import Sandbox

RTT_S = 0.1
COUNTING_RTT_S = 1.0
WATCH_REACH_S = 0.15
"""What a save may cost beside three round trips."""
MB = 1_000_000
PACKAGE_FILES = 40
HELLO = """\
import os, pathlib
folder = pathlib.Path(os.environ["AUTOTUNE_CACHE_DIR"], "kernel", "1x1")
folder.mkdir(parents=True, exist_ok=True)
(folder / "result.txt").write_text("it")
print("hello")
"""
SCRIPT = """\
rsync -az --delete -e "$SSH" --exclude cache --exclude .git --exclude .remote ./ sandbox:script &&
$SSH sandbox 'cd script && AUTOTUNE_CACHE_DIR=~/script-cache python3 hello.py' &&
rsync -az -e "$SSH" sandbox:script-cache/ cache-script/
"""


@dataclass(frozen=True)
class Laptop:
    """A project whose host is behind a network; its master has a socket of its own."""

    root: Path
    host: Sandbox
    env: dict[str, str]
    ssh: tuple[str, ...]
    """ssh over a master that is kept open beside ours."""

    @classmethod
    def make(cls, folder: Path, host: Sandbox, port: int) -> Laptop:
        """Make a git work tree of a few dozen sources, and open a master for the hand-written way."""
        root = folder / "project"
        (root / "package").mkdir(parents=True)
        (root / "hello.py").write_text(HELLO)
        (root / "tasks.py").write_text("from remote_tools import ns\n")
        for i in range(PACKAGE_FILES):
            (root / "package" / f"module{i}.py").write_text(f"x = {i}\n" * 50)
        (root / ".gitignore").write_text("cache*/\n.remote/\n.remote_config\n__pycache__/\n")
        config = folder / "ssh_config"
        lines = host.ssh_config.read_text().replace(f"Port {host.port}", f"Port {port}")
        config.write_text(f"{lines}    HostKeyAlias [127.0.0.1]:{host.port}\n")
        (root / ".remote_config").write_text(
            f"REMOTE_HOST=sandbox\nREMOTE_CODE_PATH=~/{folder.name}\nREMOTE_CACHE_DIR=~/{folder.name}-cache\n"
            f"SSH_OPTIONS=\"-F '{config}'\"\n"
        )
        subprocess.run(["git", "init", "-q", str(root)], check=True)
        subprocess.run(["git", "-C", str(root), "add", "-A"], check=True)
        name = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
        subprocess.run(["git", "-C", str(root), *name, "commit", "-q", "-m", "Begin"], check=True)
        ssh = ("ssh", "-F", str(config), "-o", f"ControlPath={folder / 'm'}")
        subprocess.run([*ssh, "-MNf", "sandbox"], check=True, stderr=subprocess.DEVNULL)
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        path = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
        added = {"PATH": path, "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder), "SSH": " ".join(ssh)}
        python_path = str(Path(__file__).resolve().parent.parent)
        return cls(root, host, {**kept, **added, "PYTHONPATH": python_path}, ssh)

    def run(self, *words: str) -> None:
        """Run a command in the project."""
        subprocess.run(words, cwd=self.root, env=self.env, check=True, capture_output=True)

    def inv(self, *words: str) -> None:
        """Run `inv`."""
        self.run("inv", *words)

    def edit(self) -> None:
        """Change one file."""
        path = self.root / "package" / "module7.py"
        path.write_text(path.read_text() + "x += 1\n")

    def forget(self) -> None:
        """Make the next command a first contact: no master, nothing of ours there, nothing known here."""
        for path in self.root.parent.glob("remote-tools-*/*"):
            if path.is_socket():
                end = ["ssh", "-S", str(path), "-O", "exit", "host"]
                subprocess.run(end, capture_output=True, check=False)
        for path in (
            self.host.home / ".cache",
            self.host.home / self.root.parent.name,
            self.root / ".remote",
        ):
            shutil.rmtree(path, ignore_errors=True)


@dataclass(frozen=True)
class Row:
    """One thing that is measured: what stands in the table, what is timed, and what is done before."""

    name: str
    work: Callable[[Laptop], None]
    before: Callable[[Laptop], None] = lambda _laptop: None

    def time(self, laptop: Laptop) -> float:
        """Return how long it takes, in seconds."""
        self.before(laptop)
        start = time.perf_counter()
        self.work(laptop)
        return time.perf_counter() - start


def known(laptop: Laptop) -> None:
    """Have the tree pushed and the master open."""
    laptop.inv("dev", "--", "hello.py")


HAND_WRITTEN = "rsync, ssh, rsync by hand, over a master"
DEV = ("dev", "--", "hello.py")
DEV_FETCH = ("dev", "--auto-fetch", "--", "hello.py")
ROWS = (
    Row("ssh true, cold", lambda laptop: laptop.run("ssh", "-S", "none", *laptop.ssh[1:], "sandbox", "true")),
    Row("ssh true, over a master", lambda laptop: laptop.run(*laptop.ssh, "sandbox", "true")),
    Row(HAND_WRITTEN, lambda laptop: laptop.run("sh", "-c", SCRIPT)),
    Row("ours, unchanged", lambda laptop: laptop.inv(*DEV)),
    Row("ours, unchanged, with fetch", lambda laptop: laptop.inv(*DEV_FETCH)),
    Row("ours, one file edited", lambda laptop: laptop.inv(*DEV), Laptop.edit),
    Row("ours, one file edited, with fetch", lambda laptop: laptop.inv(*DEV_FETCH), Laptop.edit),
    Row("ours, first contact, with fetch", lambda laptop: laptop.inv(*DEV_FETCH), Laptop.forget),
    Row("ours, first contact", lambda laptop: laptop.inv(*DEV), Laptop.forget),
)


class Watching:
    """`inv dev --watch` while a `with` lasts.

    Args:
        laptop: where it runs.
    """

    def __init__(self, laptop: Laptop) -> None:
        """Start it."""
        self._laptop = laptop
        self._process = subprocess.Popen(
            ["inv", "dev", "--watch", "--", "hello.py"],
            cwd=laptop.root,
            env=laptop.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __enter__(self) -> Watching:
        """Wait for the first run's end."""
        self._first_output()
        self._until_it_waits()
        return self

    def __exit__(self, *_error: object) -> None:
        """End it as a user does."""
        self._process.send_signal(signal.SIGINT)
        self._process.communicate()

    def save(self) -> float:
        """Return how long it takes from a save to the run's first output, in seconds."""
        start = time.perf_counter()
        self._laptop.edit()
        self._first_output()
        taken_s = time.perf_counter() - start
        self._until_it_waits()
        return taken_s

    def _first_output(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def _until_it_waits(self) -> None:
        assert self._process.stderr is not None
        lines = iter(self._process.stderr.readline, b"")
        if not any(b"Waiting for a save" in line for line in lines):
            raise SystemExit("the watch ended by itself")


def measure_watch(near: Laptop, far: Laptop, farthest: Laptop, rounds: int) -> Table:
    """Time saves under a watch, near and far, and one so far away that round trips are all that counts."""
    with Watching(near) as here, Watching(far) as there:
        here.save()
        there.save()
        times = [(here.save(), there.save()) for _ in range(rounds)]
    with Watching(farthest) as much:
        counting_s = much.save()
    near_s, far_s = (statistics.median(column) for column in zip(*times, strict=True))
    trips = (counting_s - near_s) / COUNTING_RTT_S
    table = Table("", "0 ms", f"{RTT_S * 1000:.0f} ms", "round trips", "to reach", box=box.MARKDOWN)
    reach = f"3 trips, {WATCH_REACH_S:.2f} s, {3 * RTT_S + WATCH_REACH_S:.2f} s"
    table.add_row(
        "a save, `dev --watch`, to the first output",
        f"{near_s:.2f} s",
        f"{far_s:.2f} s",
        f"{trips:.1f}",
        reach,
    )
    return table


def measure_loop(near: Laptop, far: Laptop, farthest: Laptop, rounds: int) -> Table:
    """Time every row near and far, in turns, and once so far away that round trips are all that counts."""
    times: dict[str, tuple[list[float], list[float]]] = {row.name: ([], []) for row in ROWS}
    for laptop in (near, far, farthest):
        known(laptop)
        laptop.run("sh", "-c", SCRIPT)
    for _ in range(rounds):
        for row in ROWS:
            for laptop, found in zip((near, far), times[row.name], strict=True):
                found.append(row.time(laptop))
    known(farthest)  # the others' first contacts took away what the host had of it
    by_hand = times[HAND_WRITTEN]
    table = Table(
        "", "0 ms", f"{RTT_S * 1000:.0f} ms", "round trips", "of by hand: 0 ms", "100 ms", box=box.MARKDOWN
    )
    for row in ROWS:
        here, there = times[row.name]
        trips = (row.time(farthest) - statistics.median(here)) / COUNTING_RTT_S
        ratios = [
            statistics.median(ours / theirs for ours, theirs in zip(found, base, strict=True))
            for found, base in zip((here, there), by_hand, strict=True)
        ]
        table.add_row(
            row.name,
            f"{statistics.median(here):.2f} s",
            f"{statistics.median(there):.2f} s",
            f"{trips:.1f}",
            *(f"{ratio:.2f}" for ratio in ratios),
        )
    return table


def timed(laptop: Laptop, words: Sequence[str]) -> tuple[float, float]:
    """Run a command with its output thrown away; return how long it takes in s, and its peak memory in MB."""
    start = time.perf_counter()
    with open(os.devnull, "wb") as null:  # noqa: PTH123
        process = subprocess.Popen(words, cwd=laptop.root, env=laptop.env, stdout=null, stderr=null)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024 / MB


def random_file(path: Path, size_bytes: int) -> Path:
    """Write a file that nothing compresses."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for start in range(0, size_bytes, MB):
            file.write(os.urandom(min(MB, size_bytes - start)))
    return path


def volumes(laptop: Laptop, scale: float) -> Iterator[tuple[str, list[str], list[str]]]:
    """Make much output, a large result and many small ones; yield what to call each, our way and theirs."""
    for size_bytes in (20 * MB, int(200 * MB * scale)):
        big = str(random_file(laptop.host.home / f"big{size_bytes}", size_bytes))
        ours = ["inv", "exec", "--", "cat", big]
        yield f"output of {size_bytes // MB} MB", ours, [*laptop.ssh, "sandbox", f"cat {big}"]
    cache = laptop.host.home / f"{laptop.root.parent.name}-cache"
    random_file(cache / "large" / "1x1" / "file", int(1000 * MB * scale))
    for i in range(int(10_000 * scale)):
        random_file(cache / "small" / "1x1" / f"file{i}", 1000)
    for name, title in (("large", f"{1000 * scale:,.0f} MB"), ("small", f"{10_000 * scale:,.0f} files")):
        rsync = ["rsync", "-a", "-e", laptop.env["SSH"], f"sandbox:{cache}/{name}/", "cache-plain/"]
        yield f"fetch of {title}", ["inv", "fetch", "--kernel", name], rsync


def measure_volume(laptop: Laptop, rounds: int, scale: float) -> Table:
    """Time volumes in turns with ssh and rsync over one master."""
    table = Table("", "ours", "ssh, rsync", "ratio", "our peak memory", box=box.MARKDOWN)
    for title, our_words, their_words in volumes(laptop, scale):
        ours: list[tuple[float, float]] = []
        theirs: list[tuple[float, float]] = []
        for _ in range(rounds):
            for words, found in ((our_words, ours), (their_words, theirs)):
                for folder in ("cache", "cache-plain"):
                    shutil.rmtree(laptop.root / folder, ignore_errors=True)
                found.append(timed(laptop, words))
        table.add_row(
            title,
            f"{statistics.median(duration_s for duration_s, _ in ours):.2f} s",
            f"{statistics.median(duration_s for duration_s, _ in theirs):.2f} s",
            f"{statistics.median(a / b for (a, _), (b, _) in zip(ours, theirs, strict=True)):.2f}",
            f"{max(peak_mb for _, peak_mb in ours):.0f} MB",
        )
    return table


def over_networks(name: str, top: Path, host: Sandbox, rounds: int) -> Table:
    """Measure one table over three networks."""
    with (
        Proxy(host.port) as none,
        Proxy(host.port, RTT_S / 2) as some,
        Proxy(host.port, COUNTING_RTT_S / 2) as much,
    ):
        networks = {"near": none, "far": some, "farthest": much}
        laptops = [Laptop.make(top / f"{name}-{far}", host, via.port) for far, via in networks.items()]
        measure = {"loop": measure_loop, "watch": measure_watch}[name]
        return measure(laptops[0], laptops[1], laptops[2], rounds)


def main() -> None:
    """Measure and print the tables."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background ignores it
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="how often each row is timed (default: 7)")
    help_text = "how long a shell takes to start on the host (default: 0.26)"
    parser.add_argument("--start-up-s", type=float, default=0.26, help=help_text)
    parser.add_argument("--quick", action="store_true", help="a tenth of the volume")
    parser.add_argument("--only", choices=["loop", "watch", "volume"], help="one of the three tables")
    args = parser.parse_args()
    console = Console(width=120)
    with tempfile.TemporaryDirectory(prefix="loop-") as top:
        host = sandbox.up(Path(top) / "host")
        try:
            enter = host.root / "enter"
            enter.write_text(f"sleep {args.start_up_s}\n{enter.read_text()}")
            for name in ("loop", "watch"):
                if args.only in (None, name):
                    console.print(over_networks(name, Path(top), host, args.rounds))
            if args.only in (None, "volume"):
                laptop = Laptop.make(Path(top) / "volume", host, host.port)
                known(laptop)
                console.print(measure_volume(laptop, max(1, args.rounds // 2), 0.1 if args.quick else 1))
        finally:
            sandbox.down(host.root)


if __name__ == "__main__":
    main()
