"""Random trees, edited at random here and there: after a sync the host holds the workspace and lost nothing."""

from __future__ import annotations

import io
import itertools
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remote_tools import transfers
from remote_tools.plan import PushOptions
from remote_tools.progress import Display
from remote_tools.sandbox import Sandbox
from remote_tools.session import Link
from remote_tools.ssh import Destination
from remote_tools.workspace import scan

NAMES = [
    b"a",
    b"b c",
    b"-x",
    b"*",
    b"n\nl",
    b"\xff\xfe",
    b"q'\"$`\\",
    b"c:d",
    b"~",
    b"#",
    b"\\#012",
    b"\xc3\xbc",
]
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(b"/".join)
CONTENTS = st.sampled_from([b"", b"1", b"2", b"three", b"x" * 3000])
MODES = st.sampled_from([0o644, 0o755, 0o600, 0o444])
TARGETS = st.sampled_from([b"a", b"b c/-x", b"../up", b"/abs//olute", b"no\nwhere", b"\xff"])

HERE = st.one_of(
    st.tuples(st.just("write"), PATHS, CONTENTS, MODES),
    st.tuples(st.just("link"), PATHS, TARGETS, st.none()),
    st.tuples(st.just("delete"), PATHS, st.none(), st.none()),
)
THERE = st.one_of(
    st.tuples(st.just("write"), PATHS, st.none(), MODES),
    st.tuples(st.just("link"), PATHS, st.none(), st.none()),
    st.tuples(st.just("delete"), PATHS, st.none(), st.none()),
)
ROUNDS = st.lists(st.tuples(st.lists(HERE, max_size=8), st.lists(THERE, max_size=4)), min_size=1, max_size=4)

_numbers = itertools.count()


def clear_way(top: bytes, path: bytes) -> bytes:
    """Remove what stands at a path, and any file or link in place of a folder above it; return the full path."""
    parts = path.split(b"/")
    for count in range(1, len(parts)):
        above = os.path.join(top, *parts[:count])
        if os.path.islink(above) or os.path.isfile(above):
            os.unlink(above)
    full = os.path.join(top, path)
    if os.path.isdir(full) and not os.path.islink(full):
        shutil.rmtree(full)
    elif os.path.lexists(full):
        os.unlink(full)
    return full


def edit(top: bytes, op: str, path: bytes, what: bytes | None, mode: int | None) -> None:
    """Carry out one edit."""
    if op == "delete":
        full = os.path.join(top, path)
        if os.path.realpath(os.path.dirname(full)).startswith(os.path.realpath(top)) and os.path.lexists(
            full
        ):
            clear_way(top, path)
        return
    full = clear_way(top, path)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    if op == "link":
        os.symlink(what or b"", full)
    else:
        with open(full, "wb") as file:
            file.write(what or b"")
        os.chmod(full, mode or 0o644)


def tree(top: bytes) -> dict[bytes, tuple[str, object, object]]:
    """Read everything below a folder: content and mode of files, targets of links."""
    found: dict[bytes, tuple[str, object, object]] = {}
    for folder, folders, names in os.walk(top):
        for name in [*names, *(n for n in folders if os.path.islink(os.path.join(folder, n)))]:
            full = os.path.join(folder, name)
            path = os.path.relpath(full, top)
            if os.path.islink(full):
                found[path] = ("link", os.readlink(full), None)
            else:
                found[path] = ("file", Path(os.fsdecode(full)).read_bytes(), os.lstat(full).st_mode & 0o7777)
    return found


@dataclass
class Pair:
    """A workspace here and its folder on the host."""

    link: Link
    here: Path
    there: Path
    made_there: set[object] = field(default_factory=set)

    def sync(self) -> None:
        """Do what `inv sync` does."""
        self.link.code_path = str(self.there)
        options = PushOptions(str(self.there), timeout_s=20)
        workspace = scan(self.here, exclude=[".remote"])
        result = transfers.push(self.link, workspace, options, Display(io.StringIO()))
        transfers.finish(self.link, result)

    def edit_there(self, op: str, path: bytes, mode: int | None) -> None:
        """Edit on the host; each thing written there is unlike all others."""
        before = {(kind, what) for kind, what, _ in tree(os.fsencode(self.there)).values()}
        edit(os.fsencode(self.there), op, path, b"the host's own %d" % next(_numbers), mode)
        after = {(kind, what) for kind, what, _ in tree(os.fsencode(self.there)).values()}
        self.made_there -= before - after
        self.made_there |= after - before

    def check(self) -> None:
        """Hold what a sync promises."""
        here, there = tree(os.fsencode(self.here)), tree(os.fsencode(self.there))
        here = {path: what for path, what in here.items() if not path.startswith(b".remote/")}
        assert here == {path: there.get(path) for path in here}
        rest = {(kind, what) for path, (kind, what, _) in there.items() if path not in here}
        assert set() == rest - self.made_there
        assert set() == self.made_there - {(kind, what) for kind, what, _ in there.values()}


@pytest.fixture(scope="module")
def link(sandbox: Sandbox) -> Iterator[Link]:
    """Reach the sandbox."""
    found = Link(Destination(sandbox.host_alias, ("-F", str(sandbox.ssh_config))), "~", print)
    yield found
    found.close()
    found.master.close()


def follow(link: Link, sandbox: Sandbox, folder: Path, rounds: list[tuple[list[tuple], list[tuple]]]) -> None:  # type: ignore[type-arg]
    """Edit and sync, round by round, and hold the promises after each."""
    number = next(_numbers)
    pair = Pair(link, folder / f"here {number}", sandbox.home / f"there {number}")
    pair.here.mkdir()
    for here, there in rounds:
        for op, path, what, mode in here:
            edit(os.fsencode(pair.here), op, path, what, mode)
        if pair.there.exists():
            for op, path, _, mode in there:
                pair.edit_there(op, path, mode)
        pair.sync()
        pair.check()
    shutil.rmtree(pair.there)


QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=25, deadline=None, suppress_health_check=QUIET)
@given(rounds=ROUNDS)
def test_the_host_holds_the_workspace_and_lost_nothing(
    link: Link,
    sandbox: Sandbox,
    tmp_path: Path,
    rounds: list[tuple[list[tuple], list[tuple]]],  # type: ignore[type-arg]
) -> None:
    follow(link, sandbox, tmp_path, rounds)


@pytest.mark.long
@pytest.mark.timeout(1800)
@settings(max_examples=500, deadline=None, suppress_health_check=QUIET)
@given(rounds=ROUNDS)
def test_the_host_holds_the_workspace_and_lost_nothing_500_times(
    link: Link,
    sandbox: Sandbox,
    tmp_path: Path,
    rounds: list[tuple[list[tuple], list[tuple]]],  # type: ignore[type-arg]
) -> None:
    follow(link, sandbox, tmp_path, rounds)
