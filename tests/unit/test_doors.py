"""The original commands: doors to the same tasks, from any folder, with every word as typed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DOORS = Path(__file__).parents[2] / "remote_tools"
TASKS = """\
import json, os, sys
from invoke import task

def say(**given):
    words = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else None
    print(json.dumps({**given, "words": words, "cwd": os.getcwd()}))

@task
def dev(c, auto_fetch=False, local_dir=None):
    say(auto_fetch=auto_fetch, local_dir=local_dir)

@task
def sync(c, dry_run=False):
    say(dry_run=dry_run)

@task
def exec(c, command):
    say(command=command)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose tasks say what they were given."""
    root = tmp_path / "a project"
    (root / "remote_tools").mkdir(parents=True)
    (root / "tasks.py").write_text(TASKS)
    for door in ("dev_run.py", "remote_sync.sh", "remote_exec.sh"):
        shutil.copy(DOORS / door, root / "remote_tools" / door)
    return root


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "CDPATH": "/:/usr"}
    return subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, timeout=60)


def said(*words: str, cwd: Path) -> dict[str, object]:
    result = run(*words, cwd=cwd)
    assert (0, "") == (result.returncode, result.stderr)
    answer = json.loads(result.stdout)
    assert isinstance(answer, dict)
    return answer


WORDS = ["examples/gemm.py", "--mode", "a b", "", "$HOME", "*", "'\"", "line\nline", "--", "é", "-h"]


def test_dev_run_passes_every_word_from_any_folder(project: Path, tmp_path: Path) -> None:
    door = str(project / "remote_tools" / "dev_run.py")
    expected = {
        "auto_fetch": True,
        "local_dir": str(tmp_path / "my results"),
        "words": WORDS,
        "cwd": str(project),
    }
    given = said(
        sys.executable, door, "--auto-fetch", "--local-dir", "my results", "--", *WORDS, cwd=tmp_path
    )
    assert expected == given


def test_dev_run_without_flags_or_dashes(project: Path) -> None:
    door = "remote_tools/dev_run.py"
    expected: dict[str, object] = {
        "auto_fetch": False,
        "local_dir": None,
        "words": [],
        "cwd": str(project),
    }
    assert expected == said(sys.executable, door, "--", cwd=project)
    result = run(sys.executable, door, "examples/gemm.py", cwd=project)
    assert (64, "") == (result.returncode, result.stdout)
    assert "unexpected 'examples/gemm.py' before --; TARGET comes after --" in result.stderr


def test_dev_run_prefers_the_projects_own_interpreter(project: Path) -> None:
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nOWN=1 exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (project / "tasks.py").write_text(TASKS.replace("os.getcwd()", 'os.environ["OWN"]'))
    assert "1" == said(sys.executable, "remote_tools/dev_run.py", "--", "x", cwd=project)["cwd"]


@pytest.mark.parametrize("folder", [".", "remote_tools", ".."])
def test_remote_sync_pushes_from_any_folder(project: Path, folder: str) -> None:
    expected = {"dry_run": True, "words": None, "cwd": str(project)}
    door = os.path.relpath(project / "remote_tools" / "remote_sync.sh", project / folder)
    assert expected == said(door if "/" in door else f"./{door}", "--dry-run", cwd=project / folder)


@pytest.mark.parametrize("string", ["python --version", "a='b c'; echo \"$a\" | wc -c\n# é *", "-x --y=z"])
def test_remote_exec_hands_over_the_string(project: Path, tmp_path: Path, string: str) -> None:
    expected = {"command": string, "words": None, "cwd": str(project)}
    assert expected == said(str(project / "remote_tools" / "remote_exec.sh"), string, cwd=tmp_path)


def test_remote_exec_without_a_string_says_what_to_type(project: Path) -> None:
    result = run("remote_tools/remote_exec.sh", cwd=project)
    assert (64, "", "usage: remote_exec.sh 'STRING'\n") == (result.returncode, result.stdout, result.stderr)
