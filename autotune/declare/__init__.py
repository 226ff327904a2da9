"""Declare a kernel in a few lines: a Python function, or a generator of source text, and what it computes."""

from __future__ import annotations

from autotune.declare.tunable import Tunable, kernel

__all__ = ["Tunable", "kernel"]
