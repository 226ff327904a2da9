"""A declared kernel: a function with its search space and its golden, to be tuned and called.

@autotune.kernel(space={"rows": [8, 16, 32]}, golden=lambda x: np.tanh(x))
def tanh(x, *, rows): ...

tanh.tune(x=(4096, 512), seconds=30)
tanh(x)
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from autotune import backends, search
from autotune.backends import Backend
from autotune.backends.c import CBackend
from autotune.backends.function import call, found_by_name, head, module_of
from autotune.backends.in_process import loaded
from autotune.backends.numpy import NumpyBackend
from autotune.backends.travel import leave_to_the_script
from autotune.declare.outputs import Outputs
from autotune.declare.parameters import Parameters, Space
from autotune.model.budget import Budget
from autotune.model.errors import AutotuneError, UsageError
from autotune.model.kernel import Baseline, Inputs, Kernel, Specs, TensorSpec
from autotune.model.space import Config, SearchSpace, Value
from autotune.model.tensors import Array, dtype_of, materialize
from autotune.model.timing import Timing
from autotune.model.workload import workload_label
from autotune.search import Strategy
from autotune.store.results import Results
from autotune.tuner import Progress, named_baselines, tune
from autotune.tuning.predict import best_config

OfSpecs = Callable[..., Any]
"""Takes the TensorSpecs of the inputs, one argument each."""
Tensor = NDArray[Any] | TensorSpec | Sequence[int]
"""An array, a spec, or a shape."""


if TYPE_CHECKING:
    from typing_extensions import Required, TypedDict, Unpack

    class Declared(TypedDict, total=False):
        """The arguments of `Tunable`."""

        space: Required[Space | Callable[..., Space]]
        golden: Required[Callable[..., Any]]
        backend: str | Backend
        name: str
        baseline: Baseline | Mapping[str, Baseline] | None
        output_dtype: str | Sequence[str] | None
        flops: int | OfSpecs | None
        bytes_moved: int | OfSpecs | None
        reduction_length: int | OfSpecs | None
        compare: Callable[..., str] | None
        cache_dir: str | os.PathLike[str] | None


@overload
def kernel(function: Callable[..., Any], **declared: Unpack[Declared]) -> Tunable: ...
@overload
def kernel(**declared: Unpack[Declared]) -> Callable[[Callable[..., Any]], Tunable]: ...
def kernel(
    function: Callable[..., Any] | None = None, **declared: Unpack[Declared]
) -> Tunable | Callable[[Callable[..., Any]], Tunable]:
    """Declare a kernel: a function whose keyword-only parameters are tuned. Also a decorator.

    The positional parameters that `golden` has too are the inputs. Further ones are the outputs, in which the
    function writes; without them it returns its outputs. For every backend but `numpy` the function returns
    the candidate's source text; it gets a `TensorSpec` for each positional parameter.

    Args:
        function: the kernel; None in a decorator.
        declared: see `Tunable`.

    Raises:
        UsageError: the function cannot be tuned; the message says what to do.
    """
    if function is None:
        return lambda function: Tunable(function, **declared)
    return Tunable(function, **declared)


class Tunable:
    """A function with its search space and its golden. Call it, or tune it.

    Args:
        function: the kernel; see `kernel`.
        space: parameter -> its values, or a SearchSpace, or a function that makes one of them from the
            inputs' specs.
        golden: inputs -> the right outputs, an array or a tuple of them. It gets floats as float64, and
            integers as int64 or uint64. Shapes and dtypes of the outputs come from calling it.
        backend: its name, or one with settings.
        name: the cache folder's name; the function's by default.
        baseline: what the best is compared with: a function that takes the inputs and returns the outputs,
            or several by name.
        output_dtype: of the outputs, if there are several one for each. By default the inputs' common float
            dtype for a float output, and golden's own dtype for integers and bool.
        flops: floating-point operations of one call, or a function of the specs; without it no GFLOP/s.
        bytes_moved: bytes that one call must move at the least, or a function of the specs; by default those
            of inputs and outputs, each once.
        reduction_length: terms summed into one output element, or a function of the specs; it widens the
            tolerance. By default the most that the shapes allow; give it if that is too many.
        compare: replaces the comparison by element; see `Kernel`.
        cache_dir: the cache root; $AUTOTUNE_CACHE_DIR, else ~/.cache/autotune, by default.

    Raises:
        UsageError: it cannot be tuned; the message says what to do.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        space: Space | Callable[..., Space],
        golden: Callable[..., Any],
        backend: str | Backend = "numpy",
        name: str = "",
        baseline: Baseline | Mapping[str, Baseline] | None = None,
        output_dtype: str | Sequence[str] | None = None,
        flops: int | OfSpecs | None = None,
        bytes_moved: int | OfSpecs | None = None,
        reduction_length: int | OfSpecs | None = None,
        compare: Callable[..., str] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(function, types.FunctionType):
            raise UsageError(f"autotune.kernel: {function!r:.80} is no function written in Python")
        self.function = self.__wrapped__ = function
        functools.update_wrapper(self, function)
        self.name = name or function.__name__
        self._space, self._baseline, self._compare, self._cache_dir = space, baseline, compare, cache_dir
        self._flops, self._bytes, self._terms = flops, bytes_moved, reduction_length
        self._backend = backends.get(backend) if isinstance(backend, str) else backend
        self._runs = isinstance(self._backend, NumpyBackend)
        self._parameters = Parameters.of(self.name, function, golden, _OPTIONS)
        self._outputs = Outputs(self._parameters, golden, output_dtype)
        if self._runs:
            with _About(self.name):
                module_of(function)
        if isinstance(space, SearchSpace | Mapping):
            self._parameters.space(space)
        self._calls: dict[object, Callable[..., Any]] = {}
        self._told: set[str] = set()

    def __repr__(self) -> str:
        """Return what it is, and what is tuned."""
        inputs, tuned = map(", ".join, (self._parameters.inputs, self._parameters.tuned))
        return f"<kernel {self.name}({inputs}) tunes {tuned}>"

    @property
    def backend(self) -> Backend:
        """The backend that runs it."""
        return self._backend

    @property
    def kernel(self) -> Kernel:
        """The kernel as it is now: its files are read, and the values that it reads are described.

        Raises:
            UsageError: other processes cannot find the function, or a value that it reads cannot be
                described.
        """
        with _About(self.name):
            generator, imports = self._generator()
        return Kernel(
            name=self.name,
            entry=self.function.__name__,
            generators={self._backend.name: generator},
            outputs=self._outputs,
            golden=self._outputs.golden,
            space=self._space_of,
            flops=None if self._flops is None else functools.partial(_count, self._flops),
            bytes_moved=None if self._bytes is None else functools.partial(_count, self._bytes),
            reduction_length=functools.partial(_count, self._terms)
            if self._terms
            else self._outputs.most_terms,
            baselines={} if self._baseline is None else named_baselines(self._baseline),
            compare=self._compare,
            imports=imports,
        )

    def inputs(
        self, *tensors: Tensor, dtype: str | Mapping[str, str] = "float32", seed: int = 0, **named: Tensor
    ) -> Inputs:
        """Return the inputs of one workload.

        Args:
            tensors: shapes, arrays or specs, in the order of the parameters.
            dtype: of those that are given as shapes; one for all, or parameter -> dtype.
            seed: of the values that are drawn.
            named: further ones, by parameter.

        Raises:
            UsageError: one is missing, or is not a parameter.
        """
        given = self._parameters.by_name(tensors, named)
        of = dtype if isinstance(dtype, Mapping) else dict.fromkeys(given, dtype)
        specs = tuple(_spec(name, each, of.get(name, "float32")) for name, each in given.items())
        if not any(map(_is_array, given.values())):
            return Inputs(specs, seed)
        pairs = zip(given.values(), materialize(Inputs(specs, seed)), strict=True)
        arrays = tuple(np.asarray(each) if _is_array(each) else drawn for each, drawn in pairs)
        self._outputs.see(specs, arrays)
        return Inputs(specs, arrays=arrays)

    def tune(
        self,
        *tensors: Tensor,
        seconds: float | None = None,
        trials: int | None = None,
        dtype: str | Mapping[str, str] = "float32",
        seed: int = 0,
        strategy: str | Strategy | None = None,
        baseline: Baseline | Mapping[str, Baseline] | None = None,
        progress: Progress | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        retune: bool = False,
        timing: Timing | None = None,
        devices: str | Sequence[str] | None = None,
        **named: Tensor,
    ) -> Results:
        """Find the fastest config for these shapes or arrays; later calls use it.

        Args:
            tensors: shapes, arrays or specs, in the order of the parameters.
            seconds: that the search may take; no end by default.
            trials: configs that it may try; all by default.
            dtype: of the inputs that are given as shapes; one for all, or parameter -> dtype.
            seed: of the values that are drawn.
            strategy: proposes configs; see `autotune.tune`.
            baseline: instead of the declared one.
            progress: makes the listener of the search; `autotune.tuner.silent` for nothing. By default it is
                a line on stderr, and the notes follow it.
            cache_dir: the cache root, for this call and later ones.
            retune: measure everything again.
            timing: how configs are timed.
            devices: those that search together; see `autotune.tune`.
            named: further tensors, by parameter.

        Raises:
            AutotuneError: see `autotune.tune`.
        """
        leave_to_the_script()
        inputs = self.inputs(*tensors, dtype=dtype, seed=seed, **named)
        self._cache_dir = cache_dir or self._cache_dir
        from autotune.report.live import Live  # as in _tell

        results: Results = tune(
            self.kernel,
            inputs,
            backend=self._backend,
            strategy=search.get(strategy) if isinstance(strategy, str) else strategy,
            budget=Budget(trials, seconds),
            cache_dir=self._cache_dir,
            timing=timing,
            baseline=baseline,
            progress=progress or Live,
            retune=retune,
            devices=devices,
        )
        self._calls.clear()
        for note in () if progress else results.notes:
            _tell(f"{results.kernel} {results.shapes}: {note}")
        return results

    def __call__(self, *tensors: Any, **named: Any) -> Any:
        """Run it with the best config that the cache has for these shapes and dtypes.

        If it has none, a Python function runs with the first config of its space, and a line on stderr says
        so, once. C is not run then: nobody has checked it with such tensors, and it could end this process.

        Raises:
            UsageError: nothing is known of it, or the backend's candidates cannot be called from Python.
        """
        if named:
            tensors = tuple(self._parameters.by_name(tensors, named, outputs=self._runs).values())
        count = len(self._parameters.inputs)
        if not all(isinstance(each, np.ndarray) for each in tensors):
            tensors = tuple(map(np.asarray, tensors))
        key = tuple([(each.shape, each.dtype) for each in tensors[:count]])
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = self._prepared(tensors[:count])
        if not self._parameters.outputs or not self._runs or len(tensors) > count:
            return call(*tensors)
        specs = self._outputs(tuple(map(_spec_of, self._parameters.inputs, tensors)))
        outputs = [np.empty(spec.shape, dtype_of(spec)) for spec in specs]
        call(*tensors, *outputs)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    # -- inside

    def _prepared(self, tensors: Sequence[Array]) -> Callable[..., Any]:
        """Return what calls the kernel for inputs such as these."""
        leave_to_the_script()
        specs = tuple(map(_spec_of, *zip(*self._parameters.by_name(tensors, {}).items(), strict=True)))
        config = self._chosen(Inputs(specs))
        if self._runs:
            return functools.partial(self.function, **config)
        if not isinstance(self._backend, CBackend):
            raise UsageError(
                f"kernel {self.name}: candidates of backend {self._backend.name} cannot be called from Python"
            )
        outputs = self._outputs(specs)
        source = self._text(config, specs, outputs)
        return loaded(self._backend, source, self.function.__name__, specs, outputs)

    def _chosen(self, inputs: Inputs) -> dict[str, Value]:
        """Return the best config for some inputs, or the first one; say on stderr if it is not theirs."""
        kernel, where = self.kernel, f"kernel {self.name} {workload_label(inputs.specs)}"
        space = kernel.space_of(self._backend.name, inputs.specs)
        try:
            choice = best_config(kernel, inputs, self._cache_dir, self._backend)
            why = "was never tuned"
        except AutotuneError as fault:
            choice, why = None, str(fault)
        if choice and choice.config in space:
            changes = [each for each in choice.differs if not each.startswith("data")]
            if changes:
                self._tell_once(
                    f"{where}: changed since it was tuned ({changes[0]}); it runs with what was best then"
                )
            elif choice.shapes[0] != workload_label(inputs.specs):
                self._tell_once(f"{where}: {why}; it runs with what was best for {choice.shapes[0]}")
            return choice.config
        config = next(iter(space), None)
        if config is None:
            raise UsageError(f"{where}: the search space is empty")
        if not self._runs:
            raise UsageError(f"{where}: {why}; tune it first, so that its candidates are checked")
        self._tell_once(f"{where}: {why}; it runs with the first config of its space, {config}")
        return config

    def _tell_once(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            _tell(line)

    def _generator(self) -> tuple[Callable[[Config, Specs, Specs], str], tuple[tuple[str, str], ...]]:
        """Return what writes the candidates, and the modules that they import."""
        if not self._runs:
            return self._text, ()
        found_by_name(self.function)
        begin, returns = head(self.function), not self._parameters.outputs

        def generate(config: Config, _inputs: Specs, _outputs: Specs) -> str:
            return begin + call(self.function.__name__, config, returns=returns)

        return generate, (module_of(self.function),)

    def _text(self, config: Config, inputs: Specs, outputs: Specs) -> str:
        """Have the function generate a candidate's source."""
        text: str = self.function(*inputs, *(outputs if self._parameters.outputs else ()), **config)
        return text

    def _space_of(self, specs: Specs) -> SearchSpace:
        return self._parameters.space(self._space(*specs) if callable(self._space) else self._space)


_OPTIONS = {
    name
    for name, each in inspect.signature(Tunable.tune).parameters.items()
    if each.kind == each.KEYWORD_ONLY
}
"""Names of `tune`'s own arguments, which a tensor cannot have."""


def _count(asked: int | OfSpecs, specs: Specs) -> int:
    count: int = asked(*specs) if callable(asked) else asked
    return count


def _is_array(tensor: object) -> bool:
    return hasattr(tensor, "__array__")


def _spec(name: str, tensor: Tensor, dtype: str = "float32") -> TensorSpec:
    """Return the spec of a tensor that is given as array, spec or shape."""
    if isinstance(tensor, TensorSpec):
        return replace(tensor, name=name)
    if not _is_array(tensor):
        return TensorSpec(name, (tensor,) if isinstance(tensor, int) else tuple(tensor), dtype)
    array = np.asarray(tensor)
    strides = None if array.flags.c_contiguous else tuple(step // array.itemsize for step in array.strides)
    return TensorSpec(name, array.shape, array.dtype.name, strides)


def _tell(line: str) -> None:
    from autotune.report.terminal import say  # with tables and bars, which few calls need

    say(line, sys.stderr)


def _spec_of(name: str, array: Array) -> TensorSpec:
    """Return the spec of an array as if it were in C order: where it lies does not choose the config."""
    return TensorSpec(name, array.shape, array.dtype.name)


class _About:
    """Name the kernel in what the user hears of its function.

    Args:
        name: of the kernel.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Name the kernel in an error of ours."""
        if isinstance(error, UsageError):
            raise UsageError(f"kernel {self._name}: {error}") from None
