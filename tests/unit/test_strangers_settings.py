"""A repository and a folder of results set nothing, and execute nothing beyond tasks.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from remote_tools.errors import ConfigError
from remote_tools.settings.settings import Settings, load
from tests.unit.strangers import commit, git, repo

__all__ = ["repo"]


def settings_of(root: Path) -> Settings:
    return load({}, root, environ={}, required=())


def refusal(root: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        settings_of(root)
    assert 78 == caught.value.code
    return f"{caught.value.reason} | {caught.value.hint}"


def inv(folder: Path, *words: str, program: str = "invoke", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", program, *words],
        cwd=folder,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def test_a_remote_config_that_git_tracks_is_refused_before_anything_starts(repo: Path) -> None:
    proof = repo.parent / "ran"
    (repo / ".remote_config").write_text(
        f"REMOTE_HOST=h\nREMOTE_CODE_PATH=~/x\nSSH_OPTIONS=\"-o ProxyCommand='touch {proof}; false'\"\n"
    )
    settings_of(repo)
    git(repo, "add", "-f", ".remote_config")

    assert "git rm --cached .remote_config" in refusal(repo)
    for words in (["config"], ["--list"], ["dev", "--help"], ["sync", "--dry-run"], ["doctor"]):
        done = inv(repo, *words)
        refused = words[0] in ("config", "sync", "doctor")
        assert (78 if refused else 0, "") == (done.returncode, done.stderr.partition("Traceback")[1])
    assert not proof.exists()

    git(repo, "rm", "-q", "--cached", ".remote_config")
    assert "h" == settings_of(repo).host


def test_its_original_place_is_refused_too(repo: Path) -> None:
    (repo / "remote_tools").mkdir()
    (repo / "remote_tools" / ".remote_config").write_text("REMOTE_HOST=h\n")
    settings_of(repo)
    git(repo, "add", "-f", "remote_tools/.remote_config")
    assert "git rm --cached remote_tools/.remote_config" in refusal(repo)


def test_that_of_a_parents_repository_and_of_a_submodule_are_refused(repo: Path, tmp_path: Path) -> None:
    below = repo / "below"
    below.mkdir()
    (below / ".remote_config").write_text("REMOTE_HOST=h\n")
    git(repo, "add", "-f", "below/.remote_config")
    assert "git tracks .remote_config" in refusal(below)

    commit(repo)
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    git(other, "submodule", "--quiet", "add", str(repo), "sub")
    assert "git tracks .remote_config" in refusal(other / "sub" / "below")


def test_another_name_of_the_same_file_is_refused(repo: Path) -> None:
    """Stand in for a file system on which the case of letters does not matter."""
    (repo / ".REMOTE_CONFIG").write_text("REMOTE_HOST=h\n")
    git(repo, "add", "-A")
    (repo / ".remote_config").hardlink_to(repo / ".REMOTE_CONFIG")
    assert "git rm --cached .REMOTE_CONFIG" in refusal(repo)


def test_a_link_of_the_repository_is_refused_and_one_of_the_users_counts(repo: Path) -> None:
    (repo / "team").write_text("REMOTE_HOST=h\n")
    (repo / ".remote_config").symlink_to("team")
    git(repo, "add", "team")
    assert "h" == settings_of(repo).host
    git(repo, "add", "-f", ".remote_config")
    assert "git tracks .remote_config" in refusal(repo)


def test_where_git_cannot_tell_it_is_refused(repo: Path) -> None:
    (repo / ".remote_config").write_text("REMOTE_HOST=h\n")
    (repo / ".git" / "index").write_text("broken")
    assert "git cannot tell whether it tracks .remote_config: " in refusal(repo)


def test_a_git_folder_that_is_no_repository_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".remote_config").write_text("REMOTE_HOST=h\n")
    assert "h" == settings_of(tmp_path).host


def test_a_folder_of_results_sets_nothing(repo: Path) -> None:
    (repo / "invoke.yaml").write_text("remote: {host: ours}\n")
    results = repo / "cache" / "k"
    results.mkdir(parents=True)
    (results / "invoke.yaml").write_text("remote: {host: theirs}\ntasks: {x: [\n")
    (results / ".remote_config").write_text("REMOTE_HOST=theirs\n")
    (repo / "fabfile.py").write_text("from tasks import ns\n")
    for folder in (results, repo / "cache"):
        for program in ("invoke", "fabric"):
            done = inv(folder, "config", program=program, COLUMNS="200")
            assert (0, True, False) == (done.returncode, "ours" in done.stdout, "theirs" in done.stdout)
            assert 0 == inv(folder, "--list", program=program).returncode


@pytest.mark.parametrize("name", [".remote_config", "invoke.yaml"])
def test_settings_that_lie_in_the_results_are_refused(repo: Path, name: str) -> None:
    (repo / "cache").mkdir()
    (repo / "cache" / "it").write_text("")
    (repo / name).symlink_to("cache/it")
    assert "is in local_dir, and results set nothing" in refusal(repo)


def test_results_in_the_original_place_of_settings_set_nothing(repo: Path) -> None:
    (repo / "invoke.yaml").write_text("remote: {local_dir: remote_tools}\n")
    (repo / "remote_tools").mkdir()
    (repo / "remote_tools" / ".remote_config").write_text("REMOTE_HOST=theirs\n")
    assert "is in local_dir, and results set nothing" in refusal(repo)


@pytest.mark.parametrize("local_dir", ["~nobody-of-this-name/x", "circle/x"])
def test_a_local_dir_that_cannot_be_is_named(repo: Path, local_dir: str) -> None:
    (repo / "circle").symlink_to("circle")
    (repo / "invoke.yaml").write_text(f"remote: {{local_dir: {local_dir}}}\n")
    if local_dir.startswith("~"):
        assert "invoke.yaml:1: local_dir: " in refusal(repo)
    else:
        done = inv(repo, "config")
        assert "Traceback" not in done.stderr


def test_nested_brackets_are_no_traceback(repo: Path) -> None:
    (repo / "invoke.yaml").write_text("[" * 100_000)
    assert "invoke.yaml: " in refusal(repo)
