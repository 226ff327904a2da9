"""The vector machine keeps the contract of backends; run where this package and autotune are installed."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from vector_machine import VectorMachine

from autotune import Status, report, tune
from autotune.testing import BackendContract, Candidates
from autotune.testing.candidates import BRIEF, INPUTS

SOURCES = {
    "right": "add",
    "compile_error": "subtract",
    "exception": "divide",
    "interrupt": "interrupt",
    "crash": "trap",
    "abort": "abort",
    "kill": "kill",
    "exit": "exit 0",
    "exit_code": "exit 9",
    "quick_exit": "quick_exit",
    "hang": "spin",
    "sleep": "sleep",
    "memory": "full",
    "output": "print_on",
    "wrong": "copy",
    "nan": "nan",
    "unwritten": "nop",
    "tail": "add 0 992",
    "first_call": "add_if_first",
    "later": "add\nspoil_after 3",
    "outside": "add\npoke 1000",
    "far_outside": "add\npoke 1900",
    "input": "add\npoke_input",
    "prints": "add\nsay 4",
}


class TestVectorMachine(BackendContract):
    """One card."""

    @pytest.fixture(scope="class")
    @classmethod
    def candidates(cls) -> Candidates:
        """Return programs."""
        return Candidates(VectorMachine(lanes=4), SOURCES, fault="burn")


def test_its_own_cycles_are_the_time(tmp_path: Path) -> None:
    candidates = Candidates(VectorMachine(lanes=10), {"right": "add", "slow": "nop\nadd"})
    found = tune(candidates.kernel(), INPUTS, backend=candidates.backend, cache_dir=tmp_path, devices="all")
    assert [("right", 120e-6), ("slow", 240e-6)] == [
        (trial.config["source"], trial.metrics.median_ms) for trial in found.trials
    ]
    table = io.StringIO()
    report.print_table([report.load(found.folder / "perf_metrics.json")], table)
    head, _, row, *_ = table.getvalue().splitlines()
    assert ("83.3%", True) == (f"{1000 / 120 / 10:.1%}", "MFU" in head and "83.3%" in row)


def test_a_third_of_hostile_programs_costs_little(tmp_path: Path) -> None:
    hostile = ("trap", "abort", "divide", "quick_exit", "copy", "full")
    sources = {f"right{i}": "\n".join(["add"] * (i + 1)) for i in range(12)}
    sources |= {name: name for name in hostile}
    candidates = Candidates(VectorMachine(), sources)
    begin = time.monotonic()
    found = tune(candidates.kernel(), INPUTS, backend=candidates.backend, cache_dir=tmp_path, timing=BRIEF)
    print(f"18 configs in {time.monotonic() - begin:.2f} s")
    assert (18, 12) == (len(found.trials), sum(trial.status is Status.OK for trial in found.trials))
    assert {"source": "right0"} == found.best.config
