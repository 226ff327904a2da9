"""Another repository uses the built wheel: its own tasks, fabfile and settings, our sources out of reach."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from remote_tools.setup.sandbox import Sandbox


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
    (repo / "fabric.yaml").write_text("tasks:\n  executor_class: remote_tools.tasks.executor.Executor\n")
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


def test_the_ten_lines_of_the_documentation_tune_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    """The installed package counts by name, so that the function's own files are all that is known of it."""
    page = (Path(__file__).parents[2] / "docs/your_kernel.md").read_text()
    lines = page.split("```python\n")[1].split("```")[0].replace("512)", "8)")  # quicker
    (tmp_path / "softmax.py").write_text(lines + "print(blocked.kernel.generators['numpy']({}, (), ()))\n")
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8"}

    done = subprocess.run(
        [str(installed / "python"), "softmax.py"], cwd=tmp_path, env=env, capture_output=True, text=True
    )

    assert 10 == len([line for line in page.split("```python\n")[1].split("```")[0].splitlines() if line])
    config, *candidate = done.stdout.splitlines()
    assert (0, "{'rows': ") == (done.returncode, config[:9]), done.stderr
    assert ["# 'softmax.py' "] == [line[:15] for line in candidate if line.startswith("#")]
