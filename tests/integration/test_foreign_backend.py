"""A backend of another repository, installed beside the wheel, keeps the contract of backends."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ELSEWHERE = Path(__file__).with_name("vector_machine")


def test_a_backend_of_another_repository_keeps_the_contract(installed: Path, tmp_path: Path) -> None:
    repo = shutil.copytree(ELSEWHERE, tmp_path / "repo")
    python = str(installed / "python")
    pip = [python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation", str(repo)]
    subprocess.run(pip, check=True, capture_output=True, text=True)

    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", "tests"]
    done = subprocess.run([python, *words], cwd=repo, capture_output=True, text=True)

    assert 0 == done.returncode, done.stdout
    assert "passed" in done.stdout
    assert "failed" not in done.stdout
