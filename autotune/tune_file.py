"""`autotune tune FILE:NAME`: find the kernel that a file declares, and its inputs."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

from autotune import script
from autotune.backends.travel import Importing, module
from autotune.declare import Tunable
from autotune.model.errors import UsageError
from autotune.model.kernel import Inputs, Kernel, TensorSpec
from autotune.model.project import PROGRAM, module_name
from autotune.model.space import nearest
from autotune.model.tensors import dtype_of


def add_flags(flags: argparse.ArgumentParser) -> None:
    """Add the words that name a kernel and its inputs, and the flags of every script that tunes."""
    add = flags.add_argument
    add("kernel", metavar="FILE:NAME", help="a kernel that a file of Python declares")
    add(
        "--shape",
        action="append",
        required=True,
        type=_shape,
        metavar="NAME=EXTENTS",
        help="one for each input: x=4096x512, or with its dtype x=4096x512,float64; x=scalar",
    )
    add("--dtype", default="float32", type=_dtype, help="of the other inputs (default: %(default)s)")
    add("--backend", help="kind of candidates, of a Kernel that has several (its first)")
    script.add_flags(flags, budget=0)


def _shape(text: str) -> tuple[str, tuple[int, ...], str]:
    name, equals, rest = text.partition("=")
    extents, comma, dtype = rest.partition(",")
    sizes = [] if extents == "scalar" else extents.split("x")
    if not name or not equals or not all(map(str.isdecimal, sizes)) or (comma and not dtype):
        raise argparse.ArgumentTypeError(f"a shape such as x=4096x512 or x=4096x512,float64, not {text!r}")
    return name, tuple(map(int, sizes)), _dtype(dtype) if dtype else ""


def _dtype(text: str) -> str:
    try:
        dtype_of(TensorSpec("x", (), text))
    except UsageError as fault:
        raise argparse.ArgumentTypeError(str(fault).partition(": ")[2]) from None
    return text


def case(options: argparse.Namespace) -> script.Case:
    """Return the kernel and the inputs that are meant, and set the backend.

    What the file prints while it is imported goes to stderr.

    Raises:
        UsageError: there is no such file, no such kernel in it, or the inputs are others.
        UnavailableError: the file cannot be imported.
    """
    file, _, name = options.kernel.rpartition(":")
    if not Path(file).is_file():
        raise UsageError(f"{options.kernel}: name a file and a kernel in it, such as ops.py:softmax")
    with contextlib.redirect_stdout(sys.stderr), Importing(file):
        loaded = _loaded(Path(file).resolve())
    found = getattr(loaded, name, None)
    specs = tuple(TensorSpec(name, shape, dtype or options.dtype) for name, shape, dtype in options.shape)
    if isinstance(found, Kernel):
        options.backend = options.backend or next(iter(found.generators))
        return script.Case(found, Inputs(specs))
    if not isinstance(found, Tunable):
        kernels = [key for key, each in vars(loaded).items() if isinstance(each, Tunable | Kernel)]
        raise UsageError(f"{file} has no kernel {name!r}{nearest(name, kernels)}")
    if options.backend not in {None, found.backend.name}:
        raise UsageError(f"kernel {found.name} is declared for backend {found.backend.name}")
    options.backend = found.backend
    named: dict[str, Any] = {spec.name: spec for spec in specs}
    return script.Case(found.kernel, found.inputs(**named))


def _loaded(file: Path) -> Any:
    """Import a file as its script, or as the module of a package that it is."""
    name = module_name(file)
    sys.path.insert(0, str(file.parents[name.count(".")]))
    return module(name if "." in name else PROGRAM, str(file))
