"""What this machine remembers of its runs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from remote_tools.errors import UsageError
from remote_tools.runs.records import Records, match, new_id
from remote_tools.runs.source import Source

IDS = ["20261122-091530-gemm-7c1e", "20261122-091531-gemm-0a2f", "20261123-080000-softmax-7c1f"]


@pytest.mark.parametrize(
    ("words", "slug"),
    [
        (["python", "examples/gemm.py", "--mode", "both"], "gemm"),
        (["python", "-m", "pytest", "-v"], "pytest"),
        (["shell"], "shell"),
        (["--", "-x"], "run"),
        (["é ∑/…"], "run"),
    ],
)
def test_an_id_names_its_target(words: list[str], slug: str) -> None:
    assert re.fullmatch(rf"\d{{8}}-\d{{9}}-{slug}-[0-9a-f]{{4,}}", new_id(words))


@pytest.mark.parametrize(
    ("wanted", "found"), [(IDS[0], IDS[0]), ("20261123", IDS[2]), ("0a2f", IDS[1]), ("softmax", IDS[2])]
)
def test_a_part_that_fits_one_run_means_it(wanted: str, found: str) -> None:
    assert found == match(wanted, IDS)


@pytest.mark.parametrize(
    ("wanted", "message"), [("nosuch", "no run nosuch"), ("gemm", f"gemm matches 2 runs: {IDS[0]}, {IDS[1]}")]
)
def test_a_part_that_fits_none_or_several_is_refused(wanted: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        match(wanted, IDS)

    assert message == caught.value.reason


def test_the_last_run_is_the_newest_on_that_host(tmp_path: Path) -> None:
    records = Records(tmp_path)
    for run_id, host in zip(IDS, ["here", "here", "there"], strict=True):
        records.write({"id": run_id, "host": host})

    assert IDS[1] == records.last("here")
    assert {"id": IDS[2], "host": "there"} == records.read(IDS[2])
    assert {} == records.read("nosuch")
    with pytest.raises(UsageError):
        records.last("elsewhere")


def test_the_sources_of_a_run_are_kept_with_what_is_not_committed(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@localhost"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "x.py").write_text("x = 1\n")
    subprocess.run([*git, "add", "x.py"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "Begin"], check=True)
    (tmp_path / "x.py").write_text("x = 2\n")
    folder = tmp_path / "record"

    found = Source(folder, tmp_path).collect()

    sha = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    assert {"git_sha": sha, "git_dirty": True} == found
    assert "-x = 1\n+x = 2\n" in (folder / "diff.patch").read_text()


def test_a_folder_without_git_has_no_sources(tmp_path: Path) -> None:
    assert {"git_sha": None, "git_dirty": None} == Source(tmp_path / "record", tmp_path).collect()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository with a text and a large binary file, both changed since the commit."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@localhost"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "x.py").write_text("x = 1\n")
    (tmp_path / "weights.bin").write_bytes(b"\0" * (2 << 20))
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "Begin"], check=True)
    (tmp_path / "x.py").write_text("x = 2\n")
    (tmp_path / "weights.bin").write_bytes(b"\1" * (2 << 20))
    return tmp_path


def test_the_patch_has_no_large_file_and_can_be_applied_whatever_the_users_settings(repository: Path) -> None:
    for name, value in {
        "diff.external": "false",
        "diff.noprefix": "true",
        "color.diff": "always",
        "diff.mnemonicPrefix": "true",
        "diff.relative": "true",
    }.items():
        subprocess.run(["git", "-C", repository, "config", name, value], check=True)
    found = Source(repository / ".remote/runs/a", repository).collect()
    assert ["weights.bin: above 1 MiB"] == found["diff_omitted"]
    subprocess.run(["git", "-C", repository, "checkout", "-q", "--", "x.py"], check=True)
    patch = repository / ".remote/runs/a/diff.patch"
    subprocess.run(["git", "-C", repository, "apply", patch], check=True)
    assert "x = 2\n" == (repository / "x.py").read_text()
    assert patch.stat().st_size < 1000


def test_records_beyond_the_newest_are_removed_with_their_patches(tmp_path: Path) -> None:
    records = Records(tmp_path)
    for number in range(5):
        records.write({"id": f"2026110{number}-000000000-a-000000"})
        (records.folder(f"2026110{number}-000000000-a-000000") / "diff.patch").write_text("x")
    records.prune(2)
    assert ["20261103-000000000-a-000000", "20261104-000000000-a-000000"] == records.ids()
    assert 2 == len(list((tmp_path / ".remote/runs").iterdir()))
