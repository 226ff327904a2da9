"""The suite itself: what it prints last, and what its tests need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs

ROOT = Path(__file__).parents[2]
BROKEN = """\
import pytest

@pytest.fixture
def wrong():
    yield
    raise OSError

def test_good(): pass
def test_bad(): assert False
def test_left(wrong): pass
"""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_the_names_of_failed_tests_come_last(tmp_path: Path, workers: str) -> None:
    (tmp_path / "test_it.py").write_text(BROKEN)
    words = ["-p", "tests.conftest", "-p", "xdist", "-p", "no:cacheprovider", "-n", workers, "test_it.py"]

    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )

    last = done.stdout.splitlines()[-3:]
    assert ["failed: test_it.py::test_bad", "failed: test_it.py::test_left"] == last[1:], done.stderr
    assert "1 failed, 2 passed, 1 error" in last[0]


def test_a_missing_need_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "chromium-browser").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(needs, "SBIN", str(tmp_path))

    assert "" == needs.why_missing(needs.CHROMIUM)
    assert "missing: fish, uv (./inv test --all, or apt-get install fish)" == needs.why_missing("fish", "uv")


def test_where_nothing_can_be_installed_one_line_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no apt-get
    monkeypatch.setattr(needs, "SBIN", str(tmp_path))

    needs.install()

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("inv test --all: cannot be installed here, their tests skip: ")
    assert {"fish", "sshfs", "uv"} <= set(line.split(": ")[-1].split(", "))


def test_where_all_is_here_nothing_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(needs, "PACKAGES", {"sh": "dash"})

    needs.install()

    assert ("", "") == capsys.readouterr()
