"""Summary: `perf_metrics.json`, all that is known of one workload; its only reader and its only writer."""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from autotune.model.errors import AutotuneError, DataError
from autotune.model.kernel import Specs
from autotune.model.roofline import Roofline
from autotune.model.trial import Baseline, Metrics, Status, Trial
from autotune.model.workload import Context, spec_dict
from autotune.store import cache, checks
from autotune.store.incoming import parse_json, read_file
from autotune.store.results import fastest, speedup

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
MAX_BYTES = 1 << 28


@dataclass(frozen=True)
class Work:
    """What one call of the kernel does.

    Args:
        flops: floating-point operations; None if they are unknown.
        bytes: bytes that it must read and write at the least.
        reduction_length: terms that are summed into one element of the output.
    """

    flops: float | None
    bytes: float
    reduction_length: int = 1


@dataclass(frozen=True)
class Search:
    """How the configs were searched.

    Args:
        strategy: name of the strategy.
        seed: of its random numbers.
        space_size: configs in the space; None if they were too many to count.
        budget_trials: configs that it was allowed; None without a limit.
        budget_s: seconds that it was allowed; None without a limit.
        elapsed_s: seconds that it took.
    """

    strategy: str
    seed: int
    space_size: int | None
    budget_trials: int | None = None
    budget_s: float | None = None
    elapsed_s: float = 0.0


@dataclass(frozen=True)
class Summary:
    """All that is known of one workload.

    Args:
        folder: the workload's folder in the cache.
        kernel: the kernel's name.
        shapes: the name of its shapes.
        backend: the backend of the latest run.
        inputs: specs of the inputs; empty in an imported summary.
        outputs: specs of the outputs; empty in an imported summary.
        work: what one call does.
        environment: host, CPU, compiler, versions: name -> JSON value.
        roofline: the limits of the device; None if they are unknown.
        timing: how configs were timed: name -> JSON value.
        search: how they were searched.
        baselines: what the kernel is compared with, each at its best.
        best_path: path of the trial to use; None if no config ended ok.
        tie_paths: paths of the trials that are as fast within the error of measurement.
        trials: best first, failures last.
        contexts: backend -> all that decides its results beside config and source; empty in an imported
            summary.
        others: summaries of the same shapes in other contexts: other data, timing, flags or machines.
    """

    folder: Path
    kernel: str
    shapes: str
    backend: str
    inputs: Specs
    outputs: Specs
    work: Work
    environment: Mapping[str, object]
    roofline: Roofline | None
    timing: Mapping[str, object]
    search: Search
    baselines: tuple[Baseline, ...]
    best_path: str | None
    tie_paths: tuple[str, ...]
    trials: tuple[Trial, ...]
    contexts: Mapping[str, Context] = field(default_factory=dict)
    others: tuple[Summary, ...] = ()

    @functools.cached_property
    def best(self) -> Trial | None:
        """The trial to use; None if no config ended ok."""
        chosen = (trial for trial in self.trials if trial.path == self.best_path and trial.metrics)
        return next(chosen, None)

    @functools.cached_property
    def ties(self) -> tuple[Trial, ...]:
        """The trials that are as fast as the best within the error of measurement."""
        by_path = {trial.path: trial for trial in self.trials if trial.metrics}
        return tuple(by_path[path] for path in self.tie_paths)

    @property
    def measured(self) -> tuple[Trial, ...]:
        """The trials that ended ok, best first."""
        return tuple(trial for trial in self.trials if trial.status is Status.OK)

    @property
    def failed(self) -> tuple[Trial, ...]:
        """The trials that did not end ok."""
        return tuple(trial for trial in self.trials if trial.status is not Status.OK)

    @property
    def best_reading(self) -> Metrics | None:
        """The best trial's reading that counts."""
        return self.best.best_reading if self.best else None

    @functools.cached_property
    def baseline(self) -> Baseline | None:
        """The fastest baseline, with which the best is compared; None if there is none."""
        return fastest(self.baselines)

    @property
    def baseline_reading(self) -> Metrics | None:
        """The fastest baseline's reading; None if there is no baseline."""
        return self.baseline.metrics if self.baseline else None

    @property
    def speedup(self) -> float | None:
        """How many times faster than the fastest baseline the best is; None if the readings cannot say."""
        if self.best_reading is None or self.baseline_reading is None:
            return None
        return speedup(self.baseline_reading, self.best_reading)


def write(summary: Summary, state: str = "") -> None:
    """Write a summary into its folder, whole or not at all.

    Args:
        summary: what to write.
        state: a digest of the records that it was made of; `is_current` compares it.

    Raises:
        CacheError: it could not be written; the old one stands.
    """
    body = _body(summary)
    cache.write_file(summary.folder / cache.METRICS, _first_lines(state, body) + body)


def _head(summary: Summary) -> dict[str, object]:
    return {
        "kernel": summary.kernel,
        "shapes": summary.shapes,
        "backend": summary.backend,
        "inputs": [spec_dict(spec) for spec in summary.inputs],
        "outputs": [spec_dict(spec) for spec in summary.outputs],
        "work": asdict(summary.work),
        "environment": summary.environment,
        "roofline": summary.roofline and asdict(summary.roofline),
        "timing": summary.timing,
        "search": asdict(summary.search),
        "baselines": [each.to_dict() for each in summary.baselines],
        "best": summary.best_path,
        "ties": summary.tie_paths,
        "contexts": summary.contexts,
    }


