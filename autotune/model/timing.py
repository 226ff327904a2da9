"""How each candidate is timed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from autotune.model.errors import UsageError

SWEEP_BYTES = 96 << 20
"""Written between calls that must not find their data in a cache: several times the largest one."""


@dataclass(frozen=True)
class Timing:
    """How each candidate is timed.

    Args:
        caches: "warm": calls follow each other; "cold": the caches are swept before each sample, of one call.
        warmup_s: seconds of untimed calls before the first sample.
        min_repeats: samples taken at the least, if `max_s` allows.
        max_repeats: samples taken at the most.
        target_ci: stop once the median's 95 % interval is narrower than this fraction of the median.
        max_s: seconds of samples after which no further one is taken.
        min_sample_ns: calls are batched until a sample lasts this long: a thousand times what the clock
            resolves. Those of a kernel that changes its inputs are not.
    """

    caches: str = "warm"
    warmup_s: float = 0.01
    min_repeats: int = 10
    max_repeats: int = 500
    target_ci: float = 0.01
    max_s: float = 0.5
    min_sample_ns: int = 50_000

    def __post_init__(self) -> None:
        """Raise UsageError for invalid values."""
        if self.caches not in ("warm", "cold"):
            raise UsageError(f"timing: caches is 'warm' or 'cold', not {self.caches!r}")
        if not 1 <= self.min_repeats <= self.max_repeats:
            raise UsageError(
                f"timing: 1 <= min_repeats <= max_repeats, not {self.min_repeats} and {self.max_repeats}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters as they are recorded."""
        return asdict(self)
