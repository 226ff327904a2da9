"""Job: one config of one workload, its source, its identity and the name of its folder."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from autotune.model.errors import UsageError
from autotune.model.fingerprint import Indescribable, digest, function_digest
from autotune.model.kernel import Generator, Inputs, Kernel, Specs, TensorSpec
from autotune.model.space import Config, Value
from autotune.model.tensors import dtype_of, extent_bytes, materialize

NAME_BYTES = 255  # NAME_MAX of ext4, xfs, apfs and NFS alike
_CUT_DIGITS = 16
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_PLAIN_VALUE = re.compile(r"(?!(?:True|False|nan|inf)$)[A-Za-z_][A-Za-z0-9_.+-]*")
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


class GeneratorError(Exception):
    """The generator made no source of a config.

    Attributes:
        invalid: the generator rejects the config, which it says by a ValueError; otherwise it is at fault.
    """

    def __init__(self, message: str, *, invalid: bool) -> None:
        super().__init__(f"the generator: {message}")
        self.invalid = invalid


class _Guarded:
    """Turn any exception of a generator into a GeneratorError: it is the user's code."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Replace an exception, but for those that end the program."""
        if isinstance(error, Exception):
            raise GeneratorError(repr(error), invalid=isinstance(error, ValueError)) from error


Context = Mapping[str, Any]
"""All that decides a result beside config and source: plain JSON values, which `differences` compares."""


@dataclass(frozen=True)
class Job:
    """One config, ready to compile.

    Attributes:
        config: the config.
        source: the candidate's source text.
        identity: digest of all that decides the result.
        path: its folder, relative to the workload's.
    """

    config: dict[str, Value]
    source: str
    identity: str
    path: str


@dataclass(frozen=True)
class Workload:
    """One kernel on one set of inputs with one backend and one timing method.

    Attributes:
        kernel: what is tuned.
        inputs: the tensors it is given.
        outputs: the tensors it writes.
        backend: which of the kernel's generators makes the sources.
        context: all that decides a result beside config and source.
        includes: source -> path and digest of each file that it includes.
    """

    kernel: Kernel
    inputs: Inputs
    outputs: Specs
    backend: str
    context: Context
    includes: Callable[[str], Mapping[str, str]] = lambda _source: {}

    @functools.cached_property
    def dtype(self) -> str:
        """The dtype of the first tensor that is written."""
        return self.kernel.checked(self.inputs.specs)[0].dtype

    @functools.cached_property
    def digest(self) -> str:
        """The context's digest, by which records refer to it."""
        return digest(self.context)

    @functools.cached_property
    def _generator(self) -> Generator:
        return self.kernel.generators[self.backend]

    @functools.cached_property
    def _prefix(self) -> str:
        first = next(iter(self.kernel.generators))
        return "" if self.backend == first else f"backend={self.backend},"

    def source(self, config: Config) -> str:
        """Generate a config's source.

        Raises:
            GeneratorError: it cannot be generated.
        """
        with _Guarded():
            text = self._generator(config, self.inputs.specs, self.outputs)
        if not isinstance(text, str):
            raise GeneratorError(f"it returned {type(text).__name__}, not str", invalid=False)
        return text

    def job(self, config: Config) -> Job:
        """Generate a config's source and name it.

        Raises:
            GeneratorError: the source cannot be generated.
        """
        source = self.source(config)
        return Job(dict(config), source, self.identity(config, source), self.path(config))

    def identity(self, config: Config, source: str) -> str:
        """Digest all that decides the result, in 32 hex digits."""
        text = f"{self.digest}\n{sorted(config.items())}\n{source}"
        if included := self.includes(source):
            text += f"\n{sorted(included.items())}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def path(self, config: Config) -> str:
        """Name the config's folder; the name begins with the backend unless that is the kernel's first."""
        return config_label(config, self._prefix)


def workload(
    kernel: Kernel,
    inputs: Inputs,
    backend: str,
    decides: Context,
    includes: Callable[[str], Mapping[str, str]] = lambda _source: {},
) -> Workload:
    """Bind a kernel to its inputs and to a backend.

    Args:
        kernel: what is tuned.
        inputs: the tensors it is given.
        backend: a name among the kernel's generators.
        decides: what else decides a result: the backend's fingerprint, the timing, the check of the outputs.
        includes: source -> path and digest of each file that it includes.

    Raises:
        UsageError: the kernel has no generator for this backend, or its name cannot name a folder.
            A dtype is not known or has no tolerance. Nothing is written, or `in_place` is wrong.
        DataError: the inputs hold NaN or infinity, or do not match their specs.
    """
    if backend not in kernel.generators:
        known = ", ".join(kernel.generators)
        raise UsageError(f"kernel {kernel.name}: no generator for backend {backend!r}; it has {known}")
    if not _PLAIN_NAME.fullmatch(kernel.name) or len(kernel.name) > NAME_BYTES:
        raise UsageError(f"kernel name {kernel.name!r} cannot name a folder; use letters, digits, _ . + -")
    specs = inputs.specs
    outputs = tuple(kernel.outputs(specs))
    if not kernel.checked(specs):
        raise UsageError(f"kernel {kernel.name}: no outputs and nothing in_place, so nothing can be checked")
    for spec in specs + outputs:
        dtype_of(spec)
    context = {
        "kernel": kernel.name,
        "entry": kernel.entry,
        "backend": backend,
        "inputs": [spec_dict(spec) for spec in specs],
        "outputs": [spec_dict(spec) for spec in outputs],
        "data": _data_digest(inputs),
        "golden": _known_by(kernel, "golden", kernel.golden),
        **({"compare": _known_by(kernel, "compare", kernel.compare)} if kernel.compare else {}),
        **({"in_place": list(kernel.in_place)} if kernel.in_place else {}),
        "work": _work(kernel, specs, outputs),
        **decides,
    }
    return Workload(kernel, inputs, outputs, backend, json.loads(_encode(context)), includes)


