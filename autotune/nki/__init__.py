"""Write, check and estimate NKI kernels where there is no Trainium: an interpreter and a model of time.

Nothing here was compared with a run of ours on hardware; docs/nki-model.md has what others published.

    import numpy as np
    from autotune.nki import activate
    activate()
    import nki, nki.language as nl, nki.isa as nisa
"""

from __future__ import annotations

from autotune.nki.activate import activate
from autotune.nki.errors import NkiError, NkiUnavailableError, NkiWarning
from autotune.nki.launch import Simulation, jit, simulate
from autotune.nki.timing.estimates import Estimate, estimate

__all__ = [
    "Estimate",
    "NkiError",
    "NkiUnavailableError",
    "NkiWarning",
    "Simulation",
    "activate",
    "estimate",
    "jit",
    "simulate",
]
