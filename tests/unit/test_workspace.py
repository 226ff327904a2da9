"""Which files belong to the workspace."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from remote_tools.errors import ConfigError
from remote_tools.host.listing import path_of, size_of
from remote_tools.loop.steps import workspace_of
from remote_tools.settings.settings import Settings
from remote_tools.sync.last_push import client_id
from remote_tools.sync.workspace import look, scan


def git(folder: Path, *words: str) -> bytes:
    """Run git as nobody in particular."""
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "protocol.file.allow=always"]
    return subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True).stdout


def names(root: Path, *args: object, **kwargs: object) -> list[str]:
    """List the workspace by name."""
    return [os.fsdecode(path) for path in scan(root, *args, **kwargs).files]  # type: ignore[arg-type]


def write(root: Path, *paths: str) -> None:
    """Make files that hold their own names."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(os.fsencode(path))


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """Make a git work tree."""
    root = tmp_path / "repo"
    root.mkdir()
    git(root, "init", "-q")
    return root


def test_a_git_work_tree_holds_what_git_lists(repo: Path) -> None:
    odd = ["-x", "*", "a b", "q'\"$\\", "n\nl", "c:d", os.fsdecode(b"\xff"), "#", "ü"]
    write(repo, *odd, "kept.log", "lost.log", "build/out", "build/keep.me", "tracked.log", "tmp/x")
    (repo / ".gitignore").write_text("*.log\n!kept.log\n/build/*\n!/build/keep.me\ntmp/\n")
    git(repo, "add", "-f", "tracked.log", "a b")
    listed = git(repo, "ls-files", "-co", "--exclude-standard", "-z").rstrip(b"\0").split(b"\0")
    assert sorted(map(os.fsdecode, listed)) == sorted(names(repo))
    assert {"kept.log", "build/keep.me", "tracked.log"} <= set(names(repo))


def test_a_file_that_git_still_tracks_and_is_deleted_is_gone_without_a_word(repo: Path) -> None:
    write(repo, "a", "b")
    git(repo, "add", "-A")
    (repo / "a").unlink()
    tree = scan(repo)
    assert ([b"b"], ()) == (list(tree.files), tree.warnings)


