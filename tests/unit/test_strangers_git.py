"""git starts no program that a repository names, and brings no file of elsewhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from remote_tools.errors import ConfigError
from remote_tools.runs.source import Source
from remote_tools.sync.workspace import scan
from tests.unit.strangers import commit, git, repo

__all__ = ["repo"]


def touching(proof: Path) -> str:
    """Return a shell command that leaves a proof that it ran."""
    return f"touch {proof}; cat; true"


def everything(root: Path) -> tuple[Sequence[str], dict[str, object]]:
    """Do what a push and a run ask of git."""
    os.utime(root / "a.txt", (1, 1))  # so that git compares contents
    found = Source(root / ".remote" / "runs" / "a", root).collect()
    return [os.fsdecode(path) for path in scan(root, exclude=[".git", ".remote"]).files], dict(found)


PROGRAMS = [
    ("core.fsmonitor", "{}"),
    ("core.sshCommand", "{}"),
    ("core.pager", "{}"),
    ("pager.ls-files", "{}"),
    ("pager.status", "{}"),
    ("core.editor", "{}"),
    ("core.askPass", "{}"),
    ("credential.helper", "!{}"),
    ("diff.external", "{}"),
    ("diff.x.command", "{}"),
    ("diff.x.textconv", "{}"),
    ("filter.x.clean", "{}"),
    ("filter.x.smudge", "{}"),
    ("filter.x.process", "{}"),
    ("alias.ls-files", "!{}"),
    ("alias.status", "!{}"),
    ("gpg.program", "{}"),
    ("remote.origin.uploadpack", "{}"),
]


@pytest.mark.parametrize(("name", "value"), PROGRAMS)
@pytest.mark.parametrize("how", ["config", "include", "worktree"])
def test_a_program_in_a_repositorys_configuration_does_not_start(
    repo: Path, name: str, value: str, how: str
) -> None:
    proof = repo.parent / "ran"
    (repo / ".gitattributes").write_text("*.txt filter=x diff=x\n")
    commit(repo)
    (repo / "new").write_text("x")
    (repo / "a.txt").write_text("b\n")
    files = ["--file", ".git/config"]
    if how == "include":
        git(repo, "config", "include.path", "more")
        files = ["--file", ".git/more"]
    elif how == "worktree":
        git(repo, "config", "extensions.worktreeConfig", "true")
        files = ["--worktree"]
    program = repo.parent / "program"
    program.write_text(f"#!/bin/sh\n{touching(proof)}\n")
    program.chmod(0o755)
    git(repo, "config", *files, name, value.format(program))

    names, found = everything(repo)

    assert not proof.exists()
    assert [".gitattributes", ".gitignore", "a.txt", "new", "tasks.py"] == names
    assert True is found["git_dirty"]
    assert "+b" in (repo / ".remote/runs/a/diff.patch").read_text()


def test_what_the_tests_program_would_do_is_seen(repo: Path) -> None:
    """Hold that the proof of the tests above is one: git without our fence starts the filter."""
    proof = repo.parent / "ran"
    (repo / ".gitattributes").write_text("*.txt filter=x\n")
    commit(repo)
    git(repo, "config", "filter.x.clean", touching(proof))
    os.utime(repo / "a.txt", (1, 1))
    git(repo, "status")
    assert proof.exists()


def test_a_filter_of_the_users_stays_and_the_repository_cannot_change_it(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, proof = tmp_path / "users", tmp_path / "ran"
    users.write_text('[filter "x"]\n\tclean = tr a-z A-Z\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(users))
    (repo / ".gitattributes").write_text("*.txt filter=x\n")
    os.utime(repo / "a.txt", (1, 1))  # else git may take it for what the index has
    commit(repo)
    assert "A\n" == git(repo, "show", "HEAD:a.txt")
    git(repo, "config", "filter.x.clean", touching(proof))
    git(repo, "config", "filter.x.required", "true")
    _, found = everything(repo)
    assert (False, False) == (found["git_dirty"], proof.exists())


def test_a_filter_with_an_odd_name_does_not_start(repo: Path) -> None:
    proof = repo.parent / "ran"
    (repo / ".gitattributes").write_text("*.txt filter=a=b\n")
    commit(repo)
    with (repo / ".git" / "config").open("a") as file:
        file.write(f'[filter "a=b"]\n\tclean = "{touching(proof)}"\n')
    _, found = everything(repo)
    assert (None, False) == (found["git_dirty"], proof.exists())


def test_a_submodules_filter_does_not_start_and_its_changes_are_told(repo: Path, tmp_path: Path) -> None:
    other, proof = tmp_path / "other", tmp_path / "ran"
    other.mkdir()
    git(other, "init", "-q")
    (other / "b.txt").write_text("b\n")
    (other / ".gitattributes").write_text("*.txt filter=x\n")
    commit(other)
    git(repo, "submodule", "--quiet", "add", str(other), "sub")
    commit(repo)
    git(repo / "sub", "config", "filter.x.clean", touching(proof))
    git(repo / "sub", "config", "core.fsmonitor", touching(proof))
    os.utime(repo / "sub" / "b.txt", (1, 1))
    _, found = everything(repo)
    assert (False, False) == (found["git_dirty"], proof.exists())

    (repo / "sub" / "b.txt").write_text("c\n")
    names, found = everything(repo)
    assert ("sub/b.txt" in names, True, False) == (True, found["git_dirty"], proof.exists())
    assert ["sub: a submodule with changes of its own"] == found["diff_omitted"]


def test_hooks_do_not_run(repo: Path) -> None:
    proof = repo.parent / "ran"
    for path in (repo / ".git" / "hooks").glob("*.sample"):
        hook = path.with_suffix("")
        hook.write_text(f"#!/bin/sh\n{touching(proof)}\n")
        hook.chmod(0o755)
    hook = repo / ".git" / "hooks" / "post-index-change"
    hook.write_text(f"#!/bin/sh\n{touching(proof)}\n")
    hook.chmod(0o755)
    everything(repo)
    assert not proof.exists()


def test_an_object_that_a_partial_clone_lacks_is_not_fetched_by_a_program(repo: Path) -> None:
    proof = repo.parent / "ran"
    for name, value in {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.promisor": "true",
        "remote.origin.url": str(repo),
        "remote.origin.uploadpack": f"{touching(proof)} #",
        "protocol.allow": "always",
    }.items():
        git(repo, "config", name, value)
    blob = git(repo, "rev-parse", "HEAD:a.txt").strip()
    (repo / "a.txt").write_text("b\n")
    (repo / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    everything(repo)
    assert not proof.exists()


@pytest.mark.parametrize("elsewhere", ["..", "../other"])
def test_a_work_tree_that_leads_elsewhere_brings_no_file_of_there(
    repo: Path, tmp_path: Path, elsewhere: str
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "secret").write_text("it")
    (tmp_path / "other" / "secret").write_text("it")
    git(repo, "config", "core.worktree", str((repo / elsewhere).resolve()))
    found = Source(repo / ".remote" / "runs" / "a", repo).collect()
    try:
        names = list(scan(repo).files)
    except ConfigError:
        names = []
    assert (None, False) == (found["git_sha"], any(b"secret" in name for name in names))
    assert not (repo / ".remote" / "runs" / "a" / "diff.patch").exists()


def test_a_git_file_that_leads_elsewhere_brings_no_file_of_there(repo: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / ".git").write_text(f"gitdir: {repo}/.git\n")
    (root / "x").write_text("x")
    before = sorted(path.stat().st_mtime_ns for path in repo.rglob("*"))
    Source(root / ".remote" / "runs" / "a", root).collect()
    assert [b"x"] == list(scan(root, exclude=[".remote"]).files)
    assert before == sorted(path.stat().st_mtime_ns for path in repo.rglob("*"))


def test_a_folder_that_looks_like_a_bare_repository_is_none(repo: Path) -> None:
    proof = repo.parent / "ran"
    bare = repo / "data"
    git(repo, "init", "-q", "--bare", str(bare))
    git(bare, "config", "core.fsmonitor", touching(proof))
    git(bare, "config", "core.worktree", str(bare))
    with pytest.raises(ConfigError, match="git cannot list"):
        scan(bare)
    assert not proof.exists()


@pytest.mark.parametrize(
    "name",
    [
        "new\nline",
        "q'uote\"",
        "-rf",
        "--exec=touch ran",
        ":(magic)x",
        ":!x",
        "$(touch ran)",
        "`touch ran`",
        "\x1b[2J\x07",
        "n" * 255,
        "\u202etxt",
        "a\\b",
        "*",
        "#",
    ],
)
def test_a_hostile_name_is_a_name(repo: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(repo)
    (repo / name).write_bytes(b"\0" * (2 << 20))  # above 1 MiB: excluded from the patch by its name
    commit(repo)
    (repo / name).write_bytes(b"\1" * (2 << 20))
    (repo / "a.txt").write_text("b\n")
    names, found = everything(repo)
    assert sorted([".gitignore", "a.txt", "tasks.py", name]) == sorted(names)
    assert (True, [f"{name}: above 1 MiB"]) == (found["git_dirty"], found["diff_omitted"])
    assert not (repo / "ran").exists()


def test_links_in_a_circle_are_links(repo: Path) -> None:
    (repo / "a").symlink_to("b")
    (repo / "b").symlink_to("a")
    (repo / "self").symlink_to(".")
    commit(repo)
    names, _ = everything(repo)
    assert {"a", "b", "self"} <= set(names)
