"""`bench.compare`, after real benchmarks on real hosts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from remote_tools.setup.sandbox import Sandbox
from tests.integration.conftest import Laptop

TASKS = """\
from invoke import Collection
from remote_tools import ns as remote
from remote_tools.tasks.bench_task import bench_collection, bench_task
fill = bench_task("fill", "fill.py", ["--ms", "2.0"])
fail = bench_task("fail", "fill.py", ["--ms", "none"])
ns = Collection(*remote.tasks.values(), bench_collection(fail, fill))
"""
# Writes what a tuner would, at the speed that it is told.
FILL = """\
import json, os, pathlib, sys
ms = float(sys.argv[2])
reading = {"median_ms": ms, "ci95_low_ms": ms * 0.99, "ci95_high_ms": ms * 1.01, "gflops": 1 / ms}
folder = pathlib.Path(os.environ["AUTOTUNE_CACHE_DIR"]) / "gemm" / "8x8_8x8"
folder.mkdir(parents=True, exist_ok=True)
trial = {"status": "ok", "path": "x=1", "metrics": reading, "confirmed": None}
summary = {"kernel": "gemm", "shapes": "8x8_8x8", "environment": {}, "trials": [trial]}
(folder / "perf_metrics.json").write_text(json.dumps(summary))
"""


@pytest.fixture
def bench(make_laptop: Callable[[Sandbox], Laptop], sandbox: Sandbox) -> Laptop:
    """Give a project with benchmarks, on a host that others use too."""
    laptop = make_laptop(sandbox)
    config = laptop.root / ".remote_config"
    name = laptop.root.parent.name
    config.write_text(
        config.read_text().replace("~/project", f"~/{name}") + f"REMOTE_CACHE_DIR=~/{name}-cache\n"
    )
    laptop.write("tasks.py", TASKS)
    laptop.write("fill.py", FILL)
    laptop.env["COLUMNS"] = "120"
    return laptop


def test_an_older_run_is_compared_with_a_newer_one(bench: Laptop) -> None:
    for milliseconds in ("2.0", "1.0"):
        assert 0 == bench.inv("bench.fill", "--ms", milliseconds).returncode
    older = min(path.name for path in (bench.root / ".remote/runs").iterdir())

    done = bench.inv("bench.compare", older, "last")

    assert 0 == done.returncode, done.stderr
    assert re.search(r"gemm +2\.00 ms +1\.00 ms +2x \[1\.97, 2\.03\] +faster", done.stdout), done.stdout
    assert f"last to {older}: 1 faster, 0 same, 0 slower; 2x in the geometric mean" in done.stdout
    page = (bench.root / "cache/comparison.html").read_text()
    assert (True, True, False) == (older in page, "1.97, 2.03" in page, "http://" in page)


def test_more_than_two_hosts_are_compared_with_the_first(bench: Laptop) -> None:
    for host, milliseconds in (("trn1", "2.0"), ("trn2", "2.01"), ("trn3", "4.0")):
        words = ["bench.fill", "--ms", milliseconds, "--local-dir", f"cache/{host}"]
        assert 0 == bench.inv(*words).returncode

    done = bench.inv("bench.compare", "trn1", "trn2", "trn3", "--json")

    (row,) = json.loads(done.stdout)
    assert ["same", "slower"] == [ratio["verdict"] for ratio in row["ratios"]]


def test_a_side_that_is_nothing_is_said_with_what_to_do(bench: Laptop) -> None:
    done = bench.inv("bench.compare", "trn1", "trn2")

    assert (64, "compare: trn1: no run was started from here") == (
        done.returncode,
        done.stderr.splitlines()[0],
    )


def test_all_benchmarks_run_though_one_fails(bench: Laptop) -> None:
    done = bench.inv("bench.all")

    assert (1, True, "failed: bench.fail (1)") == (
        done.returncode,
        (bench.root / "cache/gemm/8x8_8x8/perf_metrics.json").exists(),
        done.stderr.splitlines()[-1],
    )