def test_files_of_submodules_belong_to_it_and_those_of_other_repositories_do_not(
    repo: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    write(other, "inner/x", "ignored.o")
    (other / ".gitignore").write_text("*.o\n")
    git(other, "add", "-A")
    git(other, "commit", "-qm", "x")
    git(repo, "submodule", "--quiet", "add", str(other), "sub")
    write(repo, "sub/new", "sub/new.o", "nested/y")
    git(repo / "nested", "init", "-q")
    tree = scan(repo, exclude=[".git"])
    assert [b".gitmodules", b"sub/.gitignore", b"sub/inner/x", b"sub/new"] == list(tree.files)
    assert ("nested/ is a git repository but no submodule: not sent",) == tree.warnings


def test_a_folder_below_a_work_tree_is_listed_from_itself(repo: Path) -> None:
    write(repo, "top", "sub/x")
    assert ["x"] == names(repo / "sub")


def test_an_ignored_folder_of_a_work_tree_is_listed_like_any_folder(repo: Path) -> None:
    write(repo, "out/x")
    (repo / ".gitignore").write_text("out/\n")
    assert ["x"] == names(repo / "out")


def test_without_git_every_file_belongs_to_it_but_what_is_excluded(tmp_path: Path) -> None:
    write(
        tmp_path, "a.py", "a.pyc", "p/__pycache__/a.pyc", "p/cache/x", "cache/y", "docs/a/b.txt", "docs/b.md"
    )
    exclude = ["__pycache__", "*.pyc", "/cache/", "docs/**/*.txt"]
    assert ["a.py", "docs/b.md", "p/cache/x"] == names(tmp_path, exclude)


def test_include_brings_back_what_is_excluded_or_ignored_by_git(repo: Path) -> None:
    write(repo, "a.so", "lib/b.so", "lib/c.o", "d.py", "e.tmp", ".remote/x")
    (repo / ".gitignore").write_text("*.so\n*.o\n")
    got = names(repo, exclude=["*.tmp"], include=["lib/*.so", "e.tmp", ".remote"])
    assert [".gitignore", "d.py", "e.tmp", "lib/b.so"] == got


def test_fetched_results_and_our_own_state_never_belong_to_it(tmp_path: Path) -> None:
    write(tmp_path, "cache/k/x", ".remote/runs/r", ".remote_config", "a", "sub/.git/config")
    assert ["a"] == names(tmp_path, (), ["cache", ".remote", "*"], ["/cache"])


@pytest.mark.parametrize("name", ["cache[1]", "ca*", "c?", "[!c]", "back\\slash", "a/b[1]"])
def test_the_folder_of_results_is_left_out_by_its_exact_name(tmp_path: Path, name: str) -> None:
    write(tmp_path, f"{name}/k/x", "cache1", "cat", "c1", "d", "backslash", "a/b1")
    settings = Settings(tmp_path, local_dir=tmp_path / name, include=("*",))
    found = [os.fsdecode(path) for path in workspace_of(settings).files]
    assert ["a/b1", "backslash", "c1", "cache1", "cat", "d"] == found


def test_results_outside_of_the_workspace_leave_nothing_out(tmp_path: Path) -> None:
    write(tmp_path, "here/results/x", "results/x")
    settings = Settings(tmp_path / "here", local_dir=tmp_path / "results")
    assert [b"results/x"] == list(workspace_of(settings).files)


def test_links_are_kept_and_those_that_leave_the_tree_are_reported(tmp_path: Path) -> None:
    write(tmp_path, "d/x")
    for name, target in (("in", "d"), ("d/up", "../d/x"), ("out", "../elsewhere"), ("abs", "/etc")):
        (tmp_path / name).symlink_to(target)
    tree = scan(tmp_path)
    assert [b"abs", b"d/up", b"d/x", b"in", b"out"] == list(tree.files)
    assert b"l0 0 0 d/up//../d/x" == tree.files[b"d/up"]
    assert {"abs leads out of the tree: /etc", "out leads out of the tree: ../elsewhere"} == set(
        tree.warnings
    )


def test_what_is_neither_a_file_nor_a_link_is_reported(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    tree = scan(tmp_path)
    assert ({}, ("pipe is neither a file nor a link: not sent",)) == (tree.files, tree.warnings)


def test_the_stamp_follows_size_mode_time_target_and_settings(tmp_path: Path) -> None:
    write(tmp_path, "a")
    (tmp_path / "l").symlink_to("a")
    stamps = [scan(tmp_path).stamp, scan(tmp_path).stamp]
    assert stamps[0] == stamps[1]
    os.utime(tmp_path / "a", ns=(1, 1))
    stamps.append(scan(tmp_path).stamp)
    (tmp_path / "a").chmod(0o700)
    stamps.append(scan(tmp_path).stamp)
    (tmp_path / "l").unlink()
    (tmp_path / "l").symlink_to("b")
    stamps.append(scan(tmp_path).stamp)
    stamps.append(scan(tmp_path, exclude=["zzz"]).stamp)
    stamps.append(scan(tmp_path, salt=["zzz"]).stamp)
    assert 6 == len(set(stamps))


def test_a_record_gives_its_path_and_size_back(tmp_path: Path) -> None:
    write(tmp_path, "a b\nc")
    (tmp_path / "l").symlink_to("//x")
    assert b"a b\nc" == path_of(look(os.fsencode(tmp_path), b"a b\nc") or b"")
    assert 5 == size_of(look(os.fsencode(tmp_path), b"a b\nc") or b"")
    assert b"l" == path_of(look(os.fsencode(tmp_path), b"l") or b"")
    assert look(os.fsencode(tmp_path), b"gone") is None


def test_a_checkout_keeps_its_client_id(tmp_path: Path) -> None:
    assert client_id(tmp_path) == client_id(tmp_path)
    assert 16 == len(client_id(tmp_path))


def test_a_pattern_that_is_none_matches_nothing(tmp_path: Path) -> None:
    write(tmp_path, "z-a", "[z-a]", "b")
    assert ["b", "z-a"] == names(tmp_path, ["[[]z-a]", "[z-a]"])


def test_what_git_cannot_list_is_an_error_that_says_so(repo: Path) -> None:
    (repo / ".git" / "HEAD").write_text("broken")
    (repo / ".git" / "index").write_text("broken")
    with pytest.raises(ConfigError, match="git cannot list"):
        scan(repo)
