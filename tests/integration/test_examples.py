"""The example scripts, run as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


def run(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "COLUMNS": "200"}
    command = [sys.executable, *words]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=200)


def test_there_is_one_for_each_kernel() -> None:
    assert ["attention.py", "gemm.py", "rmsnorm_linear.py", "softmax.py", "transpose.py"] == EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES)
def test_each_has_the_same_flags(example: str, tmp_path: Path) -> None:
    text = run(tmp_path, f"examples/{example}", "--help").stdout
    assert [] == [flag for flag in ("--backend", "--budget", "--cache-dir", "--dtype") if flag not in text]


def test_an_unknown_backend_is_told_in_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, "examples/softmax.py", "--backend", "nunpy", "--cache-dir", str(tmp_path / "cache"))
    assert (64, 1) == (done.returncode, len(done.stderr.splitlines()))
    assert "'numpy'" in done.stderr


SMALL = "import runpy, sys; gemm = runpy.run_path('examples/gemm.py'); main = gemm['main']; "
SMALL += "main.__globals__['SHAPES'] = ((16, 32, 16), (17, 32, 16), (64, 48, 64)); sys.exit(main())"


@pytest.mark.parametrize(
    ("program", "shapes"),
    [
        (("-c", SMALL), {"16x16_16x32", "16x17_16x32", "64x64_64x48"}),
        pytest.param(
            ("examples/gemm.py",),
            {"128x128_128x512", "128x129_128x512", "1024x1024_1024x1024"},
            marks=pytest.mark.long,
        ),
    ],
    ids=["small", "its own"],
)
def test_a_run_leaves_one_workload_for_each_shape(
    tmp_path: Path, program: tuple[str, ...], shapes: set[str]
) -> None:
    cache = tmp_path / "cache"
    done = run(tmp_path, *program, "--mode", "lhsT_rhs", "--budget", "2", "--cache-dir", str(cache))
    assert done.returncode == 0, done.stderr
    found = {
        path.parent.name: json.loads(path.read_text())
        for path in cache.glob("gemm_lhsT_rhs/*/perf_metrics.json")
    }
    assert shapes == set(found)
    assert {2} == {len(metrics["trials"]) for metrics in found.values()}
    assert set(found) == {name for name in found if name in done.stdout}
