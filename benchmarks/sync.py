"""Measure the sync against plain rsync: trees of three sizes, four changes, over a warm master.

Each row is measured in turns: ours, plain `rsync -az` with the same list of files, and the way of two full
passes (`rsync --dry-run` to count, then rsync). A figure is the median of the rounds; a ratio is the median
of the rounds' ratios, which a machine that is busy with something else blurs less. Peak memory is that of
either end, all processes together, and is measured apart, as looking at it takes time.

    python benchmarks/sync.py [--files 2000,20000,100000] [--rounds 5] [--only ROW]
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from remote_tools.host import messages
from remote_tools.settings.settings import Settings
from remote_tools.setup import processes, sandbox
from remote_tools.setup.sandbox import Sandbox
from remote_tools.ssh.link import Link
from remote_tools.ssh.master import Destination
from remote_tools.sync import push
from remote_tools.sync.last_push import LastPush
from remote_tools.sync.open_host import OpenHost
from remote_tools.sync.plan import PushMode
from remote_tools.sync.progress import Display
from remote_tools.sync.rsync import listed, rsh
from remote_tools.sync.workspace import Workspace, scan

EXCLUDE = (".git", ".remote")


@dataclass
class Bench:
    """A workspace here, and three folders on the host: ours, plain rsync's, and that of two passes."""

    link: Link
    here: Path
    home: Path

    def scan(self) -> Workspace:
        """Scan as `inv sync` does."""
        return scan(self.here, EXCLUDE)

    def ours(self) -> None:
        """Do what `inv sync` does once the session is open."""
        host = self.host()
        push.finish(host, push.push(host, self.scan(), PushMode()))

    def clear(self) -> None:
        """Make the next push the first one."""
        for folder in ("ours", "plain", "passes"):
            shutil.rmtree(self.home / folder, ignore_errors=True)
        shutil.rmtree(self.here / ".remote", ignore_errors=True)
        os.sync()

    def host(self) -> OpenHost:
        """Return the host as `inv sync` has it."""
        settings = Settings(self.here, self.link.alias, str(self.home / "ours"))
        return OpenHost(settings, self.link, Display(io.StringIO()))

    def stamp(self) -> None:
        """Do what `inv dev` does with an unchanged tree: compare the stamp, and ask the host one question."""
        tree = self.scan()
        assert LastPush(tree.root, self.link.alias, str(self.home / "ours")).stamp == tree.stamp
        assert self.link.call(messages.LIST({"newest": 1})) is not None

    def rsync(self, folder: str, *words: str) -> None:
        """Run plain rsync with the list that git gives."""
        command = ["git", "-C", str(self.here), "ls-files", "-z", "-co", "--exclude-standard"]
        names = subprocess.run(command, capture_output=True, check=True).stdout.rstrip(b"\0").split(b"\0")
        with listed(names) as listing:
            options = ["-az", "--from0", f"--files-from={listing}", f"--rsh={rsh(self.link.ssh_words())}"]
            target = f"{self.link.alias}:{self.home / folder}"
            subprocess.run(
                ["rsync", *options, *words, f"{self.here}/", target], check=True, stdout=subprocess.DEVNULL
            )

    def plain(self) -> None:
        """Run one pass."""
        self.rsync("plain")

    def two_passes(self) -> None:
        """Run the pass that counts and the one that sends."""
        self.rsync("passes", "--dry-run", "--out-format=%n")
        self.rsync("passes", "--out-format=%n")


