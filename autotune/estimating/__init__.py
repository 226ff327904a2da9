"""Rank configs of an NKI kernel by what the model of time says of them; nothing is run on a NeuronCore.

Estimates are no measurements: they have a file of their own, `estimates.json`, and are in no ranking with
trials.
"""

from autotune.estimating.rank import Ranking, rank
from autotune.estimating.result import Estimated

__all__ = ["Estimated", "Ranking", "rank"]
