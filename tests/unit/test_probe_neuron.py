"""The doctor's rows on a Neuron host, with the stand-ins for its SDK."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from remote_tools.host import neuron, probe

sys.path.append(str(Path(__file__).parent / "autotune"))
import neuronx

NAMES = ("neuron compiler", "neuron runtime", "neuron cores")


def rows() -> dict[str, tuple[str, str, int]]:
    """Run the checks; return what each has seen, its hint, and its exit code."""
    checks = {name: probe.CHECKS[name] for name in NAMES}
    found = probe.examine(checks, {"venv_path": None, "python": sys.executable})  # type: ignore[type-var]
    return {row["name"]: (row["seen"], row["hint"], row["code"]) for row in found}


def test_another_host_has_no_such_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert {} == rows()


def test_a_neuron_host_names_both_interpreters_and_who_holds_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pythons = neuronx.install(tmp_path)
    state = tmp_path / "state"
    state.mkdir()
    monkeypatch.setenv("PATH", f"{Path(pythons['runs']).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("NEURONX_STATE", str(state))
    missing = rows()
    hint = "export AUTOTUNE_NEURON_COMPILE_PYTHON=<venv>/bin/python on the host"
    assert (f"{sys.executable} has no nki of the Neuron SDK", 0) == missing["neuron compiler"][::2]
    assert missing["neuron compiler"][1].startswith(hint)
    assert missing["neuron runtime"][0].startswith(f"{sys.executable} has no nrtpy or spike; aws-neuronx")

    monkeypatch.setenv(neuron.COMPILE_PYTHON, pythons["compiles"])
    monkeypatch.setenv(neuron.RUN_PYTHON, pythons["runs"])
    (state / "held.json").write_text(json.dumps({"1": [{"pid": 1 << 30, "command": "train.py"}]}))
    well = rows()
    assert (f"nki 0.6.0, neuronx-cc 2.27.1 in {pythons['compiles']}", "", 0) == well["neuron compiler"]
    assert well["neuron runtime"][0].startswith(f"nrtpy 2.32.0 in {pythons['runs']}; aws-neuronx-runtime-lib")
    who = f"4, 5, 6, 7 held by process {1 << 30} (train.py)"
    assert (f"4 of 8 free, LNC 2; {who}; {neuron.NEVER_RUN}", "", 0) == well["neuron cores"]
