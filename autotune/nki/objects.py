"""The base of classes whose objects travel into kernels."""

from __future__ import annotations

from typing import Any


class NKIObject:
    """Be the base of classes whose objects travel into kernels; keywords become attributes."""

    def __init__(self, **kwargs: Any) -> None:
        """Take every keyword as an attribute."""
        for name, value in kwargs.items():
            setattr(self, name, value)
