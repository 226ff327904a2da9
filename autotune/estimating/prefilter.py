"""Measure what the model lets pass, in the order of its estimates; then say how far the model was off."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from autotune.estimating.result import Estimated
from autotune.estimating.search import Ranking
from autotune.model.fingerprint import digest
from autotune.model.kernel import Kernel, Specs
from autotune.model.space import Config, SearchSpace, Value
from autotune.model.trial import Status, Trial
from autotune.search import Observation


@dataclass(frozen=True)
class Compared:
    """One config, estimated and measured.

    Args:
        config: the config.
        estimated_us: microseconds by the model.
        measured_us: the median by the core's clock.
    """

    config: Config
    estimated_us: float
    measured_us: float

    @property
    def error(self) -> float:
        """How far the estimate is off, as a fraction of the measurement; more than 0 if it is too long."""
        return self.estimated_us / self.measured_us - 1

    @property
    def in_words(self) -> str:
        """Return both times and the error: `12.0 us estimated, 10.0 us measured (+20.0%)`."""
        return f"{self.estimated_us:.1f} us estimated, {self.measured_us:.1f} us measured ({self.error:+.1%})"


class InOrder:
    """A strategy that proposes given configs, the first one first, and no others.

    Args:
        configs: in their order.
    """

    def __init__(self, configs: Iterable[Config]) -> None:
        self._rest = iter([*configs])

    def propose(
        self, space: SearchSpace, history: Sequence[Observation], count: int
    ) -> list[dict[str, Value]]:
        """Return the next configs that are in the space and were not tried."""
        tried = {digest(dict(seen.config)) for seen in history}
        new = (dict(each) for each in self._rest if digest(dict(each)) not in tried and each in space)
        return [*itertools.islice(new, count)]


def filtered(kernel: Kernel, ranking: Ranking, backend: str) -> tuple[Kernel, InOrder]:
    """Return the kernel to measure, and the order of its configs.

    Its generator rejects what the target does not have, with the kernel's line: such a config is recorded as
    `invalid`, and neither compiled nor run. They come last, after those that the model knows no time of.

    Args:
        kernel: the kernel that was ranked.
        ranking: its estimates.
        backend: that measures.
    """
    refused = {
        digest(dict(each.config)): each.message for each in ranking.estimates if each.status is Status.INVALID
    }
    generator = kernel.generators[backend]

    def source(config: Config, inputs: Specs, outputs: Specs) -> str:
        if reason := refused.get(digest(dict(config))):
            raise ValueError(reason.splitlines()[0])
        return generator(config, inputs, outputs)

    order = sorted(ranking.estimates, key=lambda each: (each.status is Status.INVALID, each.us))
    chosen = replace(kernel, generators={**kernel.generators, backend: source})
    return chosen, InOrder(each.config for each in order)


def compared(estimates: Iterable[Estimated], trials: Iterable[Trial]) -> tuple[Compared, ...]:
    """Return the configs that were estimated and measured, in the order of the trials."""
    known: Mapping[str, Estimated] = {digest(dict(each.config)): each for each in estimates}
    return tuple(
        Compared(trial.config, each.estimated_us, reading.median_ms * 1e3)
        for trial in trials
        if (reading := trial.best_reading)
        and (each := known.get(digest(dict(trial.config))))
        and each.estimated_us
    )


def summary(found: Sequence[Compared]) -> str:
    """Say in one line how far the model was off on this machine; empty if nothing can be compared."""
    if not found:
        return ""
    errors = [abs(each.error) for each in found]
    return (
        f"the model against {len(found)} measured configs: off by {median(errors):.1%} in the median, "
        f"{max(errors):.1%} at most"
    )
