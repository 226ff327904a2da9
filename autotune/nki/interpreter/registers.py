"""Registers of an engine: single numbers that a kernel knows at run time only."""

from __future__ import annotations

from typing import Any

from autotune.nki.errors import NkiError
from autotune.nki.interpreter.objects import NKIObject


class VirtualRegister(NKIObject):
    """Hold one number. The interpreter knows it, so that it works as an integer in Python, too.

    Attributes:
        value: the number; None if it was never set, or is not known because no data is computed.
        frozen: it counts a loop, and the kernel cannot set it.
    """

    def __init__(self, state: int | float | None = None, frozen: bool = False) -> None:
        """Start with a number, or with none."""
        self.value = state
        self.frozen = frozen

    @property
    def at_run_time(self) -> bool:
        """Tell whether the number is not known here."""
        return self.value is None

    def set(self, value: int | float | None) -> None:
        """Take a number."""
        if self.frozen:
            raise NkiError("a loop's register is set by its loop only")
        self.value = value

    def known(self) -> int | float:
        """Return the number.

        Raises:
            NkiError: it is not known.
        """
        if self.value is None:
            raise NkiError(
                "a register's value is not known here: it was never set, or the kernel is only recorded and "
                "the value comes from data; run it with nki.simulate(kernel)(*arrays)"
            )
        return self.value

    def __index__(self) -> int:
        """Return the number as an integer."""
        return int(self.known())

    __int__ = __index__

    def __bool__(self) -> bool:
        """Tell whether the number is not 0."""
        return bool(self.known())

    def __repr__(self) -> str:
        """Show the number."""
        return f"<register {'?' if self.value is None else self.value}>"

    def __eq__(self, other: object) -> bool:
        """Compare the numbers."""
        return self.value is not None and self.value == _number(other)

    __hash__ = object.__hash__

    def __lt__(self, other: Any) -> bool:
        """Compare the numbers."""
        return bool(self.known() < _number(other))

    def __le__(self, other: Any) -> bool:
        """Compare the numbers."""
        return bool(self.known() <= _number(other))

    def __gt__(self, other: Any) -> bool:
        """Compare the numbers."""
        return bool(self.known() > _number(other))

    def __ge__(self, other: Any) -> bool:
        """Compare the numbers."""
        return bool(self.known() >= _number(other))

    def __add__(self, other: Any) -> Any:
        """Return a plain number."""
        return self.known() + _number(other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        """Return a plain number."""
        return self.known() - _number(other)

    def __rsub__(self, other: Any) -> Any:
        """Return a plain number."""
        return _number(other) - self.known()

    def __mul__(self, other: Any) -> Any:
        """Return a plain number."""
        return self.known() * _number(other)

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        """Return a plain number."""
        return self.known() // _number(other)

    def __mod__(self, other: Any) -> Any:
        """Return a plain number."""
        return self.known() % _number(other)


def _number(value: Any) -> Any:
    return value.known() if isinstance(value, VirtualRegister) else value
