"""A kernel whose configs are each written by hand, and quick ways to tune it."""

from __future__ import annotations

import dataclasses

from vector_add import GOOD, INPUTS, KERNEL, LOOP, body

from autotune import Budget, Kernel, SearchSpace, Timing, tune

BRIEF = Timing(warmup_s=0, min_repeats=3, max_repeats=5, max_s=0.02)
CANDIDATES = {
    "good": GOOD,
    "slow": body(f"for (int r = 0; r < 50; r++) {LOOP} ((volatile float *)out)[i] = a[i] + b[i];"),
    "wrong": body(f"{LOOP} out[i] = a[i] - b[i];"),
    "crash": body("*(volatile int *)8 = 0;"),
    "broken": "this is not C",
    "endless": body("for (volatile int i = 0;; i++);"),
}


def _source(config, _inputs, _outputs):
    kind = config["kind"]
    if kind == "refused":
        raise ValueError("no such thing")
    if kind == "faulty":
        raise KeyError("oops")
    return CANDIDATES[kind] + f"/* {config.get('variant', 0)} */\n"


def _numpy_source(_config, _inputs, _outputs):
    return "def add(a, b, out):\n    out[...] = a + b\n"


def space(*kinds: str, variants: int = 1) -> SearchSpace:
    """Return a space of so many variants of each kind."""
    return SearchSpace({"kind": kinds, "variant": tuple(range(variants))})


def kernel(**changes) -> Kernel:
    """Return the kernel, with some of its fields changed."""
    fields = {
        "generators": {"c": _source, "numpy": _numpy_source},
        "space": lambda _specs: space("good", "slow"),
        **changes,
    }
    return dataclasses.replace(KERNEL, **fields)


def run(cache_dir, searched=None, **options):
    """Tune quickly."""
    options.setdefault("timing", BRIEF)
    made = options.pop("kernel", None) or kernel()
    inputs = options.pop("inputs", INPUTS)
    searched = space("good", "slow") if searched is None else searched
    return tune(made, inputs, space=searched, cache_dir=cache_dir, **options)


__all__ = ["BRIEF", "CANDIDATES", "INPUTS", "Budget", "kernel", "run", "space"]
