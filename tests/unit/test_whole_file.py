"""Small local files, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from remote_tools.settings.whole_file import write_whole


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"one", b"another"):
        write_whole(path, data)

    assert (b"another", [path]) == (path.read_bytes(), list(path.parent.iterdir()))


def test_a_failure_leaves_no_part(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(OSError):
        write_whole(path, b"data")

    assert [path] == list(tmp_path.iterdir())


def test_a_reader_keeps_the_file_that_it_opened(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    with path.open("rb") as reader:
        write_whole(path, b"new")

        assert (b"old", b"new") == (reader.read(), path.read_bytes())
