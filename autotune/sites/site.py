"""What a site is: one device, here or elsewhere, where candidates are built, run, checked and timed.

A site owns the inputs and the golden, so only small records travel to it and back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from autotune.backends import Artifact
from autotune.model.errors import DeviceLostError
from autotune.model.timing import Timing
from autotune.model.trial import Status
from autotune.sites.correctness import Golden, Mismatch


@dataclass(frozen=True)
class BuildOutcome:
    """How one compilation ended.

    Args:
        status: ok, compile_error, compile_timeout, out_of_memory or error.
        artifact: what this site can measure, and no other; None unless ok.
        message: one line that says what failed.
        log: the command, and what the compiler printed.
        seconds: how long the compiler took; 0 if the object existed.
    """

    status: Status
    artifact: Artifact | None
    message: str = ""
    log: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class RunOutcome:
    """How one run ended.

    Args:
        status: ok, crash, timeout, out_of_memory, wrong_output, implausible or error.
        message: one line that says what failed.
        log: what the candidate printed.
        samples_ms: milliseconds per call of every repeat, in the order taken, outliers included; empty unless
            ok.
        calls: calls that each sample is the mean of.
        mismatch: the first wrong output, if the status is wrong_output.
        waited: time that it waited for a core, as a fraction of the time that it was timed.
    """

    status: Status
    message: str = ""
    log: str = ""
    samples_ms: tuple[float, ...] = ()
    calls: int = 1
    mismatch: Mismatch | None = None
    waited: float = 0.0


class Site(Protocol):
    """One device. `build` may be called from any thread, the others from one thread at a time."""

    @property
    def device(self) -> str:
        """The device's name, of `Backend.devices`."""
        ...

    @property
    def golden(self) -> Golden:
        """The right outputs."""
        ...

    def build(self, source: str) -> Future[BuildOutcome]:
        """Start to compile a candidate; one that was built before is used again."""
        ...

    def discard(self, artifact: Artifact) -> None:
        """Remove an artifact once all who had it built discard it; a candidate can be built again."""
        ...

    def measure(self, artifact: Artifact, timing: Timing | None = None, *, again: bool = False) -> RunOutcome:
        """Check a candidate against the golden, then time it.

        Args:
            artifact: what `build` made.
            timing: replaces the default for this measurement.
            again: it was measured before: leave out the calls with spare copies of the outputs.

        Raises:
            DeviceLostError: the device failed, and not the candidate.
        """
        ...

    def baseline(self, name: str, threads: int = 0, timing: Timing | None = None) -> RunOutcome:
        """Check and time one of the kernel's baselines.

        Args:
            name: of the baseline.
            threads: of NumPy's BLAS; 0 for its own default.
            timing: replaces the default for this measurement.

        Raises:
            UsageError: the kernel has none of this name.
        """
        ...

    def place_anew(self) -> None:
        """Move the tensors to other pages of memory, so that their place is not the same in every turn."""
        ...

    def close(self) -> None:
        """End every process; futures that have not ended are cancelled."""
        ...


class Sites:
    """The sites of one search: a context manager, which opens them when the first one is needed.

    Args:
        devices: the name of each; one at the least.
        open_site: opens the site of a device; it gets those that are open already.
    """

    def __init__(self, devices: Sequence[str], open_site: Callable[[str, Sequence[Site]], Site]) -> None:
        self.devices, self._open_site = tuple(devices), open_site
        self._opened: list[Site] = []
        self._lost: dict[str, str] = {}

    def __enter__(self) -> Sites:
        """Return itself."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Close all."""
        for site in self._opened:
            site.close()

    def usable(self) -> list[Site]:
        """Return the sites whose devices have not failed.

        Raises:
            DeviceLostError: all have failed.
        """
        for device in self.devices[len(self._opened) :]:
            self._opened.append(self._open_site(device, self._opened))
        left = [site for site in self._opened if site.device not in self._lost]
        if not left:
            advice = "what is recorded is kept: run again to continue"
            raise DeviceLostError(f"no device is left: {'; '.join(self.notes())}. {advice}")
        return left

    def lose(self, site: Site, reason: str) -> None:
        """Use a site no more."""
        self._lost[site.device] = reason

    def notes(self) -> list[str]:
        """Say which devices failed, and why."""
        return [f"device {device} is used no more: {reason}" for device, reason in self._lost.items()]
