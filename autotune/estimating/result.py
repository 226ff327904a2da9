"""What the model, or the interpreter, said of one config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from autotune.model.space import Config
from autotune.model.trial import Status
from autotune.nki.timing.estimates import TIE, Estimate
from autotune.store import checks

_TEXTS = ("identity", "message", "bound_by", "target", "model")
_NUMBERS = ("estimated_us", "low_us", "high_us", "mfu", "mbu", "peak_sbuf_bytes", "peak_psum_bytes")


@dataclass(frozen=True)
class Estimated:
    """Hold how one config ended, and how long the model says that it takes.

    Args:
        config: the config.
        status: `ok`; `invalid`: the kernel asks for what the target does not have; `wrong_output`; `error`,
            `crash`, `timeout`, `out_of_memory`: of the process that interpreted it.
        identity: digest of all that decides the estimate: source, inputs, target, model, profiles.
        message: what went wrong, with the kernel's line.
        estimated_us, low_us, high_us, by_profile, bound_by, mfu, mbu: see `autotune.nki.Estimate`.
        peak_sbuf_bytes, peak_psum_bytes: the most that is alive at once.
        confidence: "fair" or "low".
        checked: its outputs were computed by the interpreter, and are right.
        target, model: for what, and by which version of the model. A file keeps those of earlier ones too.
    """

    config: Config
    status: Status
    identity: str
    message: str = ""
    estimated_us: float | None = None
    low_us: float | None = None
    high_us: float | None = None
    by_profile: Mapping[str, float] = field(default_factory=dict)
    bound_by: str = ""
    mfu: float = 0.0
    mbu: float = 0.0
    peak_sbuf_bytes: int = 0
    peak_psum_bytes: int = 0
    confidence: str = ""
    checked: bool = False
    target: str = ""
    model: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {**asdict(self), "config": dict(self.config), "status": self.status.value}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Estimated:
        """Make one of `to_dict`'s values.

        Raises:
            TypeError, ValueError, KeyError: the record is none of ours.
        """
        known = {each.name for each in fields(cls)}
        numbers = [record[name] for name in _NUMBERS if record.get(name) is not None]
        if set(record) != known or not isinstance(record["config"], dict):
            raise ValueError("not the fields of an estimate")
        numbers += dict(record["by_profile"]).values()
        for value in record["config"].values():
            checks.parameter(value)
        for each in numbers:
            if checks.number(each):  # 0 is one too
                checks.positive(each)
        if not all(isinstance(record[name], str) for name in _TEXTS):
            raise ValueError("texts that are none")
        return cls(**{**record, "status": Status(record["status"])})

    @property
    def us(self) -> float:
        """Return the estimate, infinity if there is none."""
        return float("inf") if self.estimated_us is None else self.estimated_us

    def ended(self, status: Status, message: str) -> Estimated:
        """Return it with another end."""
        return replace(self, status=status, message=message)


def figures(found: Estimate) -> dict[str, Any]:
    """Return what of an estimate is kept."""
    names = ("low_us", "high_us", "by_profile", "bound_by", "mfu", "mbu", "confidence")
    kept = {name: getattr(found, name) for name in (*names, "peak_sbuf_bytes", "peak_psum_bytes")}
    return {**kept, "estimated_us": found.us}


def tied(one: Estimated, other: Estimated) -> bool:
    """Tell whether the model cannot say which of two configs is faster."""
    return abs(one.us - other.us) < TIE * min(one.us, other.us)


def behind(estimates: Sequence[Estimated]) -> dict[str, float]:
    """Return how far each config is behind the fastest, under the profile that is worst for it.

    0.03: it takes at most 3 % longer than the fastest config under each profile; 0: it leads under all. Keys
    are identities; configs without an estimate have none.
    """
    known = [each for each in estimates if each.status is Status.OK and each.by_profile]
    least = {
        name: min(each.by_profile[name] for each in known) for name in (known[0].by_profile if known else ())
    }
    return {
        each.identity: max(us / least[name] for name, us in each.by_profile.items()) - 1 for each in known
    }


def winner(estimates: Sequence[Estimated]) -> Estimated | None:
    """Return the config whose outputs are right and that is least behind under its worst profile."""
    lag = behind(estimates)
    right = [each for each in estimates if each.checked and each.identity in lag]
    return min(right, key=lambda each: (lag[each.identity], each.us), default=None)
