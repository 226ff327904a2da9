"""Make `import nki` mean this interpreter, where AWS's own package is not installed."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from autotune.nki import constants, isa, language
from autotune.nki.errors import NkiUnavailableError
from autotune.nki.interpreter.dtypes import DType
from autotune.nki.interpreter.objects import NKIObject
from autotune.nki.interpreter.registers import VirtualRegister
from autotune.nki.interpreter.tensor import NkiTensor
from autotune.nki.launch import jit, simulate

_NEEDED = {"nki": ("jit",), "nki.language": ("ndarray", "tile_size"), "nki.isa": ("nc_matmul", "dma_copy")}
_MARK = "__autotune_interpreter__"
_PAGES = "https://awsdocs-neuron.readthedocs-hosted.com/en/latest/nki/api/generated"


def real_nki() -> bool:
    """Tell whether AWS's `nki` is installed and works; PyPI has a stub of that name, which does not."""
    for name, attributes in _NEEDED.items():
        try:
            module = importlib.import_module(name)
        except Exception:  # noqa: BLE001  whatever a foreign package raises, it does not work
            return False
        if hasattr(module, _MARK) or not all(
            callable(getattr(module, each, None)) for each in attributes[:1]
        ):
            return False
    return True


class _Lacking(ModuleType):
    """A namespace of NKI of which nothing is here."""

    def __getattr__(self, name: str) -> Any:
        """Return something that says so when it is called."""
        if name.startswith("__"):
            raise AttributeError(name)
        full = f"{self.__name__}.{name}"

        def lacking(*_: Any, **__: Any) -> Any:
            raise NkiUnavailableError(
                f"{full} is not in this interpreter: it models one kernel on up to two cores of one chip; "
                f"what it does: {_PAGES}/{full}.html"
            )

        lacking.__name__ = name
        return lacking


class _Annotation:
    """Stand for `nki.typing.tensor[...]`, which only tells readers the shape."""

    def __getitem__(self, _: Any) -> type[NkiTensor]:
        """Return the class of tensors."""
        return NkiTensor


def _modules() -> dict[str, ModuleType]:
    top = ModuleType("nki", "This interpreter's `nki`; see autotune.nki.")
    typing = ModuleType("nki.typing", "Annotations of a kernel's parameters.")
    typing.tensor = _Annotation()  # type: ignore[attr-defined]
    collectives = _Lacking("nki.collectives", "Communication between devices, which is not here.")
    found = {
        "nki": top,
        "nki.language": language,
        "nki.isa": isa,
        "nki.isa.constants": constants,
        "nki.typing": typing,
        "nki.collectives": collectives,
    }
    contents = {
        "jit": jit,
        "simulate": simulate,
        "language": language,
        "isa": isa,
        "typing": typing,
        "collectives": collectives,
        "NKIObject": NKIObject,
        "VirtualRegister": VirtualRegister,
        "dtype": DType,
        "__version__": "0.6.0+autotune",
        "__path__": [],
        _MARK: True,
    }
    for name, value in contents.items():
        setattr(top, name, value)
    return found


def activate(force: bool = False) -> bool:
    """Let `import nki`, `nki.language` and `nki.isa` find this interpreter.

    AWS's own package is left alone where it works, unless `force` is given.

    Returns:
        True if they now lead here.
    """
    if getattr(sys.modules.get("nki"), _MARK, False):
        return True
    if not force and real_nki():
        return False
    for name in [name for name in sys.modules if name == "nki" or name.startswith("nki.")]:
        del sys.modules[name]
    sys.modules.update(_modules())
    return True
