"""The tuner: search, compile, measure, check, record; then confirm the best."""

from __future__ import annotations

import contextlib
import difflib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from autotune import backends, search
from autotune.backends import Backend
from autotune.backends.travel import leave_to_the_script
from autotune.machine.cpu import usable_cores
from autotune.model.budget import Budget
from autotune.model.errors import UnavailableError, UsageError
from autotune.model.kernel import Baseline, Inputs, Kernel, Specs
from autotune.model.space import SearchSpace
from autotune.model.tensors import drawn_range, materialize
from autotune.model.timing import Timing
from autotune.model.workload import Context, workload
from autotune.search import Exhaustive, Strategy
from autotune.sites.correctness import rules
from autotune.sites.local import LocalSite
from autotune.sites.site import Site, Sites
from autotune.store import cache
from autotune.store.ledger import Ledger
from autotune.store.publish import blas, publish
from autotune.store.results import Results
from autotune.store.summary import Search
from autotune.tuning.search_run import Listener, SearchRun, Silent

_SEARCH = 0.7  # of the seconds; the rest is for confirming the best


Progress = Callable[[str, int | None, float | None], AbstractContextManager[Listener]]
"""(name, number of trials, seconds it may take) -> the listener of a search."""


def silent(_name: str, _total: int | None, _budget_s: float | None) -> AbstractContextManager[Listener]:
    """Return a listener that ignores all."""
    return contextlib.nullcontext(Silent())


