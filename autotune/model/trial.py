"""Trial: one config with its status and its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:  # for the keeper's sake, as in kernel.py
    from autotune.model.space import Value


class Status(str, Enum):
    """How a trial ended; every config ends in exactly one."""

    OK = "ok"
    INVALID = "invalid"
    COMPILE_ERROR = "compile_error"
    COMPILE_TIMEOUT = "compile_timeout"
    CRASH = "crash"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    WRONG_OUTPUT = "wrong_output"
    IMPLAUSIBLE = "implausible"
    ERROR = "error"

    @property
    def transient(self) -> bool:
        """Whether a later run should try once more, as it may end otherwise."""
        return self in {Status.TIMEOUT, Status.COMPILE_TIMEOUT, Status.OUT_OF_MEMORY}


# Quicker than Status(...), and a cache contains thousands.
_STATUSES = {status.value: status for status in Status}


@dataclass(frozen=True)
class Metrics:
    """The measured figures of a trial that ended ok; None for those that need an unknown number.

    `ci95_*` bound the median. `gflops`, `arithmetic_intensity`, `roofline_fraction` and `mfu` need the
    kernel's FLOP. `roofline_fraction` is of the measured roofline, `mfu` of the sheet's peak.
    `waited` is the time that the candidate waited for a core, as a fraction of the time that it was timed.
    """

    min_ms: float
    median_ms: float
    p95_ms: float
    ci95_low_ms: float
    ci95_high_ms: float
    repeats: int
    outliers: int
    gflops: float | None
    gbytes_per_s: float
    arithmetic_intensity: float | None
    roofline_fraction: float | None = None
    mfu: float | None = None
    waited: float = 0.0

    @property
    def disturbed(self) -> bool:
        """Whether other programs used the machine so much that the reading is not to be trusted."""
        return self.waited > 0.05


@dataclass(frozen=True)
class Baseline:
    """Code that one writes without a tuner, measured in turns with the finalists.

    Attributes:
        name: what it is, and its number of threads if that matters.
        metrics: its reading.
    """

    name: str
    metrics: Metrics

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {"name": self.name, "metrics": dict(vars(self.metrics))}


@dataclass(frozen=True)
class Trial:
    """One config of one workload, and how it ended.

    Attributes:
        config: the config.
        status: how it ended.
        identity: digest of all that decides the result: source, shapes, flags, compiler, device, timing.
        path: its folder, relative to the workload's.
        order: its place in the search, from 0; -1 for one taken from the cache.
        message: one line that says what failed; empty if ok.
        metrics: first reading; None unless ok.
        confirmed: the finalist's second, interleaved reading; None for all others.
        compile_s: seconds the compiler took.
        started_at: ISO 8601, UTC.
        samples_ms: every repeat of the first reading, outliers included.
    """

    config: dict[str, Value]
    status: Status
    identity: str
    path: str
    order: int = -1
    message: str = ""
    metrics: Metrics | None = None
    confirmed: Metrics | None = None
    compile_s: float | None = None
    started_at: str = ""
    samples_ms: tuple[float, ...] = field(default=(), repr=False)

    @property
    def best_reading(self) -> Metrics | None:
        """The reading that counts: the confirmed one, or else the first, which may be luck."""
        return self.confirmed or self.metrics

    def to_dict(self) -> dict[str, Any]:
        """Return the trial as plain JSON values, the form in which every file holds it."""
        plain = dict(vars(self))  # dataclasses.asdict copies deeply, which costs more than all the rest
        plain["status"] = self.status.value
        plain["metrics"] = self.metrics and dict(vars(self.metrics))
        plain["confirmed"] = self.confirmed and dict(vars(self.confirmed))
        plain["samples_ms"] = list(self.samples_ms)
        return plain

    @staticmethod
    def from_dict(plain: Mapping[str, Any], **changes: Any) -> Trial:
        """Make the trial that `to_dict` described, with some fields changed.

        Raises:
            TypeError, ValueError, KeyError: it describes none.
        """
        metrics, confirmed = plain["metrics"], plain["confirmed"]
        return _filled(
            Trial,
            {
                **plain,
                "status": _STATUSES.get(plain["status"]) or Status(plain["status"]),
                "metrics": metrics and _filled(Metrics, metrics),
                "confirmed": confirmed and _filled(Metrics, confirmed),
                "samples_ms": tuple(plain["samples_ms"]),
                **changes,
            },
        )


_Record = TypeVar("_Record", Metrics, Trial)


def _filled(kind: type[_Record], values: Mapping[str, Any]) -> _Record:
    """Make a frozen dataclass of all its fields at once: its own __init__ sets them one by one, slowly.

    Raises:
        TypeError: a field is missing, or is none of its own.
    """
    fields = kind.__dataclass_fields__
    if values.keys() != fields.keys():  # of an older version, perhaps: it lacks fields that have a default
        values = {
            **{name: each.default for name, each in fields.items() if each.default is not MISSING},
            **values,
        }
    if values.keys() != fields.keys():
        raise TypeError(f"a {kind.__name__.lower()} has other fields than {', '.join(map(repr, values))}")
    made = object.__new__(kind)
    vars(made).update(values)
    return made
