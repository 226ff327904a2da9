"""Bayesian search holds NumPy's BLAS to one thread while it computes, and then sets what was set before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from threadpoolctl import ThreadpoolController

from autotune.model.space import SearchSpace
from autotune.search import Observation
from autotune.search.bayesian import Bayesian

SPACE = SearchSpace({"tile": list(range(64))})
HISTORY = [Observation({"tile": tile}, 1.0 + tile) for tile in range(16)]


def counts() -> list[int]:
    return [each.num_threads for each in ThreadpoolController().select(user_api="blas").lib_controllers]


class Watched(Bayesian):
    """Calls a function where the model would be asked."""

    def __init__(self, watch: Callable[[], None]) -> None:
        super().__init__()
        self._watch = watch

    def _promising(self, *_arguments: object) -> list[int]:
        self._watch()
        return []


def test_one_thread_holds_inside_and_what_was_set_holds_again_after() -> None:
    before = counts()
    if not before:
        pytest.skip("threadpoolctl knows no BLAS here")
    inside: list[list[int]] = []
    Watched(lambda: inside.append(counts())).propose(SPACE, HISTORY, 1)
    assert [[1] * len(before)] == inside
    assert before == counts()


def test_what_was_set_holds_again_after_a_fault() -> None:
    before = counts()
    with pytest.raises(ZeroDivisionError):
        Watched(lambda: 1 // 0).propose(SPACE, HISTORY, 1)
    assert before == counts()
