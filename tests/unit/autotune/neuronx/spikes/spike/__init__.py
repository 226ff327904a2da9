"""Stands in for `spike`, whose classes have other names and the same methods as those of `nrtpy`."""

import importlib.util
from pathlib import Path

_place = Path(__file__).parents[2] / "runs/nrtpy/__init__.py"
_spec = importlib.util.spec_from_file_location("stand_in", _place)
assert _spec is not None and _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
SpikeModel, SpikeTensor = _module.NrtpyModel, _module.NrtpyTensor
