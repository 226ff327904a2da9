"""What a host names as a result never reaches a place outside of the results folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remote_tools.runs.arrivals import Results


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
