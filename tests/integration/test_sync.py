"""What a push does to the host, and what a fetch does here: real rsync, real sshd."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from remote_tools.errors import (
    ConfigError,
    DataError,
    TemporaryError,
    TransferError,
    UnavailableError,
)
from remote_tools.settings.settings import Settings
from remote_tools.setup.sandbox import Sandbox
from remote_tools.ssh.link import Link
from remote_tools.ssh.master import Destination
from remote_tools.sync import pull as pulling
from remote_tools.sync import push, rsync, transfer
from remote_tools.sync.open_host import OpenHost
from remote_tools.sync.plan import PushMode
from remote_tools.sync.progress import Display
from remote_tools.sync.pull import PullResult
from remote_tools.sync.push import PushResult
from remote_tools.sync.rsync_processes import Processes
from remote_tools.sync.workspace import scan
from tests.integration.conftest import SandboxMaker


@dataclass
class Place:
    """A workspace here and its folder on the host."""

    link: Link
    here: Path
    there: Path

    def host(self, stream: io.StringIO | None = None, **settings: Any) -> OpenHost:
        """Give the host as a command has it, with settings of our own."""
        self.link.code_path = str(self.there)
        chosen = Settings(self.here, self.link.alias, str(self.there), **{"timeout_s": 20, **settings})
        return OpenHost(chosen, self.link, Display(stream or io.StringIO()))

    def push(
        self, *, force: bool = False, dry_run: bool = False, inline: bool = False, **settings: Any
    ) -> PushResult:
        """Do what `inv sync` does."""
        host = self.host(**settings)
        result = push.push(host, scan(self.here), PushMode(force, dry_run, inline))
        self.said = push.finish(host, result)
        return result

    def write(self, **files: str) -> None:
        """Make files here; `__` in a keyword is a slash."""
        for name, text in files.items():
            path = self.here / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def held(self) -> dict[str, str]:
        """Read the host's folder."""
        files = (path for path in sorted(self.there.rglob("*")) if path.is_file())
        return {str(path.relative_to(self.there)): path.read_text() for path in files}

    def kept_as(self, result: PushResult, path: str) -> str:
        """Return under which name the push kept what it found there."""
        return os.fsdecode(result.plan.kept_as(os.fsencode(path)))


@pytest.fixture(scope="module")
def link(sandbox: Sandbox) -> Iterator[Link]:
    """Reach the sandbox."""
    found = Link(Destination(sandbox.host_alias, ("-F", str(sandbox.ssh_config)), timeout_s=20), "~", print)
    yield found
    found.close()
    found.master.close()


