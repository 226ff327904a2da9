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

from autotune import backends
from autotune.backends import Backend
from autotune.model.errors import UnavailableError
from autotune.model.kernel import Inputs, Kernel, Specs, TensorSpec
from autotune.model.space import Config, SearchSpace, Value
from autotune.model.trial import Status, Trial
from autotune.model.workload import Context, GeneratorError, differences, workload
from autotune.search.gaussian_process import Distance, Posterior
from autotune.store import cache, catalog
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
        differs: for shapes that were tuned, what was different then, one `field: was -> now` each: data,
            device, compiler, source. It is empty if the origin is `exact`.
    """

    config: dict[str, Value]
    origin: Origin
    shapes: tuple[str, ...]
    backend: str
    differs: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Tuned:
    """A tuned workload, as the model needs it."""

    shapes: str
    inputs: Specs
    doublings: NDArray[np.float64]
    best: Trial
    trials: tuple[Trial, ...]
    context: Context


def best_config(
    kernel: Kernel,
    inputs: Inputs,
    cache_dir: str | os.PathLike[str] | None = None,
    backend: str | Backend | None = None,
) -> Choice | None:
    """Return the best config known for inputs, or the one likely to be best if they were never tuned.

    Args:
        kernel: the kernel.
        inputs: the tensors; shapes may be new, dtypes and ranks are those that were tuned.
        cache_dir: the cache root; $AUTOTUNE_CACHE_DIR, else ~/.cache/autotune, by default.
        backend: the backend that will run it, by name or with its settings, the kernel's first by default; no
            other's configs are used.

    Returns:
        The config and its origin; None if the cache has nothing of this kernel and backend.

    Raises:
        DataError: a summary in the cache cannot be trusted.
    """
    first = next(iter(kernel.generators))
    name = first if backend is None else backend if isinstance(backend, str) else backend.name
    maker = _maker(name) if isinstance(backend, str | None) else backend
    space, at = kernel.space_of(name, inputs.specs), _doublings(inputs.specs)
    found = list(_tuned(cache.root(cache_dir) / kernel.name, inputs.specs, name, first))
    same = [(_differs(each, kernel, inputs, maker), each) for each in found if each.inputs == inputs.specs]
    if same:
        differs, each = min(same, key=lambda pair: len(pair[0]))
        origin: Origin = "nearest" if differs else "exact"
        return Choice(each.best.config, origin, (each.shapes,), name, tuple(differs))
    tuned = sorted(found, key=lambda each: (_apart(each, at), each.shapes))
    for each in tuned:
        if _apart(each, at) <= _NEAR and each.best.config in space:
            return Choice(each.best.config, "nearest", (each.shapes,), name)
    alike = [each for each in tuned if each.best.config.keys() == space.parameters.keys()]
    if alike and space:
        return Choice(_modelled(alike, at, space), "model", tuple(each.shapes for each in alike), name)
    return None


def _maker(backend: str) -> Backend | None:
    """Return the backend of a name; None for one of the user's, whose settings are not known here."""
    return backends.get(backend) if backend in backends.NAMES else None


def _tuned(folder: Path, specs: Specs, backend: str, first: str) -> Iterator[_Tuned]:
    """Yield the workloads of a kernel that differ from `specs` in nothing but extents."""
    for path in catalog.of_kernel(folder):
        latest = catalog.load(path)
        for known in (latest, *latest.others):
            if not _alike(known.inputs, specs):
                continue
            best = best_of_backend(known.trials, known.best_path, backend, first)
            if best is not None:
                trials = tuple(trial for trial in known.trials if backend_of(trial, first) == backend)
                at = _doublings(known.inputs)
                context = known.contexts.get(backend, {})
                yield _Tuned(path.parent.name, known.inputs, at, best, trials, context)


def _differs(tuned: _Tuned, kernel: Kernel, inputs: Inputs, maker: Backend | None) -> list[str]:
    """Return what decides a result and is not as it was when these shapes were tuned."""
    if not tuned.context:
        return ["context: not recorded"]
    if maker is None:
        return ["backend: its settings are not known; give best_config the backend itself"]
    try:
        here = {**tuned.context, "fingerprint": maker.fingerprint()}
    except UnavailableError as fault:
        return [f"fingerprint: {fault}"]
    decides: Context = {name: here[name] for name in here if name in {"fingerprint", "timing", "check"}}
    now = workload(kernel, inputs, maker.name, decides, maker.includes)
    if changes := differences(tuned.context, now.context):
        return changes
    try:
        identity = now.identity(tuned.best.config, now.source(tuned.best.config))
    except GeneratorError as fault:
        return [f"source: {fault}"]
    changed = "source: the generator writes another, or a file that it includes has changed"
    return [] if identity == tuned.best.identity else [changed]


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
