"""NKI kernels on a NeuronCore: compiled in one interpreter, run in another. Never run on a device.

Importing this package touches no device, and needs no package of AWS.
"""

from __future__ import annotations

from autotune.backends.neuron.backend import NEVER_RUN, NeuronBackend

__all__ = ["NEVER_RUN", "NeuronBackend"]
