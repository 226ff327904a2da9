"""Rank configs of an NKI kernel by what the model of time says of them; nothing is run on a NeuronCore.

Estimates are no measurements: they have a file of their own, `estimates.json`, and are in no ranking with
trials.
"""

from autotune.estimating.result import Estimated
from autotune.estimating.search import Ranking, rank

__all__ = ["Estimated", "Ranking", "rank"]