def is_current(folder: Path, state: str) -> bool:
    """Return whether a folder's summary is undamaged and of this state."""
    try:
        text = read_file(folder / cache.METRICS, MAX_BYTES)
    except AutotuneError:
        return False
    begin = len(_first_lines(state, b""))
    return text[:begin] == _first_lines(state, text[begin:])


def _first_lines(state: str, body: bytes) -> bytes:
    """Return the lines that say what the rest of the file is; always of the same length for one state."""
    return f'{{\n "schema": {cache.SCHEMA},\n "state": "{state}:{zlib.crc32(body):08x}",\n'.encode()


def _body(summary: Summary) -> bytes:
    """Lay out the fields one below the other, then one trial a line, then one other context a line."""
    fields = "".join(f" {json.dumps(name)}: {_encode(value)},\n" for name, value in _head(summary).items())
    trials = ",\n".join(f"  {_encode(trial.to_dict())}" for trial in summary.trials)
    others = ",\n".join(
        f"  {_encode({**_head(other), 'trials': [trial.to_dict() for trial in other.trials]})}"
        for other in summary.others
    )
    return f'{fields} "trials": [\n{trials}\n ],\n "others": [\n{others}\n ]\n}}\n'.encode()


def read(path: Path) -> Summary:
    """Read one summary, from whatever machine it came.

    A change of the format raises SCHEMA and brings a function that turns the previous format into the new
    one, called here until the document is of this schema. So every older cache stays readable.

    Raises:
        DataError: not JSON, of a newer schema, or a field that is missing or of the wrong type.
        CacheError: it cannot be read.
    """
    try:
        document = parse_json(read_file(path, MAX_BYTES))
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}; run the tuner again to write it anew") from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if type(schema) is not int or not isinstance(document.get("trials"), list):
        raise DataError(f"{path}: not a summary of this program: it has no schema or no trials")
    if schema > cache.SCHEMA:
        raise DataError(f"{path}: schema {schema} is newer than {cache.SCHEMA}; update autotune to read it")
    try:
        return _summary(path.parent, document if schema > 1 else _of_schema_2(document))
    except checks.MALFORMED as error:
        advice = "fetch it again, or tune again to replace it"
        raise DataError(f"{path}: {checks.reason(error)}; {advice}") from error


def _of_schema_2(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a document of schema 1, which had one `reference` or none, into one of schema 2."""
    only = plain["reference"]
    others = [_of_schema_2(checks.mapping(each)) for each in _others(plain)]
    return {**plain, "baselines": [] if only is None else [only], "others": others}


def _summary(folder: Path, plain: Mapping[str, Any]) -> Summary:
    trials = tuple(map(checks.trial, checks.listed(plain["trials"])))
    measured = {trial.path: trial.path for trial in trials if trial.metrics}
    best = measured[plain["best"]] if measured else None
    return Summary(
        folder=folder,
        kernel=checks.text(plain["kernel"]),
        shapes=checks.text(plain["shapes"]),
        backend=checks.text(plain["backend"]),
        inputs=checks.specs(plain["inputs"]),
        outputs=checks.specs(plain["outputs"]),
        work=work_of(checks.mapping(plain["work"])),
        environment=checks.mapping(plain["environment"]),
        roofline=checks.optional(plain["roofline"], _roofline),
        timing=checks.mapping(plain["timing"]),
        search=_search(checks.mapping(plain["search"])),
        baselines=tuple(map(checks.baseline, checks.listed(plain["baselines"]))),
        best_path=best,
        tie_paths=tuple(measured[path] for path in checks.listed(plain["ties"]) if path != best),
        trials=trials,
        contexts=_contexts(plain.get("contexts")),
        others=tuple(_summary(folder, each) for each in map(checks.mapping, _others(plain))),
    )


def work_of(plain: Mapping[str, Any]) -> Work:
    """Make the work that a summary or a context describes."""
    flops = checks.optional(plain["flops"], checks.number)
    bytes_moved = max(0.0, checks.number(plain["bytes"]))
    return Work(flops and max(0.0, flops), bytes_moved, int(checks.number(plain.get("reduction_length", 1))))


def _roofline(value: object) -> Roofline:
    plain = checks.mapping(value)
    peak, bandwidth = (checks.positive(plain[name]) for name in ("peak_gflops", "bandwidth_gbytes_per_s"))
    return Roofline(peak, bandwidth, sheet_gflops=checks.optional(plain.get("sheet_gflops"), checks.positive))


def _search(plain: Mapping[str, Any]) -> Search:
    limits = {name: plain.get(name) for name in ("space_size", "budget_trials", "budget_s")}
    for limit in limits.values():
        checks.optional(limit, checks.number)
    seed, elapsed_s = int(checks.number(plain["seed"])), checks.number(plain["elapsed_s"])
    return Search(checks.text(plain["strategy"]), seed, elapsed_s=elapsed_s, **limits)


def _others(plain: Mapping[str, Any]) -> Sequence[Any]:
    return checks.optional(plain.get("others"), checks.listed) or ()


def _contexts(value: object) -> dict[str, Context]:
    plain = checks.optional(value, checks.mapping) or {}
    return {name: checks.mapping(each) for name, each in plain.items()}