@pytest.fixture
def place(link: Link, sandbox: Sandbox, tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    """Give a new workspace, and a new folder on the host whose path is no easy one."""
    here, there = tmp_path / "my 'work' $HOME", sandbox.home / f'it\'s {request.node.name[:60]} "$HOME"'
    here.mkdir()
    return Place(link, here, there)


def test_a_second_push_has_nothing_to_do(place: Place) -> None:
    place.write(a="1", d__b="2")
    assert 2 == place.push().sent
    again = place.push()
    assert (0, ["nothing to do: the host holds the workspace"]) == (again.sent, list(again.plan.lines()))
    assert {"a": "1", "d/b": "2"} == place.held()


def test_two_edits_of_one_size_within_a_second_both_arrive(place: Place) -> None:
    place.write(a="1")
    place.push()
    place.write(a="2")
    place.push()
    assert {"a": "2"} == place.held()


def test_what_is_gone_here_is_removed_there_with_the_folders_that_the_push_made(place: Place) -> None:
    place.write(a="1", d__e__b="2", out__c="3")
    place.there.mkdir()
    (place.there / "out").mkdir()
    place.push()
    for path in ("d/e/b", "out/c"):
        (place.here / path).unlink()
    assert (b"d/e/b", b"out/c") == place.push().plan.delete
    assert ({"a": "1"}, True, False) == (
        place.held(), (place.there / "out").is_dir(), (place.there / "d").exists()
    )  # fmt: skip


def test_what_the_host_made_or_changed_is_not_deleted(place: Place) -> None:
    place.write(a="1", d__b="2", d__c="3")
    place.push()
    (place.there / "d" / "made").write_text("by the host")
    (place.there / "d" / "b").write_text("changed")
    for path in ("d/b", "d/c"):
        (place.here / path).unlink()
    warnings = place.push().warnings
    assert {"a": "1", "d/b": "changed", "d/made": "by the host"} == place.held()
    assert ("d/b was deleted here but stays on the host: changed on the host",) == warnings


def test_a_file_that_is_only_excluded_now_stays(place: Place) -> None:
    place.write(a="1", b="2")
    place.push()
    tree = scan(place.here, exclude=["b"])
    result = push.push(place.host(), tree, PushMode())
    push.finish(place.host(), result)
    assert {"a": "1", "b": "2"} == place.held()
    (place.here / "b").unlink()
    place.push()
    assert {"a": "1"} == place.held()


def test_no_delete_keeps_everything_until_a_sync_without_it(place: Place) -> None:
    place.write(a="1", b="2")
    place.push()
    (place.here / "b").unlink()
    place.push(delete=False)
    assert {"a": "1", "b": "2"} == place.held()
    place.push()
    assert {"a": "1"} == place.held()


def test_deleting_much_at_once_needs_force(place: Place) -> None:
    place.write(**{f"f{i}": "x" for i in range(30)}, a="1")
    place.push()
    for path in place.here.glob("f*"):
        path.unlink()
    with pytest.raises(DataError, match="30 of 31 pushed files are gone here") as error:
        place.push()
    assert (65, 31) == (error.value.code, len(place.held()))
    place.push(force=True)
    assert {"a": "1"} == place.held()


def test_a_file_changed_on_both_sides_is_kept_beside(place: Place) -> None:
    place.write(a="1")
    place.push()
    (place.there / "a").write_text("the host's")
    place.write(a="2")
    result = place.push()
    assert {"a": "2", place.kept_as(result, "a"): "the host's"} == place.held()
    assert (f"a was changed on the host too: kept there as {place.kept_as(result, 'a')}",) == result.warnings


def test_a_first_push_onto_a_clone_keeps_what_differs_and_takes_the_rest_as_it_is(place: Place) -> None:
    place.write(same="1", differs="2")
    place.there.mkdir()
    (place.there / "same").write_text("1")
    (place.there / "differs").write_text("the host's")
    (place.there / "own").write_text("3")
    result = place.push()
    kept = place.kept_as(result, "differs")
    assert {"same": "1", "differs": "2", kept: "the host's", "own": "3"} == place.held()


def test_a_link_there_in_place_of_a_folder_is_not_followed(place: Place, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    place.write(d__a="1")
    place.there.mkdir()
    (place.there / "d").symlink_to(outside)
    result = place.push()
    assert [] == list(outside.iterdir())
    assert {"d/a": "1"} == place.held()
    assert outside == (place.there / place.kept_as(result, "d")).readlink()


def test_two_laptops_never_delete_each_others_files(place: Place, tmp_path: Path) -> None:
    other = replace(place, here=tmp_path / "other")
    place.write(mine="1", both="2")
    place.push()
    other.write(theirs="3", both="22")
    stamp = other.push().stamp
    assert {"mine": "1", "theirs": "3", "both": "22"} == place.held()
    (place.here / "both").unlink()
    result = place.push()
    assert {"mine": "1", "theirs": "3", "both": "22"} == place.held()
    assert stamp != result.stamp
    assert f"{place.there} was last pushed by" in result.warnings[-1]


def test_a_dry_run_names_everything_and_touches_nothing(place: Place) -> None:
    place.write(a="1", b="2", c="3")
    place.push()
    (place.there / "c").write_text("the host's")
    place.write(new="12", a="11", c="33")
    (place.here / "b").unlink()
    before = {path: path.stat().st_mtime_ns for path in place.there.parent.rglob("*")}
    plan = place.push(dry_run=True).plan
    assert before == {path: path.stat().st_mtime_ns for path in place.there.parent.rglob("*")}
    assert {
        "root": str(place.there), "files": 3, "size_bytes": 6, "items": [
            {"what": "new", "path": "new", "size_bytes": 2},
            {"what": "changed", "path": "a", "size_bytes": 2},
            {"what": "conflict", "path": "c", "size_bytes": 2},
            {"what": "deleted", "path": "b", "size_bytes": 0},
        ],
    } == plan.to_json()  # fmt: skip


def test_options_of_rsync_mean_what_its_manual_says(place: Place) -> None:
    place.write(a="1", b__skipped="2", c="3")
    options = ("--exclude", "b/", "--chmod=F600", "-vv", "--bwlimit=50m")
    result = place.push(rsync_options=options)
    assert ({"a": "1", "c": "3"}, 2) == (place.held(), result.sent)
    assert 0o600 == (place.there / "a").stat().st_mode & 0o777
    assert 0 == place.push(rsync_options=options).sent


@pytest.mark.parametrize("option", ["-c", "--checksum"])
def test_contents_that_differ_under_one_time_are_found_by_checksum(place: Place, option: str) -> None:
    place.write(a="1", **{"d__b\nc": "2", "same": "3"})
    place.push()
    for name in ("a", "d/b\nc"):
        times = (place.there / name).stat()
        (place.there / name).write_text("x")
        os.utime(place.there / name, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (0, 2) == (place.push().sent, place.push(rsync_options=(option,)).sent)
    assert {"a": "1", "d/b\nc": "2", "same": "3"} == place.held()
    assert 0 == place.push(rsync_options=(option,)).sent


def test_an_option_that_rsync_refuses_is_named(place: Place) -> None:
    place.write(a="1")
    with pytest.raises(ConfigError, match="--no-such-option: unknown option") as error:
        place.push(rsync_options=("--no-such-option",))
    assert 78 == error.value.code


def test_a_missing_parent_of_the_code_path_is_said(place: Place) -> None:
    place.write(a="1")
    nowhere = replace(place, there=place.there / "no" / "where")
    with pytest.raises(TransferError, match=r"no folder .*/no on the host"):
        nowhere.push()


def test_a_host_without_rsync_says_how_to_install_it(place: Place) -> None:
    place.write(a="1")
    with pytest.raises(UnavailableError, match=r"no rsync on sandbox"):
        place.push(rsync_options=("--rsync-path=/no/such/rsync",))


def test_files_that_change_or_vanish_while_they_are_sent(place: Place) -> None:
    place.write(a="1", gone="2", **{f"big{i}": "x" * 300_000 for i in range(8)})
    tree = scan(place.here)
    place.link.code_path = str(place.there)

    def meanwhile() -> None:
        time.sleep(0.3)
        place.write(big7="changed")
        (place.here / "gone").unlink()

    thread = threading.Thread(target=meanwhile)
    thread.start()
    host = place.host(rsync_options=("--bwlimit=1000", "--no-z"))
    result = push.push(host, tree, PushMode())
    thread.join()
    push.finish(place.host(), result)
    assert "changed" == place.held()["big7"]
    assert 0 == place.push().sent
    assert set(place.held()) - {"gone"} == {path.name for path in place.here.iterdir()} - {".remote"}


def broken_rsync(sandbox: Sandbox, *ways: str) -> str:
    """Put an rsync on the host that goes another way at each start; return the option that uses it."""
    script, count = sandbox.home / f"rsync-{len(ways)}-{time.monotonic_ns()}", sandbox.home / "count"
    count.write_text("")
    cases = "".join(f"{i}) {way} ;;\n" for i, way in enumerate(ways, 1))
    script.write_text(
        f"""#!/bin/sh
        [ "$1" = --version ] && exec rsync --version
        echo x >> {count}
        case $(wc -l < {count}) in
        {cases} *) exec rsync "$@" ;;
        esac
        """
    )
    script.chmod(0o755)
    return f"--rsync-path={script}"


def test_a_stalled_push_goes_on_by_itself(place: Place, sandbox: Sandbox) -> None:
    place.write(a="1", b="2")
    option = broken_rsync(sandbox, "exec sleep 60")
    said = io.StringIO()
    place.link.code_path = str(place.there)
    host = place.host(said, rsync_options=(option,), timeout_s=5)  # the second rsync must be faster
    result = push.push(host, scan(place.here), PushMode())
    push.finish(place.host(), result)
    assert {"a": "1", "b": "2"} == place.held()
    assert "sandbox: no data for 5 s; connecting again" in said.getvalue().splitlines()


def test_a_push_that_stalls_each_time_ends_with_75(place: Place, sandbox: Sandbox) -> None:
    place.write(a="1")
    option = broken_rsync(sandbox, *["exec sleep 60"] * transfer.ATTEMPTS)
    with pytest.raises(TemporaryError, match="no data for 1 s, ") as error:
        place.push(rsync_options=(option,), timeout_s=1)
    assert 75 == error.value.code


def test_a_cut_upload_resumes_with_the_half_that_arrived(place: Place, sandbox: Sandbox) -> None:
    (place.here / "big").write_bytes(os.urandom(8_000_000))
    option = broken_rsync(sandbox, 'head -c 5000000 | rsync "$@"')
    result = place.push(rsync_options=(option,), timeout_s=5)
    assert (place.here / "big").read_bytes() == (place.there / "big").read_bytes()
    assert ([place.there / "big"], 1) == (list(place.there.rglob("*")), result.sent)


class Counted(Processes):
    """Rsyncs that are counted."""

    count = 0

    def start(self, command: str | Sequence[str], take: Callable[[bytes], None]) -> None:
        """Start one more."""
        Counted.count += 1
        super().start(command, take)


def test_many_new_files_are_shared_by_two_rsyncs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "MANY_FILES", 10)
    monkeypatch.setattr(push, "Processes", Counted)
    files = {f"a/b/{i % 3}/{i}": str(i) for i in range(40)}
    place.write(**{name.replace("/", "__"): text for name, text in files.items()})
    for _ in range(10):  # both have to make a/ and a/b/ there, at about the same time
        Counted.count = 0
        result = place.push()
        assert (2, 40, files) == (Counted.count, result.sent, place.held())
        shutil.rmtree(place.there)
    Counted.count = 0
    place.push(rsync_options=("--bwlimit=9m",))
    assert (1, files) == (Counted.count, place.held())


def test_folders_made_for_two_rsyncs_are_removed_with_their_files(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "MANY_FILES", 2)
    place.write(a__b__1="1", a__b__2="2", c="3")
    place.push()
    shutil.rmtree(place.here / "a")
    place.push()
    assert ({"c": "3"}, ["c"]) == (place.held(), [path.name for path in place.there.iterdir()])


@pytest.mark.parametrize("sessions", [1, 2])
def test_two_rsyncs_get_connections_of_their_own_where_the_master_takes_no_more_sessions(
    sessions: int, make_sandbox: SandboxMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "MANY_FILES", 2)
    host = make_sandbox(f"MaxSessions {sessions}")
    link = Link(Destination(host.host_alias, ("-F", str(host.ssh_config)), timeout_s=20), "~", print)
    (tmp_path / "here").mkdir()
    place = Place(link, tmp_path / "here", host.home / "there")
    place.write(a__x="1", a__y="2", b="3")
    try:
        place.push()
    finally:
        link.close()
        link.master.close()
    assert {"a/x": "1", "a/y": "2", "b": "3"} == place.held()


def test_when_one_of_two_rsyncs_fails_the_push_says_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "MANY_FILES", 2)
    make_way = push._make_way

    def sabotage(*args: Any) -> None:
        make_way(*args)
        (place.there / "b").write_text("a file in place of the second rsync's folder")

    monkeypatch.setattr(push, "_make_way", sabotage)
    place.write(a__x="1", b__x="2")
    with pytest.raises(TransferError, match="b"):
        place.push()
    assert "1" == (place.there / "a" / "x").read_text()


def pull(place: Place, folder: Path, *names: str, options: tuple[str, ...] = ()) -> PullResult:
    """Fetch files of the host's folder."""
    host = {"path": "rsync", "says": "rsync  version 3.2.7", "system": ""}
    paths = [place.there / name for name in names]
    sizes = [path.stat().st_size if path.is_file() else 1 for path in paths]
    entries = list(zip(map(os.fsencode, names), sizes, strict=True))
    opened = place.host(rsync_options=options, timeout_s=5, local_dir=folder)
    return pulling.pull(opened, str(place.there), entries, host)


def test_a_fetch_brings_exactly_the_files_asked_for(place: Place, tmp_path: Path) -> None:
    place.write(a="1", **{"d__b c": "2", "#n": "3", "ü": "4", "other": "5"})
    place.push()
    result = pull(place, tmp_path / "results", "a", "d/b c", "#n", "ü", "gone")
    held = {
        str(p.relative_to(tmp_path / "results")) for p in (tmp_path / "results").rglob("*") if p.is_file()
    }
    assert ({"a", "d/b c", "#n", "ü"}, PullResult(4, 4, (b"gone",))) == (held, result)


def test_a_fetch_never_writes_outside_its_folder(place: Place, tmp_path: Path) -> None:
    place.write(a="1", out__x="2")
    place.push()
    results, outside = tmp_path / "results", tmp_path / "outside"
    results.mkdir()
    outside.mkdir()
    (results / "out").symlink_to(outside)
    names = ("a", "/etc/passwd", "../x", "d/../../x", "out/x", "n\nl", "", "./a", "d//x")
    result = pull(place, results, *names)
    assert (1, 8, []) == (result.files, len(result.refused), list(outside.iterdir()))


def test_a_fetch_takes_no_links_from_the_host(place: Place, tmp_path: Path) -> None:
    place.write(a="1")
    place.push()
    (place.there / "l").symlink_to("/etc/passwd")
    result = pull(place, tmp_path / "results", "a", "l")
    assert (1, (b"l",)) == (result.files, result.missing)
    assert not (tmp_path / "results" / "l").is_symlink()


def test_a_cut_fetch_resumes_and_never_leaves_half_a_file(
    place: Place, sandbox: Sandbox, tmp_path: Path
) -> None:
    (place.here / "big").write_bytes(os.urandom(8_000_000))
    place.push()
    option = broken_rsync(sandbox, 'rsync "$@" | head -c 3000000')
    result = pull(place, tmp_path / "results", "big", options=(option,))
    assert (1, [tmp_path / "results" / "big"]) == (result.files, list((tmp_path / "results").rglob("*")))
    assert (place.here / "big").read_bytes() == (tmp_path / "results" / "big").read_bytes()


def test_a_fetch_that_is_cut_each_time_says_fetch(place: Place, sandbox: Sandbox, tmp_path: Path) -> None:
    place.write(a="1")
    place.push()
    option = broken_rsync(sandbox, *["exit 12"] * transfer.ATTEMPTS)
    with pytest.raises(TemporaryError) as error:
        pull(place, tmp_path / "results", "a", options=(option,))
    assert "fetch" == error.value.stage


def test_a_fetch_without_rsync_says_fetch(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write(a="1")
    place.push()
    rsync.local_version.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="no rsync on this machine") as error:
        pull(place, tmp_path / "results", "a")
    assert "fetch" == error.value.stage


@pytest.mark.parametrize("says", ["rsync  version 2.6.9", "openrsync: protocol version 29"])
def test_an_old_rsync_gets_only_options_that_it_knows(
    place: Place, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What 2.6.9 does not know is not used; that the rest is enough is seen with a new one."""
    monkeypatch.setenv("RSYNC_OLD_ARGS", "1")
    monkeypatch.setattr(rsync, "local_version", lambda: rsync.parse_version(says))
    place.write(a="1", d__b="2")
    place.push()
    (place.here / "a").unlink()
    place.push()
    assert {"d/b": "2"} == place.held()


def test_a_new_rsync_here_is_understood_by_an_old_one_there(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One before 3.0 knows no -s: what it is told passes the host's shell, and must be quoted just once."""
    pair = rsync.Pair(rsync.local_version(), rsync.parse_version("rsync  version 2.6.9"))
    if not pair.local_has(3, 2, 4):
        pytest.skip("the rsync here is older than 3.2.4, and quotes nothing by itself")
    monkeypatch.setattr(rsync, "pair_with", lambda *_given: pair)
    place.write(a="1", d__b="2")
    place.push()
    assert {"a": "1", "d/b": "2"} == place.held()
    assert 2 == pull(place, tmp_path / "results", "a", "d/b").files


def test_a_workspace_of_git_is_pushed_without_its_repository(place: Place) -> None:
    subprocess.run(["git", "init", "-q", str(place.here)], check=True)
    place.write(a="1", b="2")
    (place.here / ".gitignore").write_text("b\n")
    place.push()
    assert {".gitignore": "b\n", "a": "1"} == place.held()


# Without rsync ----------------------------------------------------------------------------------------------


def test_a_small_change_arrives_without_rsync_as_it_would_with_it(place: Place) -> None:
    place.write(**{"script": "#!/bin/sh\n", "gone": "x", "new folder__d__a b": "1", "empty": ""})
    (place.here / "script").chmod(0o755)
    (place.here / "link").symlink_to("no/such\nfile")
    os.utime(place.here / "empty", ns=(1, 1_234_567_890_123_456_789))
    inline = place.push(inline=True)
    (place.here / "gone").unlink()
    (place.here / "link").unlink()
    (place.here / "link").write_text("a file now")
    (place.here / "empty").unlink()
    (place.here / "empty").symlink_to("script")
    again = place.push(inline=True)
    assert (5, 2, (b"gone",)) == (inline.sent, again.sent, again.plan.delete)
    assert scan(place.here).files == scan(place.there).files
    assert 0 == place.push().sent


def sent_inline(place: Place, **options: Any) -> bool:
    """Push, and tell whether the change went without rsync."""
    result = place.push(inline=True, **options)
    assert scan(place.here).files == scan(place.there).files
    assert result.ending is not None
    return bool(result.ending["contents"])


def test_what_is_big_or_has_options_of_rsync_goes_by_rsync(place: Place) -> None:
    place.write(a="1")
    assert sent_inline(place)
    place.write(a="x" * push.INLINE_PUSH_BYTES)
    assert sent_inline(place)
    place.write(a="x" * push.INLINE_PUSH_BYTES, b="y")
    assert not sent_inline(place)
    place.write(b="z")
    assert sent_inline(place)
    place.write(b="1")
    assert not sent_inline(place, rsync_options=("--bwlimit=9m",))


def test_a_conflict_is_kept_beside_without_rsync_too(place: Place) -> None:
    place.write(a="1", d__b="1")
    place.push(inline=True)
    (place.there / "a").write_text("by the host")
    place.write(a="by me")
    result = place.push(inline=True)
    assert {"a": "by me", "d/b": "1", place.kept_as(result, "a"): "by the host"} == place.held()


def test_what_the_host_edits_after_the_comparison_is_kept_beside(place: Place) -> None:
    place.write(a="1")
    place.push(inline=True)
    place.write(a="2")
    result = push.push(place.host(), scan(place.here), PushMode(inline=True))
    (place.there / "a").write_text("by the host, just now")
    name = place.kept_as(result, "a")
    assert [f"a on the host is kept as {name}"] == push.finish(place.host(), result)
    assert {"a": "2", name: "by the host, just now"} == place.held()


def test_a_request_that_was_lost_on_its_way_is_asked_again(place: Place) -> None:
    place.write(a="1", b="2")
    place.push(inline=True)
    place.write(a="3")
    result = push.push(place.host(), scan(place.here), PushMode(inline=True))
    assert ([], []) == (push.finish(place.host(), result), push.finish(place.host(), result))
    assert {"a": "3", "b": "2"} == place.held()
    assert 0 == place.push().sent


def test_a_file_that_changes_after_the_scan_goes_by_rsync(place: Place) -> None:
    place.write(a="1")
    place.link.code_path = str(place.there)
    tree = scan(place.here)
    place.write(a="changed meanwhile")
    result = push.push(place.host(), tree, PushMode(inline=True))
    assert [] == push.finish(place.host(), result)
    assert ({"a": "changed meanwhile"}, {}) == (place.held(), result.ending and result.ending["contents"])
    assert 0 == place.push().sent