def tune(
    kernel: Kernel,
    inputs: Inputs,
    *,
    space: SearchSpace | None = None,
    backend: str | Backend = "c",
    strategy: Strategy | None = None,
    budget: Budget | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    timing: Timing | None = None,
    devices: str | Sequence[str] | None = None,
    baseline: Baseline | Mapping[str, Baseline] | None = None,
    progress: Progress = silent,
    retune: bool = False,
) -> Results:
    """Find the fastest config of a kernel for these inputs.

    Every config ends in a status and is recorded before the next one is measured. So a killed run continues
    when it is started again, and loses at most the configs in flight. Results of earlier runs are used if
    all that decides them is the same. Several tuners may share a cache.

    Args:
        kernel: what is tuned.
        inputs: its tensors.
        space: the configs to try; the kernel's own space for the backend by default.
        backend: its name, or one with settings: `CBackend(flags=...)`.
        strategy: proposes configs. By default every config in turn, or the strategy that finds good ones
            soonest if the budget does not allow all of them.
        budget: the limits of the search; none by default.
        cache_dir: the cache root; $AUTOTUNE_CACHE_DIR, else ~/.cache/autotune, by default.
        timing: how configs are timed.
        devices: those that search together: names of `Backend.devices`, or "all"; the first one by default.
            The best are confirmed on one of them.
        baseline: what the best is compared with: a function, or several by name, instead of the kernel's own;
            they take the inputs as given and return the outputs. `{}` for none.
        progress: makes the listener that receives each trial, such as `autotune.report.Live`; none by
            default.
        retune: measure everything again. Earlier results are not used, and none is lost.

    Returns:
        The trials best first, the config to use, and what ties with it.

    Raises:
        UsageError: no such backend, an unknown parameter, an empty space, a dtype without tolerance.
        DataError: NaN in the inputs, or a corrupt journal.
        UnavailableError: a compiler or a device is missing, or every device failed.
        CacheError: the cache cannot be written: a full disk, missing rights.
    """
    leave_to_the_script()
    started = time.monotonic()
    maker = backends.get(backend) if isinstance(backend, str) else backend
    timing, budget = timing or Timing(), budget or Budget()
    space = _checked(kernel, maker.name, inputs.specs, space)
    if baseline is not None:
        kernel = replace(kernel, baselines=named_baselines(baseline))
    work = workload(kernel, inputs, maker.name, decides(maker, timing), maker.includes)
    with contextlib.ExitStack() as stack:
        limits = budget.limits or maker.limits()
        opened = Ledger(cache.root(cache_dir), work, limits, forget=retune)
        ledger = stack.enter_context(contextlib.closing(opened))
        chosen = _chosen(maker, devices)

        def open_site(device: str, others: Sequence[Site]) -> LocalSite:
            ledger.prepare()
            jobs = max(1, usable_cores() // len(chosen))
            golden = others[0].golden if others else None
            return LocalSite(kernel, inputs, maker, timing, limits, jobs, device, golden)

        sites = stack.enter_context(Sites(chosen, open_site))
        size = _size(space)
        strategy = strategy or _strategy(size, budget)
        name = f"{kernel.name} {ledger.folder.name}"
        run = SearchRun(work, ledger, space, size, maker)
        total = _smaller(size, budget.trials)
        total = total and max(total, len(run.trials))  # earlier runs may have tried more than this one may
        run.listen(stack.enter_context(progress(name, total, budget.seconds)))
        notes = [*ledger.known.notes, *map(_stale, ledger.why_not().items()), *_drawn(inputs)]
        notes += _overridden() if kernel.baselines else []
        if ledger.disturbed:
            notes.append(f"{len(ledger.disturbed)} earlier results of a busy machine are measured again")
        with _summarized(run, strategy, budget, started):
            deadline = started + (budget.seconds or math.inf)
            run.search(strategy, budget, started + _SEARCH * (budget.seconds or math.inf), sites)
            notes += run.confirm(sites, timing, deadline)
        notes += [*run.notes(), *sites.notes()]
    notes += filter(None, [maker.caution(), _studied(run, maker, inputs)])
    return run.results(notes, time.monotonic() - started)


def _studied(run: SearchRun, backend: Backend, inputs: Inputs) -> str:
    """Have the backend look closer at the best config, if this run has measured any; return what to tell."""
    found = run.results((), 0.0)
    if found.best is None or not found.measured or type(backend).study is Backend.study:
        return ""
    job, specs = run.work.job(found.best.config), inputs.specs
    values = [*zip(specs, materialize(inputs), strict=True)]
    folder = found.folder / found.best.path
    kernel = run.work.kernel
    told = backend.study(job.source, kernel.entry, values, tuple(kernel.outputs(specs)), folder)
    cache.note_outputs(*folder.iterdir())
    return told


def _chosen(backend: Backend, devices: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the devices to use: the first one, all, or those that are named.

    Raises:
        UsageError: the backend has no device of a name.
        UnavailableError: it has none.
    """
    known = backend.devices()
    if not known:
        raise UnavailableError(f"backend {backend.name}: no device here")
    if devices is None or devices == "all":
        return known if devices else known[:1]
    named = tuple(devices.split(",")) if isinstance(devices, str) else tuple(devices)
    if not named or len({*named}) < len(named) or not {*named} <= {*known}:
        wrong = ",".join(named)
        raise UsageError(
            f"devices: {wrong!r} is not a list of devices of backend {backend.name}, each once; it has "
            f"{', '.join(known)}"
        )
    return named


def decides(backend: Backend, timing: Timing) -> Context:
    """Return what decides a result beside kernel, inputs, config and source."""
    return {"fingerprint": backend.fingerprint(), "timing": timing.to_dict(), "check": rules()}


def named_baselines(baseline: Baseline | Mapping[str, Baseline]) -> Mapping[str, Baseline]:
    """Return baselines by name; one that is given alone has its function's name."""
    if isinstance(baseline, Mapping):
        return baseline
    name = getattr(baseline, "__name__", "")
    return {name if name.isidentifier() else "baseline": baseline}


def _strategy(size: int | None, budget: Budget) -> Strategy:
    """Return the exhaustive strategy if the budget allows every config, else the best other one."""
    if budget.seconds is None and (budget.trials is None or (size is not None and size <= budget.trials)):
        return Exhaustive()
    return search.get()


def _size(space: SearchSpace) -> int | None:
    if not space.constraints:
        return space.product
    return len(space) if space.is_listed else None


def _smaller(*counts: int | None) -> int | None:
    return min((count for count in counts if count is not None), default=None)


def _stale(reason: tuple[str, int]) -> str:
    changes, count = reason
    return f"{count} earlier {'result does' if count == 1 else 'results do'} not hold any more: {changes}"


def _overridden() -> Iterator[str]:
    """Say that the environment chooses the BLAS kernel, not the library: a baseline may be slow."""
    for name in ("OPENBLAS_CORETYPE", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "BLIS_ARCH_TYPE"):
        if value := os.environ.get(name):
            yield f"{name}={value} is set, so a baseline may not run the best code for this CPU ({blas()})"


def _drawn(inputs: Inputs) -> Iterator[str]:
    """Say from which range integers are drawn: they often decide how much work a kernel does."""
    for spec in () if inputs.arrays else inputs.specs:
        if limits := drawn_range(spec):
            low, high = limits
            yield (
                f"input {spec.name!r} ({spec.dtype}) is drawn from {low} to {high}; give the range that it "
                "has in use, TensorSpec(..., range=(low, high)), or the values, Inputs(..., arrays=...)"
            )


@contextlib.contextmanager
def _summarized(run: SearchRun, strategy: Strategy, budget: Budget, started: float) -> Iterator[None]:
    """Write the summary at the end, and if the user interrupts the run."""

    def write() -> None:
        about = Search(
            strategy=type(strategy).__name__.lower(),
            seed=getattr(strategy, "seed", 0),
            space_size=run.space_size,
            budget_trials=budget.trials,
            budget_s=budget.seconds,
            elapsed_s=round(time.monotonic() - started, 3),
        )
        publish(run.work, run.ledger, about, run.roofline)

    try:
        yield
    except KeyboardInterrupt:
        write()
        raise
    write()


def _checked(kernel: Kernel, backend: str, specs: Specs, space: SearchSpace | None) -> SearchSpace:
    """Return the space to search: the one given, or the kernel's own.

    Raises:
        UsageError: it has a parameter that the kernel does not know, or no config at all.
    """
    own = kernel.space_of(backend, specs)
    if space is None:
        space = own
    for name in space.parameters:
        if name not in own.parameters:
            near = difflib.get_close_matches(name, own.parameters, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            known = ", ".join(own.parameters)
            raise UsageError(f"kernel {kernel.name}: no parameter {name!r}{hint} Known: {known}.")
    if not space:
        raise UsageError(
            f"kernel {kernel.name}: the search space is empty: a parameter has no values, or the constraints "
            "refuse every config"
        )
    return space
