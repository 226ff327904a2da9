"""Budget: the limits of a search, and of one config."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.model.errors import UsageError


@dataclass(frozen=True)
class Limits:
    """What a candidate may use before it is killed.

    Args:
        compile_s: seconds of compiling; time stopped for a measurement does not count.
        run_s: seconds until a call returns; again for the timing, beside what `Timing` allows.
        memory_bytes: address space of a compiler, and of a candidate beside its tensors; 0 for no limit.
        output_bytes: of what a candidate prints; more kills it. A compiler's messages are cut there.
    """

    compile_s: float = 60.0
    run_s: float = 30.0
    memory_bytes: int = 4 << 30
    output_bytes: int = 1 << 20


@dataclass(frozen=True)
class Budget:
    """What a search may spend.

    Args:
        trials: configs that may be tried, those of earlier runs included; None for as many as there are.
        seconds: wall seconds after which no measurement is begun, confirmation aside; None for no end.
        limits: what each single config may use; the backend's by default.
    """

    trials: int | None = None
    seconds: float | None = None
    limits: Limits | None = None

    def __post_init__(self) -> None:
        """Raise UsageError for invalid values."""
        if self.trials is not None and self.trials < 1:
            raise UsageError(f"budget: trials is at least 1, not {self.trials}")
        if self.seconds is not None and not self.seconds > 0:
            raise UsageError(f"budget: seconds is more than 0, not {self.seconds}")
