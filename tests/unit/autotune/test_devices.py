"""Several devices search together, and one that fails is used no more."""

from __future__ import annotations

import contextlib
import os
import signal
import textwrap
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from cards import Cards

from autotune import Budget, Limits, Results, Status, tune
from autotune.backends import get
from autotune.backends.numpy import NumpyBackend
from autotune.model.errors import DeviceLostError, UsageError
from autotune.sites.local import LocalSite
from autotune.testing import PYTHON_SOURCES, Candidates
from autotune.testing.candidates import BRIEF, INPUTS

RIGHT = PYTHON_SOURCES["right"]


def searched(cards: Cards, folder: Path, configs: int, devices: str | None = "all") -> Results:
    """Tune as many configs as are asked for, all of them right."""
    sources = {f"right{i}": f"{RIGHT}# {i}\n" for i in range(configs)}
    kernel = Candidates(cards, sources).kernel()
    return tune(kernel, INPUTS, backend=cards, cache_dir=folder, timing=BRIEF, devices=devices)


def test_all_devices_search_and_one_confirms(tmp_path: Path) -> None:
    note = tmp_path / "note"
    cards = Cards(note=str(note))

    found = searched(cards, tmp_path / "cache", 24)

    used = Counter(note.read_text().split())
    assert [Status.OK] * 24 == [trial.status for trial in found.trials]
    assert {"0", "1", "2"} == used.keys()
    assert sum(trial.confirmed is not None for trial in found.trials) >= 4
    assert [*note.read_text().split()[-8:]] == ["0"] * 8
    assert not [each for each in found.notes if "device" in each]


@pytest.mark.parametrize(("devices", "used"), [(None, {"0"}), ("2", {"2"}), ("2,1", {"1", "2"})])
def test_devices_are_chosen_by_name(devices: str | None, used: set[str], tmp_path: Path) -> None:
    note = tmp_path / "note"
    searched(Cards(note=str(note)), tmp_path / "cache", 12, devices)
    assert used == set(note.read_text().split())


@pytest.mark.parametrize("devices", ["3", "0,7", "0,0", "", "0,"])
def test_a_device_that_is_not_there_is_named_beside_those_that_are(devices: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not a list of devices of backend numpy.* it has 0, 1, 2"):
        searched(Cards(), tmp_path, 3, devices)


@pytest.mark.parametrize("which", ["absent", "tired"])
def test_the_configs_of_a_device_that_fails_are_tried_on_others(which: str, tmp_path: Path) -> None:
    cards = replace(Cards(), **{which: ("0", "2")})

    found = searched(cards, tmp_path, 12)

    why = {"absent": "cannot be opened: it is not there", "tired": "it is tired"}[which]
    assert [Status.OK] * 12 == [trial.status for trial in found.trials]
    assert 12 == found.measured
    assert {f"device {name} is used no more: {why}" for name in "02"} == {
        each for each in found.notes if "device" in each
    }


def test_no_config_is_blamed_if_every_device_fails(tmp_path: Path) -> None:
    broken = Cards(count=2, tired=("0", "1"))

    with pytest.raises(DeviceLostError, match=r"no device is left: .*tired.* run again to continue") as lost:
        searched(broken, tmp_path, 12)

    assert 69 == lost.value.exit_code
    assert len(list(tmp_path.rglob("performance_result.pkl"))) <= 2
    found = searched(replace(broken, tired=()), tmp_path, 12)
    assert [Status.OK] * 12 == [trial.status for trial in found.trials]


def test_a_crash_costs_one_restart_and_a_failure_none() -> None:
    backend = NumpyBackend(process="device")
    candidates = Candidates(backend, PYTHON_SOURCES)
    with LocalSite(candidates.kernel(), INPUTS, backend, BRIEF) as site:

        def process_of(source: str) -> set[int]:
            artifact = site.build(source).result().artifact
            assert artifact is not None
            site.measure(artifact)
            stopped = set()
            for each in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    stopped |= {each.pid} if each.status() == psutil.STATUS_STOPPED else set()
            return stopped

        first = process_of(RIGHT)
        same = [process_of(PYTHON_SOURCES[name]) for name in ("wrong", "exception", "exit", "prints")]
        assert [first] * 4 == same
        assert 1 == len(first)
        os.kill(*first, signal.SIGKILL)
        while psutil.Process(*first).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        second = process_of(RIGHT)
        process_of(PYTHON_SOURCES["crash"])
        third = process_of(RIGHT)
        assert 3 == len(first | second | third)


@pytest.mark.parametrize("clock", [False, True])
def test_compilers_go_on_if_the_device_has_a_clock_of_its_own(clock: bool, tmp_path: Path) -> None:
    go, timed = tmp_path / "go", tmp_path / "timed"
    waits = f"""
        import os, time
        calls = []
        def add(a, b, out):
            calls.append(1)
            out[...] = a + b
            time.sleep(0.003)
            if len(calls) > 2:
                open({str(timed)!r}, "w").close()
                while not os.path.exists({str(go)!r}): time.sleep(0.001)
    """
    backend = Cards(clock=clock)
    limits = replace(Limits(), run_s=60)
    with LocalSite(Candidates(backend, {}).kernel(), INPUTS, backend, BRIEF, limits) as site:
        artifact = site.build(textwrap.dedent(waits)).result().artifact
        assert artifact is not None
        with ThreadPoolExecutor() as thread:
            measuring = thread.submit(site.measure, artifact)
            while not timed.exists():
                time.sleep(0.01)
            building = site.build(RIGHT)
            built, _ = wait([building], 60 if clock else 0.5)
            go.touch()
            assert clock == (building in built)
            assert Status.OK is measuring.result().status


def test_a_device_has_no_limit_of_memory_unless_its_backend_says_so() -> None:
    assert (4 << 30, 4 << 30) == tuple(get(name).limits().memory_bytes for name in ("c", "numpy"))
    assert 0 == super(NumpyBackend, Cards()).limits().memory_bytes


def test_the_users_limits_win(tmp_path: Path) -> None:
    backend = NumpyBackend(process="device")
    kernel = Candidates(backend, {"sleep": "import time\ndef add(a, b, out): time.sleep(600)\n"}).kernel()
    found = tune(
        kernel,
        INPUTS,
        backend=backend,
        budget=Budget(limits=Limits(run_s=0.3)),
        cache_dir=tmp_path,
        timing=BRIEF,
    )
    assert ["did not return within 0.3 s"] == [trial.message for trial in found.trials]


def test_the_device_process_is_a_fork_without_the_tuner() -> None:
    """The keeper of a backend of ours, and all that it forks, never import the tuner itself."""
    backend = NumpyBackend(process="device")
    source = "import sys\ndef add(a, b, out):\n    print(sorted(sys.modules)); a + b\n"
    with LocalSite(Candidates(backend, {}).kernel(), INPUTS, backend, BRIEF) as site:
        artifact = site.build(source).result().artifact
        assert artifact is not None
        log = site.measure(artifact).log
    assert "autotune.backends.numpy" in log
    assert "autotune.tuner" not in log
