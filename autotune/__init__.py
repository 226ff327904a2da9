"""Find the fastest variant of a kernel, and believe it only when it has been measured twice.

from autotune import Budget, Inputs, TensorSpec, best_config, tune
results = tune(kernel, Inputs((TensorSpec("x", (1024, 1024)),)), budget=Budget(seconds=60))
results.best.config
"""

from __future__ import annotations

from importlib.util import find_spec

if _missing := [name for name in ("numpy", "ml_dtypes") if find_spec(name) is None]:
    raise ModuleNotFoundError(
        f"autotune needs {_missing[0]} and more: pip install 'remote-autotune[autotune]'", name=_missing[0]
    )

from autotune.backends import Backend
from autotune.declare import Tunable, kernel
from autotune.model.budget import Budget, Limits
from autotune.model.errors import AutotuneError
from autotune.model.kernel import Inputs, Kernel, TensorSpec
from autotune.model.space import SearchSpace
from autotune.model.timing import Timing
from autotune.model.trial import Metrics, Status, Trial
from autotune.model.version import __version__
from autotune.store.results import Results
from autotune.tuner import tune
from autotune.tuning.predict import Choice, best_config

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
    "Tunable",
    "__version__",
    "best_config",
    "kernel",
    "tune",
]
