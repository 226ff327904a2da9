"""Job: one config of one workload, its source, its identity and the name of its folder."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from autotune.model.errors import UsageError
from autotune.model.kernel import Generator, Inputs, Kernel, Specs, TensorSpec
from autotune.model.space import Config, Value
from autotune.model.tensors import dtype_of, materialize

NAME_BYTES = 255  # NAME_MAX of ext4, xfs, apfs and NFS alike
_CUT_DIGITS = 16
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_PLAIN_VALUE = re.compile(r"(?!(?:True|False|nan|inf)$)[A-Za-z_][A-Za-z0-9_.+-]*")
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode

GENERATOR_FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
"""What a generator raises if it cannot make a source of a config; ValueError if the config is invalid."""

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
    """

    kernel: Kernel
    inputs: Inputs
    outputs: Specs
    backend: str
    context: Context

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
            GENERATOR_FAULTS: from the generator.
        """
        return self._generator(config, self.inputs.specs, self.outputs)

    def job(self, config: Config) -> Job:
        """Generate a config's source and name it.

        Raises:
            GENERATOR_FAULTS: from the generator.
        """
        source = self.source(config)
        return Job(dict(config), source, self.identity(config, source), self.path(config))

    def identity(self, config: Config, source: str) -> str:
        """Digest all that decides the result, in 32 hex digits."""
        text = f"{self.digest}\n{sorted(config.items())}\n{source}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def path(self, config: Config) -> str:
        """Name the config's folder; the name begins with the backend unless that is the kernel's first."""
        return config_label(config, self._prefix)


def workload(kernel: Kernel, inputs: Inputs, backend: str, decides: Context) -> Workload:
    """Bind a kernel to its inputs and to a backend.

    Args:
        kernel: what is tuned.
        inputs: the tensors it is given.
        backend: a name among the kernel's generators.
        decides: what else decides a result: the backend's fingerprint, the timing method.

    Raises:
        UsageError: the kernel has no generator for this backend, or its name cannot name a folder.
            A dtype is not known or has no tolerance.
        DataError: the inputs hold NaN or infinity, or do not match their specs.
    """
    if backend not in kernel.generators:
        known = ", ".join(kernel.generators)
        raise UsageError(f"kernel {kernel.name}: no generator for backend {backend!r}; it has {known}")
    if not _PLAIN_NAME.fullmatch(kernel.name) or len(kernel.name) > NAME_BYTES:
        raise UsageError(f"kernel name {kernel.name!r} cannot name a folder; use letters, digits, _ . + -")
    specs = inputs.specs
    outputs = kernel.outputs(specs)
    for spec in specs + outputs:
        dtype_of(spec)
    context = {
        "kernel": kernel.name,
        "entry": kernel.entry,
        "backend": backend,
        "inputs": [spec_dict(spec) for spec in specs],
        "outputs": [spec_dict(spec) for spec in outputs],
        "data": _data_digest(inputs),
        "golden": source_digest(kernel.golden),
        "work": {
            "flops": kernel.flops(specs),
            "bytes": kernel.bytes_moved(specs),
            "reduction_length": kernel.reduction_length(specs),
        },
        **decides,
    }
    return Workload(kernel, inputs, outputs, backend, json.loads(_encode(context)))


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
    label = "_".join("x".join(map(str, spec.shape)) or "scalar" for spec in specs)
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
    return json.loads(_encode(asdict(spec)))  # type: ignore[no-any-return]


def digest(value: object) -> str:
    """Digest a JSON value, whatever the order of its keys."""
    return hashlib.sha256(_encode(value).encode()).hexdigest()[:32]


def source_digest(function: Callable[..., object]) -> str:
    """Digest a function's own source text, or its byte code if the text cannot be read.

    Plain values that a partial binds count. Others have no text that is the same in another process.
    """
    bound: list[object] = []
    while isinstance(function, functools.partial):
        bound += [*function.args, *sorted(function.keywords.items())]
        function = function.func
    plain = [repr(value) for value in bound if isinstance(value, (str, int, float, tuple))]
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        text = code.co_code.hex() if code else getattr(function, "__qualname__", type(function).__qualname__)
    return digest([text, *plain])


def _data_digest(inputs: Inputs) -> dict[str, object]:
    if not inputs.arrays:
        return {"seed": inputs.seed}
    state = hashlib.sha256()
    for array in materialize(inputs):
        state.update(np.ascontiguousarray(array).data)
    return {"arrays": state.hexdigest()[:32]}
