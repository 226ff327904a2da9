"""Ranking configs by estimates: how each may end, what is kept, and that nothing passes for a measurement."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autotune import nki_script, script
from autotune.__main__ import main
from autotune.backends import get
from autotune.estimating import Estimated, Ranking, rank, store
from autotune.estimating.result import behind, winner
from autotune.kernels import gemm
from autotune.model.budget import Budget, Limits
from autotune.model.errors import UsageError
from autotune.model.kernel import Inputs, Kernel, Specs, TensorSpec
from autotune.model.space import Config, SearchSpace
from autotune.model.trial import Status
from autotune.nki.timing.costs import MODEL_VERSION

TEXT = '''
import os, time
import nki, nki.isa as nisa, nki.language as nl


@nki.jit
def double(x, kind, copies):
    """Return 2 x, in one of several ways to go wrong."""
    if kind == "crash":
        os._exit(3)
    if kind == "hang":
        time.sleep(600)
    if kind == "error":
        raise RuntimeError("as asked")
    if kind == "memory":
        held = bytearray(8 << 30)
    rows = 129 if kind == "invalid" else 128
    tile = nl.ndarray((rows, 64), dtype=x.dtype, buffer=nl.sbuf)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=tile, src=x)
    for _ in range(copies):
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=1.0)
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=3.0 if kind == "wrong" else 2.0)
    nisa.dma_copy(dst=out, src=tile)
    return out
'''
SPECS = (TensorSpec("x", (128, 64)),)
LIMITS = Limits(run_s=4, memory_bytes=2 << 30)


def source(config: Config, _inputs: Specs, _outputs: Specs) -> str:
    if config["kind"] == "rejected":
        raise ValueError("not this one")
    return f"{TEXT}\n\nKERNEL = double\nCONFIG = {dict(config)!r}\n"


def kernel(kinds: Sequence[str], copies: Sequence[int] = (0,)) -> Kernel:
    """Return a kernel whose configs end in the given ways."""
    return Kernel(
        name="double",
        entry="double",
        generators={"nki": source},
        outputs=lambda specs: (replace(specs[0], name="out"),),
        golden=lambda x: (2 * x,),
        space=lambda _specs: SearchSpace({"kind": list(kinds), "copies": list(copies)}),
    )


def ranked(folder: Path, kinds: Sequence[str], copies: Sequence[int] = (0,), trials: int = 100) -> Ranking:
    return rank(kernel(kinds, copies), Inputs(SPECS), budget=Budget(trials, limits=LIMITS), cache_dir=folder)


def test_every_config_ends_in_a_status(tmp_path: Path) -> None:
    kinds = ("right", "wrong", "crash", "hang", "error", "memory", "invalid", "rejected")
    found = ranked(tmp_path, kinds)
    ends = {str(each.config["kind"]): (each.status, each.message) for each in found.estimates}
    assert {
        "right": Status.OK,
        "wrong": Status.WRONG_OUTPUT,
        "crash": Status.CRASH,
        "hang": Status.TIMEOUT,
        "error": Status.ERROR,
        "memory": Status.OUT_OF_MEMORY,
        "invalid": Status.INVALID,
        "rejected": Status.INVALID,
    } == {kind: status for kind, (status, _) in ends.items()}
    assert "elements wrong" in ends["wrong"][1]
    assert "exit code 3" in ends["crash"][1]
    assert "no reply within 4 s" in ends["hang"][1]
    assert "RuntimeError: as asked" in ends["error"][1]
    assert ends["invalid"][1].startswith("candidate.py:18: tile has 129 partitions")
    assert "not this one" in ends["rejected"][1]
    assert found.best is not None
    assert "right" == found.best.config["kind"]


def test_the_fastest_right_one_is_the_best(tmp_path: Path) -> None:
    found = ranked(tmp_path, ("wrong", "right"), (0, 2, 40))
    assert found.best is not None
    assert {"kind": "right", "copies": 0} == found.best.config
    ends = [(each.config["copies"], each.config["kind"]) for each in found.estimates if each.checked]
    assert [(0, "right"), (2, "right"), (40, "right")] == ends
    assert found.best.checked
    assert [2] == [each.config["copies"] for each in found.ties]  # 40 copies are more than a fifth slower
    assert "CONFIG = {'kind': 'right', 'copies': 0}" in found.source


def test_without_a_right_one_there_is_no_best(tmp_path: Path) -> None:
    found = ranked(tmp_path, ("wrong",))
    assert found.best is None
    assert "no config is both estimated and right" in found.notes


def test_a_second_run_takes_what_is_known(tmp_path: Path) -> None:
    first = ranked(tmp_path, ("right", "invalid"), (0, 1), trials=2)
    assert 2 == first.new
    second = ranked(tmp_path, ("right", "invalid"), (0, 1))
    assert 2 == second.new
    third = ranked(tmp_path, ("right", "invalid"), (0, 1))
    assert 0 == third.new
    assert second.estimates == third.estimates


def test_what_is_kept_says_that_it_is_estimated(tmp_path: Path) -> None:
    found = ranked(tmp_path, ("right", "invalid"))
    path = found.folder / store.ESTIMATES
    assert tmp_path / "double" / "128x64" / "estimates.json" == path
    assert [path] == list(path.parent.iterdir())  # nothing that stands for a measurement
    record = json.loads(path.read_text())
    assert MODEL_VERSION == record["model"]
    assert record["note"].endswith("nothing was run on a NeuronCore")
    assert "trn2" == record["target"]
    best = record["estimates"][0]
    assert best["estimated_us"] == best["by_profile"]["nominal"] > 0
    assert best["low_us"] <= best["estimated_us"] <= best["high_us"]
    assert not [name for name in best if name.endswith("_ms")]
    assert record["estimates"][1]["estimated_us"] is None


@pytest.mark.parametrize("content", ["", "[1]", '{"schema": 99}', '{"schema": 1, "estimates": [{"us": 1}]}'])
def test_a_file_that_is_not_ours_is_set_aside(content: str, tmp_path: Path) -> None:
    folder = tmp_path / "double" / "128x64"
    folder.mkdir(parents=True)
    (folder / store.ESTIMATES).write_text(content)
    assert {} == store.read(folder)
    assert [content] == [each.read_text() for each in folder.iterdir()]


def test_a_script_estimates_and_says_so_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = script.parser("Products.", budget=8).parse_args(
        ["--backend", "nki", "--cache-dir", str(tmp_path), "--budget", "8", "--json"]
    )
    case = script.Case(gemm.lhsT_rhs, gemm.inputs(128, 512, 128, lhs_transposed=True, dtype="bfloat16"))
    assert 0 == script.main(flags, [case])
    out, err = capsys.readouterr()
    assert err.splitlines()[0].startswith("estimated by a model; nothing was run on a NeuronCore")
    assert "estimated us" in err
    told = json.loads(out)
    assert told["estimated"] is True
    assert told["workloads"][0]["best"]["checked"] is True
    assert 8 == told["workloads"][0]["new"]
    lanes = Path(told["workloads"][0]["folder"], nki_script.LANES).read_text()
    assert "nothing on this page was run on a NeuronCore" in lanes


def test_tune_does_not_take_estimates_for_measurements() -> None:
    with pytest.raises(UsageError, match=r"estimates, and tune\(\) measures"):
        get("nki_sim")


def test_outputs_are_those_of_the_golden(tmp_path: Path) -> None:
    twice = replace(kernel(("right",)), golden=lambda x: (np.zeros_like(x),))
    found = rank(twice, Inputs(SPECS), cache_dir=tmp_path)
    assert [Status.WRONG_OUTPUT] == [each.status for each in found.estimates]


def test_the_report_shows_estimates_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ranked(tmp_path, ("right", "invalid"))
    assert 0 == main(["report", str(tmp_path)])
    out = capsys.readouterr().out
    assert out.startswith("double 128x64 on trn2: estimated by a model; nothing was run on a NeuronCore")
    assert "1 invalid: candidate.py:18: tile has 129 partitions" in out
    page = (tmp_path / "plots/report.html").read_text()
    assert "<h2>Estimates</h2>" in page
    assert "nothing was run on a NeuronCore" in page
    assert "estimated us" in page


def said(name: str, *us: float, checked: bool = True) -> Estimated:
    """Return an estimate under three profiles."""
    profiles = dict(zip(("nominal", "slow DMA", "slow signals"), us, strict=True))
    return Estimated({"name": name}, Status.OK, name, "", us[0], min(us), max(us), profiles, checked=checked)


def test_the_winner_is_least_behind_under_its_worst_profile() -> None:
    fast = said("fast", 100, 150, 100)
    steady = said("steady", 102, 104, 103)
    wrong = said("unchecked", 90, 90, 90, checked=False)
    assert {"fast": pytest.approx(0.4423, abs=1e-4), "steady": pytest.approx(0.03)} == behind([fast, steady])
    assert steady == winner([fast, steady])
    assert steady == winner([wrong, fast, steady])
    assert winner([wrong]) is None
