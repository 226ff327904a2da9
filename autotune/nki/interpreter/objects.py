"""The base of classes whose objects travel into kernels."""

from __future__ import annotations

import inspect
from typing import Any

_PLAIN = (type(None), bool, int, float, str, tuple)


class NKIObject:
    """Be the base of classes whose objects travel into kernels.

    NKI makes an initializer for a class that has none: every attribute of the class is a parameter, with or
    without `@dataclass`, and `__post_init__` is called at the end (NKI Language Guide, "Class Support").
    """

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Annotate the attributes that have only a value, so that `@dataclass` sees them, too."""
        super().__init_subclass__(**keywords)
        found = dict(inspect.get_annotations(cls))
        for name, value in cls.__dict__.items():
            if not name.startswith("_") and name not in found and isinstance(value, _PLAIN):
                found[name] = Any
        cls.__annotations__ = found

    def __init__(self, *values: Any, **keywords: Any) -> None:
        """Take every attribute of the class by place or by name; others by name."""
        names = [name for base in reversed(type(self).__mro__) for name in inspect.get_annotations(base)]
        if len(values) > len(names):
            raise TypeError(f"{type(self).__name__} takes {len(names)} values, not {len(values)}")
        given = {**dict(zip(names, values, strict=False)), **keywords}
        for name in names:
            setattr(self, name, given.pop(name, getattr(type(self), name, None)))
        for name, value in given.items():
            setattr(self, name, value)
        after = getattr(self, "__post_init__", None)
        if after is not None:
            after()
