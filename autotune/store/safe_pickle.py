"""Pickles of builtins only: a file from another machine never runs code."""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any, NoReturn

from autotune.model.errors import DataError
from autotune.store.incoming import require_shallow

MAX_BYTES = 16 * 2**20
MAX_OPCODES = 500_000  # counting them takes less than half a second, and a trial has as many as samples
MAX_TUPLES = 100  # a tuple or frozenset is hashed by recursion; a trial has none
PROTOCOL = 4  # the newest that every supported Python writes alike

# What pickle.dumps(protocol=4) emits for None, bool, int, float, str, bytes, list, tuple, dict and set: no
# opcode that names, calls or builds anything, and none whose operand alone allocates memory.
_TEXTS = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES"})
_TUPLES = frozenset({"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"})
_RECALLS = frozenset({"BINGET", "LONG_BINGET"})
_FRAMING = frozenset({"PROTO", "FRAME"})
_ALLOWED = (
    _FRAMING
    | _TEXTS
    | _TUPLES
    | _RECALLS
    | {"STOP", "MARK", "MEMOIZE", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1"}
    | {"BINFLOAT", "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_TUPLE", "EMPTY_DICT", "SETITEM", "SETITEMS"}
    | {"EMPTY_SET", "ADDITEMS"}
)


class _BuiltinsOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for the persistent object {pid!r}")


def dumps(value: object) -> bytes:
    """Pickle plain builtins; no list, tuple, dict or set may be in it twice."""
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
            raise ValueError(f"{len(data)} bytes are more than {MAX_BYTES}")
        _check_opcodes(data)
        value = _BuiltinsOnly(io.BytesIO(data)).load()
        require_shallow(value)
    except (
        pickle.UnpicklingError,
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        TypeError,
        ValueError,
    ) as fault:
        raise DataError(f"{where}: refused as a pickle of plain values: {fault}") from None
    return value


def _check_opcodes(data: bytes) -> None:
    """Read the program without running it: what it makes is a tree no larger than the program.

    Only texts and bytes are used twice. So nothing holds itself, nothing unfolds to more than was written,
    and each key and member is hashed once.

    Raises:
        ValueError: it does more than that.
    """
    texts: set[int] = set()  # places in the memo
    places = tuples = 0
    maker = ""
    for count, (opcode, argument, _position) in enumerate(pickletools.genops(data), 1):
        name = opcode.name
        if name not in _ALLOWED:
            raise ValueError(f"opcode {name} is not one that builtins need")
        tuples += name in _TUPLES
        if tuples > MAX_TUPLES or count > MAX_OPCODES:
            raise ValueError(f"it has more than {MAX_OPCODES} opcodes, or than {MAX_TUPLES} tuples")
        if name in _RECALLS and argument not in texts:
            raise ValueError("it uses something else than a text twice, so it unfolds to more than it is")
        if name == "MEMOIZE":
            if maker in _TEXTS:
                texts.add(places)
            places += 1
        elif name not in _FRAMING:  # a long text stands outside of the frames
            maker = name