def _known_by(kernel: Kernel, field: str, function: Callable[..., object]) -> str:
    try:
        return function_digest(function)
    except Indescribable as fault:
        raise UsageError(f"kernel {kernel.name}: {field} {fault}") from None


def _work(kernel: Kernel, specs: Specs, outputs: Specs) -> dict[str, int | None]:
    moved = kernel.bytes_moved(specs) if kernel.bytes_moved else sum(map(_least_bytes, specs + outputs))
    return {
        "flops": None if kernel.flops is None else _count(kernel, "flops", kernel.flops(specs)),
        "bytes": _count(kernel, "bytes_moved", moved),
        "reduction_length": _count(kernel, "reduction_length", kernel.reduction_length(specs)),
    }


def _least_bytes(spec: TensorSpec) -> int:
    """Return the bytes of a tensor's elements; of those with one address, such as broadcast ones, once."""
    return min(math.prod(spec.shape) * dtype_of(spec).itemsize, extent_bytes(spec))


def _count(kernel: Kernel, field: str, value: object) -> int:
    """Return a count that a kernel gives, which NumPy may have made.

    Raises:
        UsageError: it is not one.
    """
    if isinstance(value, int | float | np.integer | np.floating) and math.isfinite(value) and value >= 0:
        return int(value)
    raise UsageError(f"kernel {kernel.name}: {field} is a count, not {value!r:.60}")


def differences(was: Context, now: Context) -> list[str]:
    """Say which fields of two contexts differ, one `field: was -> now` each."""
    changes = []
    for key in sorted({*was, *now}):
        before, after = was.get(key), now.get(key)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            changes += [f"{key}.{line}" for line in differences(before, after)]
        else:
            changes.append(f"{key}: {_show(before)} -> {_show(after)}")
    return changes


def _show(value: object) -> str:
    text = "absent" if value is None else value if isinstance(value, str) else _encode(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def config_label(config: Config, prefix: str = "") -> str:
    """Name a config's folder: `NUM_BLOCK_M=2,loop_order=MNK`, no two configs alike.

    Names are sorted. Text that could be taken for something else (`a,b=1`, `2`, `../x`) is cleaned and a
    digest added; so is a name of more than 255 bytes, which file systems refuse.
    """
    parts = [f"{name}={config[name]}" for name in sorted(config)]
    label = prefix + (",".join(parts) or "default")
    plain = all(_PLAIN_NAME.fullmatch(name) for name in config) and all(map(_is_plain, config.values()))
    if plain and len(label) <= NAME_BYTES:
        return label
    clean = re.sub(r"^\.|[^A-Za-z0-9_.+=,-]", "_", label)
    return f"{clean[: NAME_BYTES - _CUT_DIGITS - 1]}#{digest(config)[:_CUT_DIGITS]}"


def _is_plain(value: Value) -> bool:
    return not isinstance(value, str) or _PLAIN_VALUE.fullmatch(value) is not None


def workload_label(specs: Specs) -> str:
    """Name a workload's folder by its input shapes: `1024x512_512x1024`.

    float32 in C order is what the bare shapes mean; other dtypes or strides are added, since they are other
    workloads: `128x128_128x128,float64`.
    """
    label = "_".join("x".join(map(str, spec.shape)) or "scalar" for spec in specs) or "no_inputs"
    dtypes = [spec.dtype for spec in specs]
    if set(dtypes) - {"float32"}:
        label += "," + "_".join(dtypes if len(set(dtypes)) > 1 else dtypes[:1])
    strided = any(spec.strides is not None for spec in specs)
    if not strided and len(label) <= NAME_BYTES:
        return label
    key = digest([spec_dict(spec) for spec in specs])[:_CUT_DIGITS]
    label += ",strided" if strided else ""
    return f"{label[: NAME_BYTES - _CUT_DIGITS - 1]}#{key}"


def spec_dict(spec: TensorSpec) -> dict[str, Any]:
    """Return a spec as plain JSON values."""
    plain = asdict(spec)
    if spec.range is None:
        del plain["range"]
    return json.loads(_encode(plain))  # type: ignore[no-any-return]


def _data_digest(inputs: Inputs) -> dict[str, object]:
    if not inputs.arrays:
        return {"seed": inputs.seed}
    state = hashlib.sha256()
    for array in materialize(inputs):
        state.update(np.ascontiguousarray(array).view(np.uint8).data)
    return {"arrays": state.hexdigest()[:32]}
