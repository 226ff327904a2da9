"""Our backends, sites, strategies and kernels keep the contracts that those of others are held to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from autotune.backends.c import CBackend
from autotune.backends.numpy import NumpyBackend
from autotune.sites.local import LocalSite
from autotune.sites.site import Site
from autotune.testing import C_SOURCES, PYTHON_SOURCES, BackendContract, Candidates, SiteContract
from autotune.testing.candidates import BRIEF, INPUTS


class TestC(BackendContract):
    """C, with a fork for each candidate."""

    @pytest.fixture(scope="class")
    @classmethod
    def candidates(cls) -> Candidates:
        """Return C candidates."""
        return Candidates(CBackend(), C_SOURCES)


class TestNumpy(BackendContract):
    """Python, with a fork for each candidate."""

    @pytest.fixture(scope="class")
    @classmethod
    def candidates(cls) -> Candidates:
        """Return Python candidates."""
        return Candidates(NumpyBackend(), PYTHON_SOURCES)


class TestNumpyInOneProcess(BackendContract):
    """Python, all candidates in the process of their device."""

    @pytest.fixture(scope="class")
    @classmethod
    def candidates(cls) -> Candidates:
        """Return Python candidates."""
        return Candidates(NumpyBackend(process="device"), PYTHON_SOURCES)


class TestLocalSite(SiteContract):
    """Forks on this machine, and a device's process."""

    @pytest.fixture(params=["c", "numpy", "device"])
    def opened(self, request: pytest.FixtureRequest) -> Iterator[tuple[Candidates, Site]]:
        """Open one."""
        device = NumpyBackend(process="device")
        made = {
            "c": Candidates(CBackend(), C_SOURCES),
            "numpy": Candidates(NumpyBackend(), PYTHON_SOURCES),
            "device": Candidates(device, PYTHON_SOURCES),
        }
        candidates = made[request.param]
        with LocalSite(candidates.kernel(), INPUTS, candidates.backend, BRIEF) as site:
            yield candidates, site
