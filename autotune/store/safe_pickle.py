"""Pickles of builtins only: a file from another machine never runs code."""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any, NoReturn

from autotune.model.errors import DataError

MAX_BYTES = 16 * 2**20
MAX_NODES = 1_000_000
MAX_DEPTH = 100
PROTOCOL = 4  # the newest that every supported Python writes alike

# What pickle.dumps(protocol=4) emits for None, bool, int, float, str, bytes, list, tuple, dict and set: no
# opcode that names, calls or builds anything, and none whose operand alone allocates memory.
_ALLOWED = frozenset(
    {"PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINGET", "LONG_BINGET"}
    | {"NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
    | {"SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES"}
    | {"EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
    | {"EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_SET", "ADDITEMS", "FROZENSET"}
)


class _BuiltinsOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for the persistent object {pid!r}")


def dumps(value: object) -> bytes:
    """Pickle plain builtins."""
    return pickle.dumps(value, protocol=PROTOCOL)


def loads(data: bytes, where: object) -> Any:
    """Unpickle builtins, and refuse everything else before it is built.

    Args:
        data: the pickle.
        where: the file's path, for messages.

    Raises:
        DataError: it names a class or function, is torn or too large, or is nested or shared without end.
    """
    try:
        if len(data) > MAX_BYTES:
            raise pickle.UnpicklingError(f"{len(data)} bytes are more than {MAX_BYTES}")
        for opcode, _argument, _position in pickletools.genops(data):
            if opcode.name not in _ALLOWED:
                raise pickle.UnpicklingError(f"opcode {opcode.name} is not one that builtins need")
        value = _BuiltinsOnly(io.BytesIO(data)).load()
        _check_size(value)
    except (
        pickle.UnpicklingError,
        ValueError,
        EOFError,
        IndexError,
        KeyError,
        TypeError,
        MemoryError,
    ) as fault:
        raise DataError(f"{where}: refused as a pickle of plain values: {fault}") from None
    return value


def _check_size(value: object) -> None:
    """Walk the tree that the value unfolds to: shared references make a small pickle huge, or endless."""
    nodes = 0
    level = [value]
    for _depth in range(MAX_DEPTH):
        nodes += len(level)
        if nodes > MAX_NODES:
            raise ValueError(f"it unfolds to more than {MAX_NODES} values")
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below += item.keys()
                below += item.values()
            elif isinstance(item, (list, tuple, set, frozenset)):
                below += item
            if len(below) > MAX_NODES:
                raise ValueError(f"it unfolds to more than {MAX_NODES} values")
        if not below:
            return
        level = below
    raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
