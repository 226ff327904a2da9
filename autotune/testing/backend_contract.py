"""What every backend must do, whatever its candidates do: a test class to inherit from."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from autotune.backends.travel import Sent, pack, unpack
from autotune.model.budget import Budget, Limits
from autotune.model.errors import DeviceLostError
from autotune.model.trial import Status
from autotune.sites.local import LocalSite
from autotune.sites.site import RunOutcome
from autotune.testing.candidates import BRIEF, INPUTS, REQUIRED, WAYS, Candidates, Way
from autotune.tuner import tune

_RUN_S = 1.5


class BackendContract:
    """Inherit from it, and define the fixture `candidates`:

    class TestMine(BackendContract):
        @pytest.fixture(scope="class")
        @classmethod
        def candidates(cls) -> Candidates:
            return Candidates(MyBackend(), {"right": "...", "wrong": "...", ...})
    """

    @pytest.fixture(scope="class")
    @classmethod
    def site(cls, candidates: Candidates) -> Iterator[LocalSite]:
        """Return the site of the backend's first device, with limits that are soon reached."""
        backend, device = candidates.backend, candidates.backend.devices()[0]
        with LocalSite(
            candidates.kernel(), INPUTS, backend, BRIEF, limits_of(candidates), 1, device
        ) as opened:
            yield opened

    def test_there_are_candidates_of_the_kinds_that_matter(self, candidates: Candidates) -> None:
        """Everything else is left out if the backend has no such candidate."""
        assert set() == REQUIRED - candidates.sources.keys()
        assert set() == candidates.sources.keys() - {"right", *(way.name for way in WAYS)}

    def test_it_arrives_in_another_process_as_it_was(self, candidates: Candidates) -> None:
        """Its class is found by name, and its fields go through JSON."""
        sent = Sent(**json.loads(json.dumps(asdict(pack(candidates.backend)))))
        assert (type(candidates.backend), candidates.backend) == (type(unpack(sent)), unpack(sent))

    def test_its_fingerprint_is_text_and_stays(self, candidates: Candidates) -> None:
        """It decides whether earlier results count."""
        found = candidates.backend.fingerprint()
        assert found == candidates.backend.fingerprint()
        assert "version" in found
        assert all(isinstance(text, str) for pair in found.items() for text in pair)

    def test_its_devices_have_names(self, candidates: Candidates) -> None:
        """Each once, and without what separates them in `--devices`."""
        devices = candidates.backend.devices()
        assert len(devices) == len(set(devices)) >= 1
        assert all(name and not set(name) & set(", ") and name != "all" for name in devices)

    def test_an_artifact_is_a_folder_of_one_source(self, candidates: Candidates, site: LocalSite) -> None:
        """It has the name of what decides it, and is gone once it is discarded."""
        sources = candidates.sources["right"], candidates.sources["wrong"]
        right, wrong, again = (site.build(source).result().artifact for source in (*sources, sources[0]))
        assert right is not None and wrong is not None
        assert (True, right) == (right.folder != wrong.folder, again)
        assert Path(right.path).exists()
        for each in (right, right, wrong):
            site.discard(each)
        assert (False, False) == (Path(right.folder).exists(), Path(wrong.folder).exists())

    def test_a_right_candidate_is_timed(self, candidates: Candidates, site: LocalSite) -> None:
        """By the device's clock, or the processor's."""
        outcome = measured(site, candidates.sources["right"])
        assert (Status.OK, "", None) == (outcome.status, outcome.message, outcome.mismatch)
        assert BRIEF.min_repeats == len(outcome.samples_ms)
        assert all(sample > 0 for sample in outcome.samples_ms)

    @pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
    def test_a_way_to_go_wrong(self, way: Way, candidates: Candidates, site: LocalSite) -> None:
        """It ends as it should, and the next candidate is right."""
        if way.name not in candidates.sources:
            pytest.skip(f"no candidate of this backend {way.what}")
        outcome = measured(site, candidates.sources[way.name])
        assert outcome.status in way.ends, outcome
        assert (outcome.status is Status.OK) == bool(outcome.samples_ms)
        assert (outcome.status is Status.OK) == (outcome.message == "")
        assert 1 >= len(outcome.message.splitlines())
        if way.name == "prints":
            assert "tile 4\n" == outcome.log
        if way.name == "files":
            assert [] == os.listdir(outcome.log.strip())  # noqa: PTH208
        if way.name == "child":
            assert is_gone(int(outcome.log))
        right = measured(site, candidates.sources["right"])
        assert (Status.OK, "") == (right.status, right.log), right

    def test_a_device_that_fails_is_not_the_candidates_fault(self, candidates: Candidates) -> None:
        """It is used no more."""
        if not candidates.fault:
            pytest.skip("this backend raises no DeviceFault")
        limits, backend = limits_of(candidates), candidates.backend
        with LocalSite(candidates.kernel(), INPUTS, backend, BRIEF, limits, 1, backend.devices()[0]) as site:
            for source in (candidates.fault, candidates.sources["right"]):
                with pytest.raises(DeviceLostError):
                    measured(site, source)

    def test_a_search_survives_them(self, candidates: Candidates, tmp_path: Path) -> None:
        """Each is recorded as what it did, and the right one is found."""
        chosen = replace(candidates, sources={name: candidates.sources[name] for name in sorted(REQUIRED)})
        budget = Budget(limits=replace(limits_of(candidates), run_s=0.5))
        found = tune(
            chosen.kernel(), INPUTS, backend=chosen.backend, budget=budget, cache_dir=tmp_path, timing=BRIEF
        )
        ended = {str(trial.config["source"]): trial.status for trial in found.trials}
        assert {
            "right": Status.OK,
            **{way.name: way.ends[0] for way in WAYS if way.name in REQUIRED},
        } == ended
        assert found.best is not None


def limits_of(candidates: Candidates) -> Limits:
    """Return limits that are soon reached; those of memory only if the backend has one."""
    own = candidates.backend.limits()
    memory_bytes = min(own.memory_bytes, 96 << 20)
    return replace(own, run_s=_RUN_S, memory_bytes=memory_bytes, output_bytes=10_000)


def measured(site: LocalSite, source: str) -> RunOutcome:
    """Build a candidate and measure it; discard it."""
    built = site.build(source).result()
    if built.artifact is None:
        return RunOutcome(built.status, built.message, built.log)
    try:
        return site.measure(built.artifact)
    finally:
        site.discard(built.artifact)


def is_gone(pid: int) -> bool:
    """Wait up to a minute for a process to end."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":  # its parent is a process of the device, which need not care for it
            return True
        time.sleep(0.01)
    return False
