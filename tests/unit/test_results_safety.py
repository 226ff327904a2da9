"""What a host names as a result never reaches a place outside of the results folder."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from remote_tools.errors import TransferError
from remote_tools.runs.arrivals import Results
from remote_tools.sync.results_folder import ResultsFolder


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "/tmp/outside",
        "a/../../outside",
        "a//b",
        "./a",
        "a/.",
        "..",
        "",
        "a\nb",
        "a\x1b[2Jb",
        "link/file",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused_and_told(tmp_path: Path, name: str) -> None:
    local_dir, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    local_dir.mkdir()
    elsewhere.mkdir()
    (local_dir / "link").symlink_to(elsewhere)
    results = Results(local_dir)

    results.take(os.fsencode(name), 0, b"it")

    everything = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert (["cache", "cache/link", "elsewhere"], 1, {}) == (
        everything,
        len(results.refused),
        results.arrived,
    )


def test_a_plain_file_arrives_with_its_time(tmp_path: Path) -> None:
    results = Results(tmp_path)

    results.take(b"gemm/8x8/a b", 1_700_000_000_123_456_789, b"it")

    path = tmp_path / "gemm/8x8/a b"
    assert (b"it", 1_700_000_000_123_456_789) == (path.read_bytes(), path.stat().st_mtime_ns)


def test_a_link_in_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    local_dir = tmp_path / "cache"
    local_dir.mkdir()
    (local_dir / "result").symlink_to(tmp_path / "precious")

    Results(local_dir).take(b"result", 0, b"it")

    assert ("mine", "it") == ((tmp_path / "precious").read_text(), (local_dir / "result").read_text())


OBEYED = [
    ".git/config", ".GIT/config", ".g\u200cit/config", "a/.git/x", ".gitattributes", "git~1/config",
    ".git./config", "HEAD", "a/head", "bare/HEAD", "tasks.py", "a/tasks.py", "Tasks.PY", "tasks.pyc",
    "tasks/__init__.py", "fabfile.py", "fabfile/__init__.py", "fabfile", "invoke.yaml", "invoke.yml",
    "invoke.json", "invoke.py",
    ".invoke.yaml", "fabric.yaml", ".fabric.yaml", ".remote_config", ".remote/client-id",
    ".remote-displaced/x", "sitecustomize.py", "a/usercustomize/__init__.py", "x.pth", "python311._pth",
    "pyvenv.cfg",
]  # fmt: skip
DATA = [
    "gemm/8x8/perf_metrics.json", "a/config", "tasks/x.json", "my tasks.py.txt", "header", "git/x", "a.git/x",
    "plots/report.html", "gemm/8x8/m=1/kernel.so", "fab", "remote/x", "invoke", "café/☃", ".hidden",
]  # fmt: skip


@pytest.mark.parametrize("name", OBEYED)
def test_a_name_that_a_tool_obeys_is_refused(tmp_path: Path, name: str) -> None:
    results = Results(tmp_path / "cache")

    results.take(os.fsencode(name), 0, b"it")

    assert ({}, [os.fsencode(name)]) == (results.arrived, list(results.refused))
    assert "obey" in results.refused[os.fsencode(name)]
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("name", DATA)
def test_a_name_of_data_is_taken(tmp_path: Path, name: str) -> None:
    results = Results(tmp_path / "cache")

    results.take(os.fsencode(name), 0, b"it")

    assert {} == results.refused
    assert b"it" == (tmp_path / "cache" / name).read_bytes()


def test_a_folder_that_is_swapped_for_a_link_is_not_followed(tmp_path: Path) -> None:
    """Between two files, as somebody does who may write to the folder too."""
    local_dir, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    elsewhere.mkdir()
    results = Results(local_dir)
    results.take(b"k/s/one", 0, b"it")
    (local_dir / "k").rename(local_dir / "moved")
    (local_dir / "k").symlink_to(elsewhere)

    results.take(b"k/s/two", 0, b"it")
    Results(local_dir).take(b"k/s/three", 0, b"it")

    assert [] == list(elsewhere.iterdir())


def test_the_name_of_a_temporary_file_cannot_be_guessed(tmp_path: Path) -> None:
    create, seen = os.open, []

    def opened(path: bytes, flags: int, *rest: int, dir_fd: int | None = None) -> int:
        if flags & os.O_CREAT:
            seen.append((path, bool(flags & os.O_EXCL), bool(flags & os.O_NOFOLLOW)))
        return create(path, flags, *rest, dir_fd=dir_fd)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", opened)
        for _ in range(2):
            ResultsFolder(tmp_path).write(b"x", 0, b"it")
    names, exclusive, no_follow = zip(*seen, strict=True)

    assert (2, {True}, {True}) == (len(set(names)), set(exclusive), set(no_follow))
    assert all(len(name) > 24 for name in names)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "result").mkdir()
    results = Results(tmp_path)

    with pytest.raises(TransferError, match=r"cannot write .*result"):
        results.take(b"result", 0, b"it")

    assert ["result"] == [path.name for path in tmp_path.iterdir()]


# What rsync writes ------------------------------------------------------------------------------------------


def test_only_what_was_asked_for_is_moved_on(tmp_path: Path) -> None:
    with ResultsFolder(tmp_path / "cache") as results, results.incoming("here") as incoming:
        (incoming.path / "k").mkdir()
        (incoming.path / "k/asked").write_text("it")
        (incoming.path / "k/more").write_text("it")
        (incoming.path / "link").symlink_to("/etc/passwd")
        refused, left = incoming.take([b"k/asked", b"link", b"missing"]), sorted(incoming.left())

    there = [path.relative_to(tmp_path / "cache") for path in (tmp_path / "cache").rglob("*")]
    assert ({}, [b"k/more", b"link"]) == (refused, left)
    assert [Path("k"), Path("k/asked")] == sorted(there)


def test_a_fetch_that_fails_is_resumed_where_it_ended(tmp_path: Path) -> None:
    results = ResultsFolder(tmp_path)
    with suppress(InterruptedError), results.incoming("here") as incoming:
        (incoming.path / "half").write_text("ha")
        raise InterruptedError
    with results.incoming("elsewhere") as other, results.incoming("here") as again:
        found = [sorted(path.name for path in each.path.iterdir()) for each in (other, again)]

    assert ([[], ["half"]], []) == (found, list(tmp_path.iterdir()))


def test_two_fetches_at_once_have_a_folder_each(tmp_path: Path) -> None:
    with ResultsFolder(tmp_path) as results, results.incoming("here") as one, results.incoming("here") as two:
        paths = {one.path, two.path}
        modes = {stat.S_IMODE(path.stat().st_mode) for path in paths}

    assert (2, {0o700}) == (len(paths), modes)


@pytest.mark.parametrize("planted", ["link", "open to all"])
def test_a_folder_that_somebody_planted_is_not_used(tmp_path: Path, planted: str) -> None:
    with ResultsFolder(tmp_path) as results:
        with results.incoming("here") as incoming:
            guessed = incoming.path
        if planted == "link":
            (tmp_path / "elsewhere").mkdir()
            guessed.symlink_to(tmp_path / "elsewhere")
        else:
            guessed.mkdir()
            guessed.chmod(0o777)
        with results.incoming("here") as incoming:
            assert guessed != incoming.path


def test_a_folder_for_results_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")

    with pytest.raises(TransferError, match="Not a directory"):
        Results(tmp_path / "cache").take(b"a", 0, b"it")
    with pytest.raises(TransferError), ResultsFolder(tmp_path / "cache").incoming("here"):
        pass
