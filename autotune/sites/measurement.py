"""Measurement: one candidate is called, its outputs are checked, and its calls are timed.

Nothing that a candidate does may make it look better than it is. So the outputs are poisoned before each
batch of calls and checked after it. Some calls write to other copies of the outputs. All threads of the
candidate stand still while its outputs are read. The kernel's clock bounds the candidate's own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from autotune.model.budget import Limits
from autotune.model.errors import DeviceLostError
from autotune.model.timing import Timing
from autotune.model.trial import Status
from autotune.sites.correctness import Golden, Mismatch
from autotune.sites.messages import MAX_SAMPLES, Call, Called
from autotune.sites.poison import TURNS
from autotune.sites.sampling import Samples, sample
from autotune.sites.segment import Segment

_SPARE_NS = 2_000_000  # for calls that write to spare copies, of which there is at least one
_SHORT_NS = 1_000_000  # a call this long does not notice that the outputs were poisoned by another core
_OVERHEAD_NS = 500_000  # of one command: what a process does beside calling the candidate
_WAKING_NS = 300_000  # of one command: until the compilers stand still, and the candidate has a core
_CLOCK = 1.5  # times what the candidate's clock counted: more cannot be explained
_RESTORED_BYTES_PER_NS = 4.0  # at the least: it only limits how many samples are taken
_RESTORING = 3  # times what restoring inputs takes if nothing is called between: then they stay in the caches


class Failed(Exception):
    """The candidate failed.

    Attributes:
        status: crash, timeout, out_of_memory, wrong_output, implausible or error.
        mismatch: the first wrong output, if that is what failed.
    """

    def __init__(self, status: Status, message: str, mismatch: Mismatch | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.mismatch = mismatch


class Measurement:
    """The measurement of one candidate that is loaded.

    Args:
        call: has the keeper call it.
        segment: its tensors.
        golden: the right outputs.
        limits: what it may use.
        rng: chooses the elements of large outputs that are checked after each batch.
    """

    def __init__(
        self,
        call: Callable[[Call], Called],
        segment: Segment,
        golden: Golden,
        limits: Limits,
        rng: np.random.Generator,
    ) -> None:
        self._call, self._segment, self._golden, self._limits = call, segment, golden, limits
        self._rng = rng
        self._turn = 0
        self._claimed_ns = self._ran_ns = self._waited_ns = self._allowed_ns = 0.0
        self._restored = 0

    @property
    def waited(self) -> float:
        """The time that the candidate waited for a core, as a fraction of the time that it was timed.

        If it changes inputs, the time in which they were restored counts too: it may have waited then.
        """
        return self._waited_ns / max(self._claimed_ns, self._ran_ns if self._segment.restored else 1.0, 1.0)

    def run(self, timing: Timing, *, again: bool = False) -> Samples:
        """Check the candidate, time it, and check it once more, with spare copies of the outputs.

        Args:
            timing: how to time it. A first call that takes longer than all samples may is the only sample.
            again: it was measured before: leave out the spare copies.

        Raises:
            Failed: it did not return, or an output is wrong, or its clock is.
            DeviceLostError: the device failed, not the candidate.
        """
        (once_ns,) = self._checked(Call(self._limits.run_s, samples=1), sampled=False)
        taken = Samples([once_ns], 1)
        if once_ns < timing.max_s * 1e9 or timing.caches == "cold":
            time_it = functools.partial(self._time, timing, once_ns)
            restore_ns = sum(size for *_, size in self._segment.restored) / _RESTORED_BYTES_PER_NS
            taken = sample(time_it, timing, max(once_ns, 1), restore_ns)
            if self._ran_longer():  # once may be the machine's fault
                self._claimed_ns = self._ran_ns = self._waited_ns = self._allowed_ns = 0.0
                self._restored = 0
                taken = sample(time_it, timing, max(once_ns, 1), restore_ns)
                self._check_clock()
        if not again and self._segment.spares:
            self._call_spares(once_ns)
        elif taken.calls > 1 or len(taken.nanoseconds) > 1:
            self._checked(Call(self._limits.run_s, samples=1), sampled=True)
        return taken

    def _call_spares(self, once_ns: int) -> None:
        """Call it once for each spare copy of the outputs, as far as there is time, and check all copies."""
        count = max(1, min(self._segment.spares, _SPARE_NS // max(once_ns, 1)))
        self._turn = (self._turn + 1) % TURNS
        self._segment.poison_spares(self._turn)
        self._ok(self._call(Call(self._limits.run_s, spares=count)))
        mismatch = self._segment.stray(spares=True) or self._golden.compare_copies(
            [copies[:count] for copies in self._segment.spare_outputs], self._turn, self._rng
        )
        if mismatch:
            raise Failed(Status.WRONG_OUTPUT, str(mismatch), mismatch)

    def _time(self, timing: Timing, once_ns: int, calls: int, samples: int, cold: bool) -> list[int]:
        limit_s = self._limits.run_s + timing.max_s + timing.warmup_s
        warm = int(not cold and once_ns < _SHORT_NS)
        call = Call(limit_s, 0, warm, calls, min(samples, MAX_SAMPLES), cold, timed=True)
        return self._checked(call, sampled=True)

    def _checked(self, call: Call, *, sampled: bool) -> list[int]:
        """Poison the outputs, have the candidate called, check the outputs; return the samples."""
        places = self._golden.sample(self._rng) if sampled else ()
        self._turn = (self._turn + 1) % TURNS
        self._segment.poison(self._turn, places)
        called = self._ok(self._call(call))
        mismatch = self._segment.stray() or self._golden.compare(self._segment.outputs, self._turn, places)
        if mismatch:
            raise Failed(Status.WRONG_OUTPUT, str(mismatch), mismatch)
        self._count(call, called)
        return list(called.samples_ns)

    def _ok(self, called: Called) -> Called:
        if called.ending.status is not Status.OK:
            message = called.ending.message
            raise DeviceLostError(message) if called.lost else Failed(called.ending.status, message)
        return called

    def _count(self, call: Call, called: Called) -> None:
        """Add up the times of a command by both clocks."""
        if not call.timed or call.cold or called.ran_ns < 0:
            return  # the first command loads the candidate, and a sweep runs on its core too
        claimed = sum(called.samples_ns)
        per_call = claimed / (call.calls * call.samples)
        self._claimed_ns += claimed
        self._ran_ns += called.ran_ns
        self._waited_ns += max(0, called.waited_ns - _WAKING_NS)
        self._allowed_ns += _CLOCK * (claimed + call.warm * per_call) + _OVERHEAD_NS
        self._restored += call.warm + call.samples

    def _ran_longer(self) -> bool:
        """Return whether the candidate ran for longer than its clock, and restoring its inputs, explain."""
        if self._ran_ns > self._allowed_ns and self._segment.restored:
            call = Call(self._limits.run_s, calls=0, samples=min(self._restored, MAX_SAMPLES), timed=True)
            ran_ns = self._ok(self._call(call)).ran_ns
            self._allowed_ns += _RESTORING * self._restored * ran_ns / call.samples
        return self._ran_ns > self._allowed_ns

    def _check_clock(self) -> None:
        if self._ran_longer():
            counted, ran = self._claimed_ns / 1e6, self._ran_ns / 1e6
            raise Failed(
                Status.IMPLAUSIBLE, f"its clock counted {counted:.3g} ms while it ran for {ran:.3g} ms"
            )
