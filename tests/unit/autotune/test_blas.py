"""How many threads BLAS uses can be told, set, and held to one for a while."""

from __future__ import annotations

import pytest

from autotune.machine.blas import functions, one_thread


def counts() -> list[int]:
    return [get() for get in functions("get") if "openblas" in get.__name__]


def test_one_thread_holds_inside_and_what_was_set_holds_again_after() -> None:
    before = counts()
    if not before:
        pytest.skip("NumPy's BLAS is not OpenBLAS here")
    with one_thread():
        assert [1] * len(before) == counts()
    assert before == counts()


def test_what_was_set_holds_again_after_a_fault() -> None:
    before = counts()
    with pytest.raises(ZeroDivisionError), one_thread():
        1 / 0  # noqa: B018
    assert before == counts()
