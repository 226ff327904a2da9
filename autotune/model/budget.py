"""Budget: what a search may spend, and what one config may."""

from __future__ import annotations

from dataclasses import dataclass, field

from autotune.model.errors import UsageError
from autotune.sites.workers import Limits


@dataclass(frozen=True)
class Budget:
    """What a search may spend.

    Args:
        trials: configs that may be tried, those of earlier runs included; None for as many as there are.
        seconds: wall seconds after which no measurement is begun, confirmation aside; None for no end.
        limits: what each single config may use.
    """

    trials: int | None = None
    seconds: float | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.trials is not None and self.trials < 1:
            raise UsageError(f"budget: trials is at least 1, not {self.trials}")
        if self.seconds is not None and not self.seconds > 0:
            raise UsageError(f"budget: seconds is more than 0, not {self.seconds}")
