"""Rank the configs of an NKI kernel by their estimates, and check the few that may win."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from autotune import search
from autotune.estimating import store
from autotune.estimating.candidate import Reply, Task
from autotune.estimating.crew import Crew
from autotune.estimating.result import Estimated, behind, tied, winner
from autotune.machine.cpu import usable_cores
from autotune.model.budget import Budget, Limits
from autotune.model.errors import UsageError
from autotune.model.fingerprint import digest
from autotune.model.kernel import Inputs, Kernel
from autotune.model.space import Config, SearchSpace
from autotune.model.tensors import materialize
from autotune.model.trial import Status
from autotune.model.workload import GeneratorError, Workload, workload, workload_label
from autotune.nki.machine import machine
from autotune.nki.timing.costs import MODEL_VERSION, PROFILES
from autotune.search import Observation, Strategy
from autotune.sites.correctness import Golden, rules
from autotune.store import cache

BACKEND = "nki"
TRIALS = 1000
"""Configs that are estimated if the budget has no end."""
FINALISTS = 3
"""Right ones among the fastest, after which no more are checked."""
_CHECKED = 10  # at most so many are checked for them
_SAVE_S = 5.0  # seconds between two writes: a killed run loses no more


class Listener(Protocol):
    """Receives each estimate."""

    def estimated(self, estimated: Estimated) -> None:
        """Receive one more, new or from the cache."""


class Silent:
    """A listener that ignores all."""

    def estimated(self, estimated: Estimated) -> None:
        """Ignore it."""


Progress = Callable[[str, int | None], AbstractContextManager[Listener]]
"""(name, number of configs) -> the listener of a search."""


def silent(_name: str, _total: int | None) -> AbstractContextManager[Listener]:
    """Return a listener that ignores all."""
    return nullcontext(Silent())


@dataclass(frozen=True)
class Ranking:
    """Hold the estimates of one workload, the fastest first. Nothing in it was measured.

    Args:
        kernel, shapes, target, model: whose, of what, for what, by which version of the model.
        estimates: of all configs, those that ended otherwise last.
        best: of those whose outputs are right, the one that is least behind the fastest under the profile
            that is worst for it; None if none is right.
        ties: those that the model cannot tell from the best.
        notes: what a person should know.
        folder: where `estimates.json` is.
        source: the text of the best.
        new: estimates that are not of an earlier run.
        elapsed_s: seconds that it took.
    """

    kernel: str
    shapes: str
    target: str
    model: str
    estimates: tuple[Estimated, ...]
    best: Estimated | None
    ties: tuple[Estimated, ...]
    notes: tuple[str, ...]
    folder: Path
    source: str
    new: int
    elapsed_s: float


def rank(
    kernel: Kernel,
    inputs: Inputs,
    *,
    target: str | None = None,
    space: SearchSpace | None = None,
    strategy: Strategy | None = None,
    budget: Budget | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> Ranking:
    """Estimate configs of a kernel's NKI generator, and check the fastest in the interpreter.

    Nothing is run on a NeuronCore, and nothing is measured. Estimates are kept in `estimates.json`, from
    which an interrupted run goes on.

    Args:
        kernel: with a generator "nki": its text defines `KERNEL`, a function with `nki.jit`, and `CONFIG`,
            the keywords of its call, in its last lines; see `autotune.kernels.gemm_nki_space.source`.
        inputs: its tensors.
        target: "trn1", "trn2" or "trn3"; without it NEURON_PLATFORM_TARGET_OVERRIDE, else "trn2".
        space: the configs to try; the kernel's own by default.
        strategy: proposes configs; by default all in turn if the budget allows, else one that draws them.
        budget: 1,000 configs by default; its limits are those of one candidate.
        cache_dir: the cache root; $AUTOTUNE_CACHE_DIR, else ~/.cache/autotune, by default.
        progress: makes the listener that receives each estimate.

    Raises:
        UsageError: the kernel has no generator "nki", the space is empty, there is no such target.
        CacheError: the cache cannot be read or written.
    """
    started = time.monotonic()
    budget = budget or Budget(trials=TRIALS)
    chosen = machine(target).target
    decides = {
        "model": MODEL_VERSION,
        "target": chosen,
        "profiles": [asdict(each) for each in PROFILES],
        "check": rules(),
    }
    work = workload(kernel, inputs, BACKEND, decides)
    space = space or kernel.space_of(BACKEND, inputs.specs)
    size = len(space) if space.is_listed else None
    if size == 0:
        raise UsageError(f"kernel {kernel.name}: its NKI space has no config for {inputs.shapes}")
    root = cache.root(cache_dir)
    folder = root / kernel.name / workload_label(inputs.specs)
    cache.prepare(folder, root)
    run = _Run(work, space, chosen, budget, root, folder)
    total = min((each for each in (size, budget.trials) if each is not None), default=None)
    with progress(f"{kernel.name} {folder.name}", total) as listener:
        run.search(strategy or _strategy(size, budget), listener, started)
    run.check()
    run.save()
    return run.ranking(time.monotonic() - started)


def _strategy(size: int | None, budget: Budget) -> Strategy:
    if budget.trials is not None and size is not None and size <= budget.trials:
        return search.get("exhaustive")
    return search.get("random")  # one that learns takes longer for a proposal than an estimate takes


class _Run:
    """Hold one ranking under way."""

    def __init__(
        self, work: Workload, space: SearchSpace, target: str, budget: Budget, root: Path, folder: Path
    ) -> None:
        self.work = work
        self.space = space
        self.target = target
        self.budget = budget
        self.limits = budget.limits or Limits()
        self.root = root
        self.folder = folder
        self.known = store.read(folder)
        self.found: dict[str, Estimated] = {}
        self.sources: dict[str, str] = {}
        self.new = 0
        self._pending: dict[int, tuple[Config, str]] = {}
        self._saved = time.monotonic()

    def search(self, strategy: Strategy, listener: Listener, started: float) -> None:
        """Estimate what the strategy proposes until the budget is spent."""
        history: list[Observation] = []
        most = self.budget.trials or math.inf
        deadline = started + (self.budget.seconds or math.inf)
        task = Task(self.work.inputs.specs, self.target, self.limits.memory_bytes)
        queue: list[Config] = []
        more = True
        with Crew[int](task, usable_cores(), self.limits.run_s) as crew:
            while True:
                while more and crew.idle and len(history) < most and time.monotonic() < deadline:
                    if not queue:
                        ahead = min(most - len(history), 2 * usable_cores())
                        queue = list(strategy.propose(self.space, history, int(ahead)))
                        more = bool(queue)
                        continue
                    self._begin(queue.pop(0), history, crew, listener)
                replies = list(crew.replies())
                for place, reply in replies:
                    self._end(place, reply, history, listener)
                if not replies and (not more or len(history) >= most or time.monotonic() >= deadline):
                    return
                if time.monotonic() - self._saved > _SAVE_S:
                    self.save()

    def _begin(self, config: Config, history: list[Observation], crew: Crew[int], listener: Listener) -> None:
        """Give a config to a process, or take what is known of it."""
        try:
            job = self.work.job(config)
        except GeneratorError as fault:
            status = Status.INVALID if fault.invalid else Status.ERROR
            refused = Estimated(
                config, status, digest(dict(config)), str(fault), target=self.target, model=MODEL_VERSION
            )
            self._ended(refused, history, listener)
            return
        self.sources[job.identity] = job.source
        earlier = self.known.get(job.identity)
        if earlier is not None and not earlier.status.transient:
            self._ended(earlier, history, listener)
            return
        crew.give(len(history), job.source)
        self._pending[len(history)] = (config, job.identity)
        history.append(Observation(config, None, pending=True))

    def _ended(self, estimated: Estimated, history: list[Observation], listener: Listener) -> None:
        self.found[estimated.identity] = estimated
        history.append(Observation(estimated.config, estimated.estimated_us))
        listener.estimated(estimated)

    def _end(self, place: int, reply: Reply, history: list[Observation], listener: Listener) -> None:
        """Note how a config ended."""
        config, identity = self._pending.pop(place)
        status, message, said = reply
        estimated = Estimated(
            config, status, identity, message, **said, target=self.target, model=MODEL_VERSION
        )
        self.found[identity] = estimated
        self.new += 1
        history[place] = Observation(config, estimated.estimated_us)
        listener.estimated(estimated)

    def fastest(self) -> list[Estimated]:
        """Return the configs with an estimate, the fastest first."""
        return sorted(
            (each for each in self.found.values() if each.status is Status.OK), key=lambda each: each.us
        )

    def check(self) -> None:
        """Run the fastest in the interpreter until enough are right."""
        fastest = self.fastest()
        lag = behind(fastest)
        first = sorted(fastest, key=lambda each: (lag[each.identity], each.us))[:_CHECKED]
        if not first or sum(each.checked for each in first[:FINALISTS]) == min(FINALISTS, len(first)):
            return
        arrays = materialize(self.work.inputs)
        golden = Golden.of(self.work.kernel, self.work.inputs.specs, arrays)
        task = Task(self.work.inputs.specs, self.target, self.limits.memory_bytes, arrays, golden)
        with Crew[str](task, min(usable_cores(), FINALISTS), 10 * self.limits.run_s) as crew:
            for estimated in self._in_turn(crew, first):
                self.found[estimated.identity] = estimated

    def _in_turn(self, crew: Crew[str], first: Sequence[Estimated]) -> Iterator[Estimated]:
        """Yield how each check ended; no further one begins once enough of the fastest are right."""
        waiting = [each for each in first if not each.checked]
        right = len(first) - len(waiting)
        while True:
            while waiting and crew.idle and right < FINALISTS:
                crew.give(waiting[0].identity, self.sources[waiting.pop(0).identity])
            replies = list(crew.replies())
            if not replies:
                return
            for identity, (status, message, _) in replies:
                right += status is Status.OK
                was = self.found[identity]
                yield replace(was, checked=True) if status is Status.OK else was.ended(status, message)

    def save(self) -> None:
        """Write all estimates, those of earlier runs included."""
        self._saved = time.monotonic()
        header: dict[str, Any] = {
            "kernel": self.work.kernel.name,
            "shapes": self.folder.name,
            "target": self.target,
            "profiles": [each.name for each in PROFILES],
        }
        store.write(self.folder, self.root, header, {**self.known, **self.found}.values())

    def ranking(self, elapsed_s: float) -> Ranking:
        """Return what was found."""
        fastest = self.fastest()
        best = winner(fastest)
        others = [each for each in fastest if best and each is not best]
        failed = [each for each in self.found.values() if each.status is not Status.OK]
        failed.sort(key=lambda each: (each.status.value, each.identity))
        notes = [f"estimated by {MODEL_VERSION}; nothing was run on a NeuronCore"]
        if best and (lag := behind(fastest)[best.identity]):
            notes.append(f"none leads under every profile; the best is at most {lag:.1%} behind the fastest")
        if not best:
            notes.append("no config is both estimated and right")
        return Ranking(
            kernel=self.work.kernel.name,
            shapes=self.folder.name,
            target=self.target,
            model=MODEL_VERSION,
            estimates=(*fastest, *failed),
            best=best,
            ties=tuple(each for each in others if best and tied(best, each)),
            notes=tuple(notes),
            folder=self.folder,
            source=self.sources[best.identity] if best else "",
            new=self.new,
            elapsed_s=elapsed_s,
        )
