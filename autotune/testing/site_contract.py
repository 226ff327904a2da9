"""What every site must do: a test class to inherit from."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from autotune.backends import Artifact
from autotune.model.errors import AutotuneError
from autotune.model.trial import Status
from autotune.sites.site import Site
from autotune.testing.candidates import Candidates

_SMALL_BYTES = 10_000


class SiteContract:
    """Inherit from it, and define the fixture `opened`: candidates, and a site that is open for their kernel.

    class TestMine(SiteContract):
        @pytest.fixture
        def opened(self) -> Iterator[tuple[Candidates, Site]]:
            candidates = Candidates(CBackend(), C_SOURCES)
            with MySite(candidates.kernel(), INPUTS, candidates.backend, BRIEF) as site:
                yield candidates, site
    """

    def test_it_builds_several_at_once(self, opened: tuple[Candidates, Site]) -> None:
        """In any order, each with its own outcome."""
        candidates, site = opened
        names = ("right", "compile_error", "wrong")
        built = {name: site.build(candidates.sources[name]) for name in names}
        ended = {name: future.result().status for name, future in built.items()}
        assert {"right": Status.OK, "compile_error": Status.COMPILE_ERROR, "wrong": Status.OK} == ended

    def test_only_small_records_travel(self, opened: tuple[Candidates, Site]) -> None:
        """Tensors stay where they are."""
        candidates, site = opened
        built = site.build(candidates.sources["right"]).result()
        ran = site.measure(self._artifact(opened, "right"))
        assert len(json.dumps([asdict(built), asdict(ran)], default=str)) < _SMALL_BYTES

    def test_it_tells_right_from_wrong(self, opened: tuple[Candidates, Site]) -> None:
        """By its own golden, after every failure too."""
        _, site = opened
        for name, ends in (("wrong", Status.WRONG_OUTPUT), ("crash", Status.CRASH), ("right", Status.OK)):
            assert ends is site.measure(self._artifact(opened, name)).status

    def test_a_second_measurement_is_like_the_first(self, opened: tuple[Candidates, Site]) -> None:
        """As the confirmation needs it, in other memory."""
        _, site = opened
        artifact = self._artifact(opened, "right")
        first = site.measure(artifact)
        site.place_anew()
        again = site.measure(artifact, again=True)
        assert (Status.OK, Status.OK) == (first.status, again.status)
        assert first.samples_ms and again.samples_ms

    def test_what_was_discarded_can_be_built_again(self, opened: tuple[Candidates, Site]) -> None:
        """The artifact is another folder, or the same one made anew."""
        _, site = opened
        site.discard(self._artifact(opened, "right"))
        assert Status.OK is site.measure(self._artifact(opened, "right")).status

    def test_nothing_is_built_once_it_is_closed(self, opened: tuple[Candidates, Site]) -> None:
        """An error says so; nothing waits for ever."""
        candidates, site = opened
        site.close()
        with pytest.raises(AutotuneError):
            site.build(candidates.sources["right"]).result(timeout=60)

    @staticmethod
    def _artifact(opened: tuple[Candidates, Site], name: str) -> Artifact:
        candidates, site = opened
        artifact = site.build(candidates.sources[name]).result().artifact
        assert artifact is not None
        return artifact
