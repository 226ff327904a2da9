"""Trees edited at random, here and there: after a sync the host holds the workspace and has lost nothing."""

from __future__ import annotations

import io
import itertools
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from remote_tools.settings.settings import Settings
from remote_tools.setup.sandbox import Sandbox
from remote_tools.ssh.link import Link
from remote_tools.ssh.master import Destination
from remote_tools.sync import push
from remote_tools.sync.open_host import OpenHost
from remote_tools.sync.plan import PushMode
from remote_tools.sync.progress import Display
from remote_tools.sync.workspace import scan

NAMES = ["a", "b c", "-x", "*", "n\nl", os.fsdecode(b"\xff\xfe"), "q'\"$`\\", "c:d", "~", "#", "\\#012", "ü"]


class Edit(NamedTuple):
    """One edit of a tree: a file of such content, a link to such a target, or nothing at a path."""

    op: str
    path: str
    what: str = ""
    mode: int = 0o644


class Round(NamedTuple):
    """Edits here and there, and whether the sync after them is cut at its end, or may do without rsync."""

    here: list[Edit]
    there: list[Edit]
    cut: bool
    inline: bool


PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
CONTENTS = st.sampled_from(["", "1", "2", "three", "x" * 3000])
TARGETS = st.sampled_from(["a", "b c/-x", "../up", "/abs//olute", "no\nwhere", os.fsdecode(b"\xff")])
MODES = st.sampled_from([0o644, 0o755, 0o600, 0o444])
EDITS = st.one_of(
    st.builds(Edit, st.just("write"), PATHS, CONTENTS, MODES),
    st.builds(Edit, st.just("link"), PATHS, TARGETS),
    st.builds(Edit, st.just("delete"), PATHS),
)
ROUND = st.builds(
    Round, st.lists(EDITS, max_size=8), st.lists(EDITS, max_size=4), st.booleans(), st.booleans()
)
ROUNDS = st.lists(ROUND, min_size=1, max_size=4)

_numbers = itertools.count()


def remove(path: Path) -> None:
    """Remove whatever stands at a path."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def carry_out(edit: Edit, top: Path) -> None:
    """Edit a tree; a file or a link gives way where a folder is needed."""
    path = top / edit.path
    between = [folder for folder in reversed(path.parents) if folder.is_relative_to(top) and folder != top]
    if edit.op == "delete":
        if not any(folder.is_symlink() or folder.is_file() for folder in between):
            remove(path)
        return
    for folder in between:
        if folder.is_symlink() or folder.is_file():
            folder.unlink()
    remove(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if edit.op == "link":
        path.symlink_to(edit.what)
    else:
        path.write_text(edit.what)
        path.chmod(edit.mode)


def tree(top: Path) -> dict[str, tuple[str, str, int]]:
    """Read everything below a folder: kind, content or target, mode."""
    found = {}
    for path in top.rglob("*"):
        name = str(path.relative_to(top))
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()), 0)
        elif path.is_file():
            found[name] = ("file", path.read_text(errors="replace"), path.stat().st_mode & 0o7777)
    return found


def things(top: Path) -> set[tuple[str, str]]:
    """Read what there is below a folder, wherever it lies."""
    return {(kind, what) for kind, what, _ in tree(top).values()}


@dataclass
class Pair:
    """A workspace here and its folder on the host, with what the host made there."""

    link: Link
    here: Path
    there: Path
    made_there: set[tuple[str, str]] = field(default_factory=set)

    def edit_there(self, edit: Edit) -> None:
        """Edit on the host; each thing made there is unlike all others."""
        before = things(self.there)
        carry_out(edit._replace(what=f"the host's own {next(_numbers)}"), self.there)
        after = things(self.there)
        self.made_there = (self.made_there - (before - after)) | (after - before)

    def sync(self, cut: bool, inline: bool) -> None:
        """Do what `inv sync` or `inv dev` does, or lose the connection before the last step."""
        self.link.code_path = str(self.there)
        settings = Settings(self.here, self.link.alias, str(self.there), timeout_s=20)
        host = OpenHost(settings, self.link, Display(io.StringIO()))
        result = push.push(host, scan(self.here), PushMode(inline=inline))
        if cut:
            self.link.close()
        else:
            push.finish(host, result)

    def check(self) -> None:
        """Hold the host to what a sync promises."""
        here = {path: what for path, what in tree(self.here).items() if not path.startswith(".remote/")}
        there = tree(self.there)
        rest = {(kind, what) for path, (kind, what, _) in there.items() if path not in here}
        assert here == {path: there.get(path) for path in here}, "the workspace, no less"
        assert set() == rest - self.made_there, "and no more"
        assert set() == self.made_there - things(self.there), "nothing of the host's own is lost"


@pytest.fixture(scope="module")
def link(sandbox: Sandbox) -> Iterator[Link]:
    """Reach the sandbox."""
    found = Link(Destination(sandbox.host_alias, ("-F", str(sandbox.ssh_config))), "~", print)
    yield found
    found.close()
    found.master.close()


@pytest.fixture(autouse=True)
def shared_by_two_rsyncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two files be many."""
    monkeypatch.setattr(push, "MANY_FILES", 2)


def follow(rounds: list[Round], link: Link, sandbox: Sandbox, folder: Path) -> None:
    """Edit and sync, round by round; after each whole sync hold it to its promises."""
    number = next(_numbers)
    pair = Pair(link, folder / f"here {number}", sandbox.home / f"there {number}")
    pair.here.mkdir()
    for turn, (here, there, cut, inline) in enumerate(rounds):
        for edit in here:
            carry_out(edit, pair.here)
        for edit in there if turn else []:
            pair.edit_there(edit)
        pair.sync(cut, inline)
        if not cut:
            pair.check()
    shutil.rmtree(pair.here)
    shutil.rmtree(pair.there)


# A failure is told as it was found: an example takes rsync a second, and shrinking one takes hundreds.
often = settings(
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@settings(often, max_examples=25)
@given(rounds=ROUNDS)
def test_the_host_holds_the_workspace_and_has_lost_nothing(
    rounds: list[Round], link: Link, sandbox: Sandbox, tmp_path: Path
) -> None:
    follow(rounds, link, sandbox, tmp_path)


@pytest.mark.long
@pytest.mark.timeout(1800)
@settings(often, max_examples=500)
@given(rounds=ROUNDS)
def test_the_host_holds_the_workspace_and_has_lost_nothing_500_times(
    rounds: list[Round], link: Link, sandbox: Sandbox, tmp_path: Path
) -> None:
    follow(rounds, link, sandbox, tmp_path)
