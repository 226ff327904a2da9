"""The worked example, `examples/other_repo`: run as it stands, from the built wheel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from remote_tools.setup.sandbox import Sandbox
from tests.integration.conftest import ROOT


@pytest.fixture
def repo(tmp_path: Path, sandbox: Sandbox, installed: Path) -> Path:
    """Copy the example, and write the one file that it leaves to the user."""
    folder = tmp_path / "other_repo"
    shutil.copytree(ROOT / "examples/other_repo", folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".remote_config").write_text(
        f"REMOTE_HOST=sandbox\nREMOTE_VENV_PATH={installed.parent}\n"
        f"REMOTE_CODE_PATH=~/{tmp_path.name}\nREMOTE_CACHE_DIR=~/{tmp_path.name}-cache\n"
        f"SSH_OPTIONS=\"-F '{sandbox.ssh_config}'\"\n"
    )
    return folder


def run(installed: Path, repo: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a module of the wheel's venv in the example."""
    env = {"PATH": os.environ["PATH"], "HOME": str(repo.parent), "LANG": "C.UTF-8", "COLUMNS": "120"}
    command = [str(installed / "python"), "-m", *words]
    return subprocess.run(
        command, cwd=repo, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120
    )


def test_its_benchmark_tunes_on_the_host_and_is_compared(installed: Path, repo: Path) -> None:
    for elements in ("512", "512"):
        done = run(installed, repo, "invoke", "bench.cubic", "--elements", elements)
        assert 0 == done.returncode, done.stderr
    ids = sorted(path.name for path in (repo / ".remote/runs").iterdir())

    compared = run(installed, repo, "invoke", "bench.compare", *ids, "--json")

    assert (repo / "results/cubic/512/perf_metrics.json").exists()
    assert ["cubic"] == [row["kernel"] for row in json.loads(compared.stdout)]


def test_its_loop_goes_by_its_own_name_under_both_programs(installed: Path, repo: Path) -> None:
    said = [
        run(installed, repo, *program, "trn.dev", "--", "echo", "two words").stdout
        for program in (["invoke"], ["fabric", "-H", "sandbox"])
    ]

    assert ["two words\n", "two words\n"] == said


def test_its_settings_override_each_other_in_order(installed: Path, repo: Path) -> None:
    done = run(installed, repo, "invoke", "trn.config", "--json")

    found = {
        row["setting"]: (row["value"], row["source"].partition(":")[0]) for row in json.loads(done.stdout)
    }
    assert {
        "code_path": (f"~/{repo.parent.name}", ".remote_config"),
        "device_lock": ("true", "invoke.yaml"),
        "keep_runs": ("50", "invoke.yaml"),
        "local_dir": (str(repo / "results"), "ns.configure"),
    } == {name: found[name] for name in ("code_path", "device_lock", "keep_runs", "local_dir")}


def test_its_runs_from_python_end_with_an_exit_code_each(installed: Path, repo: Path) -> None:
    done = run(installed, repo, "invoke", "sweep")

    lines = [line.split(": ")[0] for line in done.stdout.splitlines() if "ended with 0" in line]
    assert (0, ["256", "4096"]) == (done.returncode, lines), done.stderr
