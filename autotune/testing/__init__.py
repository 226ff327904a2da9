"""For people who write a backend, a kernel, a strategy or a site, or who change this tuner.

- `BackendContract`, `KernelContract`, `StrategyContract`, `SiteContract`: a test class each. Inherit from it,
  and give it the one fixture that its docstring names. They need pytest.
- `CHEATS`: candidates that no tuner may believe; `believed()` returns those that this one does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from autotune.testing.candidates import C_SOURCES, PYTHON_SOURCES, Candidates
from autotune.testing.cheats import CHEATS, Cheat, believed

if TYPE_CHECKING:
    from autotune.testing.backend_contract import BackendContract
    from autotune.testing.kernel_contract import KernelContract
    from autotune.testing.site_contract import SiteContract
    from autotune.testing.strategy_contract import StrategyContract

__all__ = [
    "CHEATS",
    "C_SOURCES",
    "PYTHON_SOURCES",
    "BackendContract",
    "Candidates",
    "Cheat",
    "KernelContract",
    "SiteContract",
    "StrategyContract",
    "believed",
]

_CONTRACTS = {
    "BackendContract": "backend_contract",
    "KernelContract": "kernel_contract",
    "SiteContract": "site_contract",
    "StrategyContract": "strategy_contract",
}


def __getattr__(name: str) -> object:
    """Import a contract when it is asked for: the cheats need no pytest."""
    if name not in _CONTRACTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_CONTRACTS[name]}"), name)
