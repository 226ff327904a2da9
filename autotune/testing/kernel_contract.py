"""What every kernel must do, with each backend that it has: a test class to inherit from."""

from __future__ import annotations

import itertools
from pathlib import Path

from autotune import backends
from autotune.model.budget import Budget
from autotune.model.errors import UnavailableError
from autotune.model.kernel import Inputs, Kernel
from autotune.model.tensors import dtype_of, materialize
from autotune.model.timing import Timing
from autotune.model.trial import Status
from autotune.model.workload import GeneratorError, Workload, workload
from autotune.sites.correctness import Golden
from autotune.tuner import tune

_BRIEF = Timing(warmup_s=0, min_repeats=3, max_repeats=5, max_s=0.02)
_CONFIGS = 50
_TRIALS = 3


class KernelContract:
    """Inherit from it, and define the fixture `case`: a kernel, and inputs on which it takes a millisecond.

    class TestMine(KernelContract):
        @pytest.fixture
        def case(self) -> tuple[Kernel, Inputs]:
            return my_kernel, Inputs((TensorSpec("x", (17, 32)),))
    """

    def test_its_golden_gives_its_outputs(self, case: tuple[Kernel, Inputs]) -> None:
        """Shapes and values fit their specs, and inputs of one seed have one golden."""
        kernel, inputs = case
        first, again = (Golden.of(kernel, inputs.specs, materialize(inputs)) for _ in range(2))
        assert [spec.shape for spec in kernel.checked(inputs.specs)] == [each.shape for each in first.values]
        assert [each.tobytes() for each in first.values] == [each.tobytes() for each in again.values]

    def test_its_baselines_are_right(self, case: tuple[Kernel, Inputs]) -> None:
        """A comparison with a wrong one is worth nothing."""
        kernel, inputs = case
        arrays = materialize(inputs)
        golden = Golden.of(kernel, inputs.specs, arrays)
        for name, baseline in kernel.baselines.items():
            returned = baseline(*(array.copy() for array in arrays))
            found = returned if isinstance(returned, tuple | list) else (returned,)
            made = [value.astype(dtype_of(spec)) for value, spec in zip(found, golden.specs, strict=True)]
            assert golden.compare(made) is None, name

    def test_its_generators_write_the_same_source_again(self, case: tuple[Kernel, Inputs]) -> None:
        """Of every config of the space, or reject it by a ValueError: else no result could be kept."""
        kernel, inputs = case
        for name in kernel.generators:
            space = kernel.space_of(name, inputs.specs)
            configs = list(itertools.islice(space, _CONFIGS))
            work = workload(kernel, inputs, name, {})
            assert configs, f"the space of backend {name} is empty"
            assert [source_of(work, config) for config in configs] == [
                source_of(work, config) for config in configs
            ]

    def test_it_is_tuned_with_every_backend(self, case: tuple[Kernel, Inputs], tmp_path: Path) -> None:
        """The first configs are right, on each whose devices this machine has."""
        kernel, inputs = case
        for name in filter(_is_here, kernel.generators.keys() & set(backends.NAMES)):
            found = tune(
                kernel,
                inputs,
                backend=name,
                budget=Budget(trials=_TRIALS),
                timing=_BRIEF,
                cache_dir=tmp_path,
            )
            assert {Status.OK} == {trial.status for trial in found.trials}, found.trials
            assert kernel.space_of(name, inputs.specs).parameters.keys() == found.trials[0].config.keys()


def _is_here(backend: str) -> bool:
    try:
        return bool(backends.get(backend).devices())
    except UnavailableError:
        return False


def source_of(work: Workload, config: dict[str, int | float | str | bool]) -> str:
    """Return a config's source; why there is none, if the generator rejects it."""
    try:
        return work.source(config)
    except GeneratorError as fault:
        assert fault.invalid, fault
        return str(fault)
