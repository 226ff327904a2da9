"""Measure the sync against plain rsync: trees of three sizes, four changes, over a warm master.

Each row is measured in turns: ours, plain `rsync -az` with the same list of files, and the way of two full
passes (`rsync --dry-run` to count, then rsync). A figure is the median of the rounds; a ratio is the median
of the rounds' ratios, which a machine that is busy with something else blurs less.

    python benchmarks/sync.py [--files 2000,20000,100000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from remote_tools import sandbox, transfers
from remote_tools.plan import Base, PushOptions
from remote_tools.progress import Display
from remote_tools.rsync import listed, rsh
from remote_tools.session import Link
from remote_tools.ssh import Destination
from remote_tools.workspace import Workspace, scan

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
        result = transfers.push(self.link, self.scan(), self.options(), Display(io.StringIO()))
        transfers.finish(self.link, result)

    def options(self) -> PushOptions:
        """Return how we push."""
        return PushOptions(str(self.home / "ours"))

    def stamp(self) -> None:
        """Do what `inv dev` does with an unchanged tree: compare the stamp, and ask the host one question."""
        tree = self.scan()
        assert Base(tree.root, self.link.alias, str(self.home / "ours")).stamp == tree.stamp
        assert self.link.call("list") is not None

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


def measure(rows: Table, bench: Bench, files: int, rounds: int) -> None:
    """Add the rows of one size of tree."""
    ways = (bench.ours, bench.plain, bench.two_passes)

    def afresh(_turn: int) -> None:
        for folder in ("ours", "plain", "passes"):
            shutil.rmtree(bench.home / folder, ignore_errors=True)
        shutil.rmtree(bench.here / ".remote", ignore_errors=True)
        os.sync()

    compare(rows, files, "first push", afresh, ways, min(rounds, 3))
    compare(rows, files, "unchanged, inv sync", lambda _: None, ways, rounds)
    compare(rows, files, "unchanged, stamp", lambda _: None, (bench.stamp, *ways[1:]), rounds)
    compare(rows, files, "1 edit", lambda turn: edit(bench.here, 1, turn), ways, rounds)
    compare(rows, files, "1,000 edits", lambda turn: edit(bench.here, 1000, turn), ways, rounds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", default="2000,20000,100000", help="sizes of the trees")
    parser.add_argument("--rounds", type=int, default=5, help="how often each row is measured")
    args = parser.parse_args()
    rows = Table("files", "change", "ours s", "rsync -az s", "two passes s", "to rsync", "to two passes")
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
                link.call("list")
                measure(rows, bench, files, args.rounds)
        finally:
            link.close()
            link.master.close()
            sandbox.down(top / "host")
    Console().print(rows)
    own, children = (
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(f"peak memory: {own:.0f} MB of ours here, {children:.0f} MB of the largest child (rsync, git)")


if __name__ == "__main__":
    main()
