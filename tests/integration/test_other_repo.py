"""Another repository uses the built wheel: its own tasks, fabfile and settings, our sources out of reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from remote_tools.sandbox import Sandbox

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the bin folder of an empty venv that has only the wheel, and what this venv has besides it."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv/bin/python"
    pip = [str(python), "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    # The libraries are those of this venv, as found by name: all but our own project, which is editable here.
    theirs = subprocess.run(
        [str(python), "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True
    ).stdout.strip()
    ours = Path(pytest.__file__).parents[1]
    for library in ours.iterdir():
        target = Path(theirs) / library.name
        project = "remote_autotune" in library.name or library.suffix == ".pth"
        if not target.exists() and not project:
            target.symlink_to(library)
    return folder / "venv/bin"


def run(installed: Path, repo: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a module of the empty venv in the other repository."""
    env = {"PATH": os.environ["PATH"], "HOME": str(repo.parent), "LANG": "C.UTF-8"}
    command = [str(installed / "python"), "-m", *words]
    return subprocess.run(
        command, cwd=repo, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


@pytest.fixture
def other_repo(tmp_path: Path, sandbox: Sandbox) -> Path:
    """Make the other repository."""
    repo = tmp_path / "other"
    repo.mkdir()
    tasks = "from invoke import Collection\nfrom remote_tools import ns as remote\nns = Collection(remote)\n"
    (repo / "tasks.py").write_text(tasks)
    (repo / "fabfile.py").write_text("from tasks import ns\n")
    (repo / "fabric.yaml").write_text("tasks:\n  executor_class: remote_tools.executor.Executor\n")
    settings = {
        "host": "sandbox",
        "code_path": f"~/{tmp_path.name}",
        "ssh_options": ["-F", str(sandbox.ssh_config)],
    }
    (repo / "invoke.yaml").write_text(json.dumps({"remote": settings}))
    (repo / "words.py").write_text("import json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    return repo


def test_the_sources_are_out_of_reach(installed: Path, tmp_path: Path) -> None:
    found = subprocess.run(
        [str(installed / "python"), "-c", "import remote_tools; print(remote_tools.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    ).stdout

    assert str(installed.parent) == found[: len(str(installed.parent))]


@pytest.mark.parametrize("program", [["invoke"], ["fabric"], ["fabric", "-H", "sandbox"]])
def test_another_repository_runs_its_script(installed: Path, other_repo: Path, program: list[str]) -> None:
    done = run(installed, other_repo, *program, "remote.dev", "--", "words.py", "two words")

    assert (0, '["two words"]\n') == (done.returncode, done.stdout), done.stderr


def test_its_settings_are_its_own(installed: Path, other_repo: Path) -> None:
    done = run(installed, other_repo, "invoke", "remote.config", "--json")

    found = {row["setting"]: row["source"] for row in json.loads(done.stdout)}
    assert "invoke.yaml" == found["host"].partition(":")[0]
