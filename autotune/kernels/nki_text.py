"""The text of an NKI candidate: a file of this folder, and which of its kernels is called with what."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from autotune.model.kernel import Specs
from autotune.model.space import Config, Value


def candidate(
    config: Config,
    _inputs: Specs,
    _outputs: Specs,
    *,
    file: str,
    kernel: str,
    fixed: Mapping[str, Value] | None = None,
) -> str:
    """Return the text of a candidate; it is for all shapes.

    Its names `KERNEL` and `CONFIG` are the function and the keywords of its call.

    Args:
        file: a file of this folder.
        kernel: a function in it.
        fixed: keywords that are no parameters of the space.
    """
    return f"{_text(file)}\n\nKERNEL = {kernel}\nCONFIG = { ({**config, **(fixed or {})})!r}\n"


@cache
def _text(file: str) -> str:
    return files("autotune.kernels").joinpath(file).read_text(encoding="utf-8")
