"""Find the fastest variant of a kernel, and believe it only when it has been measured twice.

from autotune import Budget, Inputs, TensorSpec, best_config, tune
results = tune(kernel, Inputs((TensorSpec("x", (1024, 1024)),)), budget=Budget(seconds=60))
results.best.config
"""

from __future__ import annotations

__version__ = "0.1.0"

from autotune.backends import Backend
from autotune.budget import Budget
from autotune.errors import AutotuneError
from autotune.kernel import Inputs, Kernel, TensorSpec
from autotune.measure import Timing
from autotune.predict import Choice, best_config
from autotune.results import Results
from autotune.space import SearchSpace
from autotune.trial import Metrics, Status, Trial
from autotune.tuner import tune
from autotune.workers import Limits

__all__ = [
    "AutotuneError",
    "Backend",
    "Budget",
    "Choice",
    "Inputs",
    "Kernel",
    "Limits",
    "Metrics",
    "Results",
    "SearchSpace",
    "Status",
    "TensorSpec",
    "Timing",
    "Trial",
    "best_config",
    "tune",
]
