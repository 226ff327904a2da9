"""Predict: the config to use, for shapes that were tuned and for those that never were."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from autotune.model.kernel import Inputs, Kernel, Specs, TensorSpec
from autotune.model.space import Config, SearchSpace, Value
from autotune.model.trial import Status, Trial
from autotune.search.gaussian_process import Distance, Posterior
from autotune.store import cache, summary
from autotune.store.results import backend_of, best_of_backend, median_ms

Origin = Literal["exact", "nearest", "model"]

_NEAR = 0.75  # the best of a tuned shape is used as it is if the shapes differ by no more doublings in all
_CANDIDATES = 4_096  # configs of the new shape that the model compares
_TRIALS = 400  # that it learns from, the same number of each tuned shape, the fastest and others alike
_STEPS = 20  # gradients for its weights
_SHAPE_STEPS = 2  # places in the model for each doubling of an extent


@dataclass(frozen=True)
class Choice:
    """A config to use, and its origin.

    Args:
        config: the config.
        origin: `exact` if exactly these inputs were tuned; `nearest` if it is the best of the nearest tuned
            shape; `model` if a model of all tuned shapes chose it.
        shapes: the workloads that it comes from, nearest first.
        backend: the backend that it is for.
    """

    config: dict[str, Value]
    origin: Origin
    shapes: tuple[str, ...]
    backend: str


@dataclass(frozen=True)
class _Tuned:
    """A tuned workload, as the model needs it."""

    shapes: str
    inputs: Specs
    doublings: NDArray[np.float64]
    best: Trial
    trials: tuple[Trial, ...]


def best_config(
    kernel: Kernel,
    inputs: Inputs,
    cache_dir: str | os.PathLike[str] | None = None,
    backend: str | None = None,
) -> Choice | None:
    """Return the best config known for inputs, or the one likely to be best if they were never tuned.

    Args:
        kernel: the kernel.
        inputs: the tensors; shapes may be new, dtypes and ranks are those that were tuned.
        cache_dir: the cache root; $AUTOTUNE_CACHE_DIR, else ~/.cache/autotune, by default.
        backend: the backend that will run it, the kernel's first by default; no other's configs are used.

    Returns:
        The config and its origin; None if the cache has nothing of this kernel and backend.

    Raises:
        DataError: a summary in the cache cannot be trusted.
    """
    backend = backend or next(iter(kernel.generators))
    first = next(iter(kernel.generators))
    space, at = kernel.space(inputs.specs), _doublings(inputs.specs)
    found = list(_tuned(cache.root(cache_dir) / kernel.name, inputs.specs, backend, first))
    exact = next((each for each in found if each.inputs == inputs.specs), None)
    if exact is not None:
        return Choice(exact.best.config, "exact", (exact.shapes,), backend)
    tuned = sorted(found, key=lambda each: (_apart(each, at), each.shapes))
    for each in tuned:
        if _apart(each, at) <= _NEAR and each.best.config in space:
            return Choice(each.best.config, "nearest", (each.shapes,), backend)
    alike = [each for each in tuned if each.best.config.keys() == space.parameters.keys()]
    if alike and space:
        return Choice(_modelled(alike, at, space), "model", tuple(each.shapes for each in alike), backend)
    return None


def _tuned(folder: Path, specs: Specs, backend: str, first: str) -> Iterator[_Tuned]:
    """Yield the workloads of a kernel that differ from `specs` in nothing but extents."""
    for path in sorted(folder.glob(f"*/{cache.METRICS}")):
        known = summary.read(path)
        if not _alike(known.inputs, specs):
            continue
        best = best_of_backend(known.trials, known.best_path, backend, first)
        if best is not None:
            trials = tuple(trial for trial in known.trials if backend_of(trial, first) == backend)
            yield _Tuned(path.parent.name, known.inputs, _doublings(known.inputs), best, trials)


def _alike(tuned: Specs, specs: Specs) -> bool:
    """Return whether specs differ in nothing but extents; strided ones must be equal."""
    return tuned == specs or (
        [*map(_form, tuned)] == [*map(_form, specs)] and all(spec.strides is None for spec in specs)
    )


def _form(spec: TensorSpec) -> tuple[object, ...]:
    return spec.name, spec.dtype, spec.strides, len(spec.shape)


def _doublings(specs: Specs) -> NDArray[np.float64]:
    """Return every extent's logarithm to base 2."""
    return np.array([math.log2(max(1, extent)) for spec in specs for extent in spec.shape])


def _apart(tuned: _Tuned, at: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(tuned.doublings - at))


def _modelled(tuned: Sequence[_Tuned], at: NDArray[np.float64], space: SearchSpace) -> dict[str, Value]:
    """Return the config of least predicted slowdown, by a Gaussian process over configs and extents."""
    configs = space.sample(random.Random(0), _CANDIDATES)
    learned = [(each.doublings, trial, each.best) for each in tuned for trial in _sample(each, len(tuned))]
    places = _places([*(trial.config for _, trial, _ in learned), *configs])
    extents = np.array([*(doublings for doublings, _, _ in learned), at])
    shapes = np.rint(_SHAPE_STEPS * (extents - extents.min(axis=0))).astype(np.int32)
    sizes = [len(place) for place in places.values()] + (shapes.max(axis=0) + 1).tolist()
    distance = Distance(sizes)
    known = np.hstack([_codes([trial.config for _, trial, _ in learned], places), shapes[:-1]])
    asked = np.hstack([_codes(configs, places), np.repeat(shapes[-1:], len(configs), axis=0)])
    slowdowns = np.array([math.log(median_ms(trial) / median_ms(best)) for _, trial, best in learned])
    mean, deviation = float(slowdowns.mean()), float(slowdowns.std()) or 1.0
    costs = (slowdowns - mean) / deviation
    fit = distance.fit(known, costs, distance.prior(), _STEPS)
    return configs[int(np.argmin(Posterior(distance, fit, known, costs, asked).mean))]


def _sample(tuned: _Tuned, workloads: int) -> list[Trial]:
    """Return a workload's share of what the model learns from: the fastest, and as many of the others."""
    share = max(2, _TRIALS // workloads)
    worked = [trial for trial in tuned.trials if trial.status is Status.OK]
    fast, rest = worked[: share // 2], worked[share // 2 :]
    return fast + random.Random(0).sample(rest, min(len(rest), share - len(fast)))


def _places(configs: Sequence[Config]) -> dict[str, dict[Value, int]]:
    """Return every parameter's values and their places: numbers in order, others as they come."""
    places = {}
    for name in configs[0]:
        values = dict.fromkeys(config[name] for config in configs)
        texts = any(isinstance(value, str) for value in values)
        places[name] = {value: i for i, value in enumerate(values if texts else sorted(values))}
    return places


def _codes(configs: Sequence[Config], places: Mapping[str, Mapping[Value, int]]) -> NDArray[np.int32]:
    return np.array([[place[config[name]] for name, place in places.items()] for config in configs], np.int32)