class Peaks:
    """Peak memory, in MB, of either end while a `with` lasts: the sum of the processes' own peaks.

    Linux only (proc(5): VmHWM, clear_refs).

    Args:
        host: the other end.
        but: processes that do not count.
    """

    def __init__(self, host: Sandbox, but: set[int]) -> None:
        """Begin with none."""
        self._but = but
        self._root = str(host.root)
        self._peaks: dict[tuple[str, int], float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Peaks:
        """Forget this process's peak so far, and look again and again."""
        Path("/proc/self/clear_refs").write_text("5")
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Look for the last time."""
        self._over.set()
        self._thread.join()

    def of(self, end: str) -> float:
        """Return the sum of one end, `here` or `there`."""
        return sum(peak for (where, _), peak in self._peaks.items() if where == end)

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            there = {each.pid for each in processes.marked(sandbox.MARK, self._root)}
            here = {each.pid for each in processes.family([psutil.Process()])}
            for end, pids in (("here", here - there - self._but), ("there", there)):
                for pid in pids:
                    with suppress(OSError, StopIteration):
                        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                        line = next(line for line in lines if line.startswith("VmHWM"))
                        self._peaks[end, pid] = int(line.split()[1]) * 1024 / 1e6


def make_tree(top: Path, count: int) -> None:
    """Make a git work tree of small sources, 50 to a folder, all of them tracked."""
    subprocess.run(["git", "init", "-q", str(top)], check=True)
    for i in range(count):
        folder = top / f"package{i // 2500}" / f"module{i // 50}"
        if i % 50 == 0:
            folder.mkdir(parents=True)
        (folder / f"source{i}.py").write_text(f"# {i}\n" + "x = 1\n" * (i % 300))
    subprocess.run(["git", "-C", str(top), "add", "-A"], check=True)


def edit(top: Path, count: int, turn: int) -> None:
    """Edit that many files, spread over the tree."""
    paths = sorted(top.glob("package*/module*/source*.py"))
    for path in paths[:: max(1, len(paths) // count)][:count]:
        path.write_text(path.read_text() + f"# turn {turn}\n")


def timed(work: Callable[[], None]) -> float:
    """Return how long something takes, in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(
    rows: Table,
    files: int,
    change: str,
    before: Callable[[int], None],
    ways: Sequence[Callable[[], None]],
    rounds: int,
) -> None:
    """Measure the ways in turns, the change made before each round, and add a row."""
    times: list[list[float]] = []
    for turn in range(rounds):
        before(turn)
        order = list(ways) if turn % 2 == 0 else list(reversed(ways))
        taken = {way: timed(way) for way in order}
        times.append([taken[way] for way in ways])
    ours, plain, passes = (statistics.median(column) for column in zip(*times, strict=True))
    to_plain, to_passes = (statistics.median(row[0] / row[i] for row in times) for i in (1, 2))
    print(f"{files:,} {change}: {ours:.2f} s, {to_plain:.2f} of plain rsync", file=sys.stderr, flush=True)
    rows.add_row(
        f"{files:,}",
        change,
        f"{ours:.2f}",
        f"{plain:.2f}",
        f"{passes:.2f}",
        f"{to_plain:.2f}",
        f"{to_passes:.2f}",
    )


def measure(rows: Table, bench: Bench, files: int, rounds: int, only: str) -> None:
    """Add the rows of one size of tree."""
    ways = (bench.ours, bench.plain, bench.two_passes)
    stamp = (bench.stamp, *ways[1:])
    changes: list[tuple[str, Callable[[int], None], Sequence[Callable[[], None]]]] = [
        ("first push", lambda _turn: bench.clear(), ways),
        ("unchanged, inv sync", lambda _turn: None, ways),
        ("unchanged, stamp", lambda _turn: None, stamp),
        ("1 edit", lambda turn: edit(bench.here, 1, turn), ways),
        ("1,000 edits", lambda turn: edit(bench.here, 1000, turn), ways),
    ]
    for change, before, of in changes:
        if only in change:
            compare(rows, files, change, before, of, min(rounds, 3) if change == "first push" else rounds)


def measure_memory(rows: Table, bench: Bench, files: int, host: Sandbox) -> None:
    """Add what a push takes, by us and by plain rsync."""
    bench.clear()
    changes: list[tuple[str, Callable[[], None]]] = [
        ("first push", lambda: None),
        ("1 edit", lambda: edit(bench.here, 1, -1)),
    ]
    for change, before in changes:
        before()
        peaks = []
        for way, but in ((bench.ours, set[int]()), (bench.plain, {os.getpid()})):
            bench.link.close()  # a new session: one that has lasted remembers its own peak
            with Peaks(host, but) as peak:
                way()
            peaks.append(peak)
        figures = [f"{peak.of(end):.0f}" for end in ("here", "there") for peak in peaks]
        more = [f"{peaks[0].of(end) - peaks[1].of(end):.0f}" for end in ("here", "there")]
        rows.add_row(f"{files:,}", change, *figures[:2], more[0], *figures[2:], more[1])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", default="2000,20000,100000", help="sizes of the trees")
    parser.add_argument("--rounds", type=int, default=5, help="how often each row is measured")
    parser.add_argument("--only", default="", help="the rows whose change has this in its name, or `memory`")
    args = parser.parse_args()
    rows = Table("files", "change", "ours s", "rsync -az s", "two passes s", "to rsync", "to two passes")
    memory = Table(
        "files",
        "change",
        "ours here",
        "rsync",
        "more",
        "ours there",
        "rsync",
        "more",
        title="Peak memory, MB",
    )
    with tempfile.TemporaryDirectory(prefix="sync-") as folder:
        top = Path(folder)
        server = sandbox.up(top / "host")
        link = Link(Destination(server.host_alias, ("-F", str(server.ssh_config))), "~", print)
        try:
            for files in map(int, args.files.split(",")):
                bench = Bench(link, top / f"here{files}", server.home / str(files))
                bench.home.mkdir()
                make_tree(bench.here, files)
                link.code_path = str(bench.home / "ours")
                link.call(messages.LIST({"newest": 1}))
                if args.only not in ("", "memory", "first push"):
                    for way in (bench.ours, bench.plain, bench.two_passes):
                        way()
                measure(rows, bench, files, args.rounds, args.only)
                if args.only in ("", "memory"):
                    measure_memory(memory, bench, files, server)
        finally:
            link.close()
            link.master.close()
            sandbox.down(top / "host")
    for table in (rows, memory):
        if table.row_count:
            Console(width=100).print(table)


if __name__ == "__main__":
    main()
