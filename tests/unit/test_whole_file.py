"""Small local files, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remote_tools.settings.whole_file import replacement, write_whole


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


def test_nothing_is_written_through_a_link_that_another_planted(tmp_path: Path) -> None:
    precious, folder = tmp_path / "precious", tmp_path / "folder"
    precious.write_text("mine")
    folder.mkdir()
    (folder / "file").symlink_to(precious)
    write_whole(folder / "file", b"it")

    assert ("mine", b"it", False) == (
        precious.read_text(),
        (folder / "file").read_bytes(),
        (folder / "file").is_symlink(),
    )


def test_a_folder_that_is_swapped_for_a_link_meanwhile_is_not_followed(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    with replacement(folder / "file", 0o600) as file:
        file.write(b"it")
        folder.rename(tmp_path / "moved")
        folder.symlink_to(elsewhere)

    assert ([], b"it") == (list(elsewhere.iterdir()), (tmp_path / "moved" / "file").read_bytes())


def test_a_file_has_its_mode_less_the_umask_and_is_never_set_id(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        for mode in (0o6777, 0o644, 0o400):
            write_whole(tmp_path / "file", b"it", mode)
            assert mode & 0o750 == (tmp_path / "file").stat().st_mode & 0o7777
    finally:
        os.umask(before)
