"""Only the state that is this account's own is used; nothing is written through a link."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from remote_tools.runs.records import Records
from remote_tools.settings.state_folder import state_folder
from remote_tools.sync.last_push import LastPush, client_id
from remote_tools.sync.workspace import scan
from tests.unit.strangers import commit, git, repo

__all__ = ["repo"]


def test_the_state_that_a_repository_brings_is_not_used(repo: Path) -> None:
    Records(repo).write({"id": "20260101-000000000-a-000000", "host": "h"})
    (repo / ".remote" / "client-id").write_text("0123456789abcdef")
    (repo / ".remote" / ".gitignore").unlink()
    git(repo, "add", "-f", ".remote")
    commit(repo)
    git(repo, "clone", "-q", str(repo), str(repo.parent / "clone"))
    clone = repo.parent / "clone"
    said: list[str] = []
    records = Records(clone, said.append)

    records.write({"id": "20260102-000000000-a-000000", "host": "h"})

    assert ([], {}) == (records.ids(), records.read("20260101-000000000-a-000000"))
    assert "0123456789abcdef" != client_id(clone)
    assert "git tracks it: git rm -r --cached .remote" in said[0]
    git(clone, "rm", "-rq", "--cached", ".remote")
    assert ["20260101-000000000-a-000000"] == records.ids()


MakeState = Callable[[Path, Path], None]


def link_to(elsewhere: Path, at: Path) -> None:
    at.symlink_to(elsewhere)


def anothers(_elsewhere: Path, at: Path) -> None:
    at.mkdir()
    os.chown(at, 12345, -1)


@pytest.mark.parametrize(
    "plant",
    [link_to, pytest.param(anothers, marks=pytest.mark.skipif(os.getuid() != 0, reason="needs root"))],
)
@pytest.mark.parametrize("name", [".remote", ".remote/runs", ".remote/pushed", ".remote/runs/a"])
def test_a_folder_that_another_planted_is_not_used(tmp_path: Path, name: str, plant: MakeState) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    if name != ".remote":
        state_folder(root)
        (root / name).parent.mkdir(exist_ok=True)
    plant(elsewhere, root / name)
    said: list[str] = []
    records = Records(root, said.append)

    records.write({"id": "a", "host": "h"})
    tree = scan(root, exclude=[".remote"])
    LastPush(root, "h", "~/x").save(tree)
    client_id(root)

    assert [] == list(elsewhere.iterdir())
    planted = root / name
    assert planted.is_symlink() or [] == list(planted.iterdir())
    assert (name != ".remote/pushed") == bool(said)
    if said:
        assert {} == records.read("a")
    if name in (".remote", ".remote/pushed"):
        assert "" == LastPush(root, "h", "~/x").stamp


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_a_file_of_another_owner_is_not_believed(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.write({"id": "a", "host": "h"})
    LastPush(tmp_path, "h", "~/x").save(scan(tmp_path))
    mine = client_id(tmp_path)
    for path in (tmp_path / ".remote").rglob("*"):
        if path.is_file():
            os.chown(path, 12345, -1)
    assert {} == records.read("a")
    assert "" == LastPush(tmp_path, "h", "~/x").stamp
    assert mine != client_id(tmp_path)


def test_a_link_in_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    root = tmp_path / "root"
    root.mkdir()
    records = Records(root)
    (records.make("a") / "run.json").symlink_to(precious)
    (root / ".remote" / "client-id").symlink_to(precious)
    assert {} == records.read("a")

    records.write({"id": "a", "host": "h"})
    client_id(root)

    assert ("mine", "h") == (precious.read_text(), records.read("a")["host"])


def test_others_are_kept_out_also_of_an_older_versions_state(tmp_path: Path) -> None:
    for name in ("", "runs", "pushed"):
        (tmp_path / ".remote" / name).mkdir(mode=0o775, exist_ok=True)
        (tmp_path / ".remote" / name).chmod(0o777)
    Records(tmp_path).write({"id": "a"})
    for path in (".remote", ".remote/runs", ".remote/runs/a"):
        assert 0o700 == (tmp_path / path).stat().st_mode & 0o777
    assert 0o600 == (tmp_path / ".remote/runs/a/run.json").stat().st_mode & 0o777


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        '{"id": 1}',
        '{"id": "a", "words": "x"}',
        '{"id": "a", "words": [1]}',
        '{"id": "a", "started": "x"}',
        '{"id": "a", "there": []}',
        "NaN",
    ],
)
def test_a_record_that_is_none_counts_as_missing(tmp_path: Path, content: str) -> None:
    records = Records(tmp_path)
    (records.make("a") / "run.json").write_text(content)
    assert {} == records.read("a")
