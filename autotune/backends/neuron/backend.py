"""NKI kernels on NeuronCores: how they are compiled, and which process runs them on which core."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.backends._base import Backend, Isolation
from autotune.backends.artifact import Artifact, Build, object_name
from autotune.backends.device import DeviceFault, Fault, HostTensor
from autotune.backends.neuron import cores, errors, peaks, toolchain
from autotune.backends.neuron.device import NeuronDevice
from autotune.backends.neuron.toolchain import COMPILE_PROGRAM, COMPILE_PYTHON, RUN_PROGRAM, RUN_PYTHON
from autotune.machine.cpu import not_private, program_folder
from autotune.model.budget import Limits
from autotune.model.errors import DataError, UnavailableError
from autotune.model.kernel import Specs, TensorSpec
from autotune.model.roofline import Roofline
from autotune.model.trial import Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEVER_RUN = (
    "backend neuron was never run on a device by its authors: it was tested with stand-ins for the Neuron SDK"
)
_COMPILE_S = 600.0  # what AWS's own tuner allows
_MARGIN_S = 2
"""Seconds by which the runtime gives up before the tuner does: then the runtime says what hung."""


@dataclass(frozen=True)
class NeuronBackend(Backend):
    """Compile NKI kernels with `nki` in one interpreter, run them with `nrtpy` or `spike` in another.

    A source is a Python file for `nki`. It defines the entry; or `KERNEL`, the function, and `CONFIG`, the
    keywords of its call.

    Args:
        name: of the generators.
        compile_python: the interpreter with nki; by default $AUTOTUNE_NEURON_COMPILE_PYTHON, else this one.
        run_python: that with nrtpy or spike; by default $AUTOTUNE_NEURON_RUN_PYTHON, else this one.
        target: trn1, trn2 or trn3; of the instance's type by default.
        lnc: physical cores of a logical one; the runtime's setting by default.
        options: of neuronx-cc.
        exec_timeout_s: after which the runtime ends an execution (NEURON_RT_EXEC_TIMEOUT); 0 for a little
            less than a call may take by default.
    """

    name: str = "neuron"
    compile_python: str = ""
    run_python: str = ""
    target: str = ""
    lnc: int = 0
    options: tuple[str, ...] = ()
    exec_timeout_s: int = 0

    def why_not(self) -> str:
        """Return why this machine cannot measure; empty if it can."""
        if not cores.has_devices():
            return "this machine has no NeuronCore"
        try:
            self.fingerprint()
            self.devices()
        except UnavailableError as fault:
            return str(fault)
        return ""

    def caution(self) -> str:
        """Return that this was never run on a device."""
        return NEVER_RUN

    def fingerprint(self) -> dict[str, str]:
        """Return the versions of compiler, runtime and driver; target, LNC, options and instance type.

        Raises:
            UnavailableError: an interpreter does not have its half of the Neuron SDK, or there is no core.
        """
        compiles = toolchain.versions(self._compiles, COMPILE_PROGRAM, COMPILE_PYTHON)
        runs = toolchain.versions(self._runs, RUN_PROGRAM, RUN_PYTHON)
        driver = toolchain.driver_version()
        made = ", ".join(f"{name} {version or 'unknown'}" for name, version in compiles.items())
        return {
            "backend": self.name,
            "version": f"{made}, {runs['module']}, runtime {runs['runtime']}, driver {driver}",
            "flags": " ".join(self.options),
            "target": self._target,
            "lnc": str(self._logical),
            "device": toolchain.instance_type(),
        }

    def includes(self, _source: str) -> dict[str, str]:
        """Return nothing: what a Python source imports is not known before it runs."""
        return {}

    def build(self, source: str, entry: str, inputs: Specs, outputs: Specs, folder: Path) -> Build:
        """Return how the interpreter with nki compiles a source."""
        key = object_name(source, entry, repr(inputs), repr(outputs), *self.fingerprint().values())
        artifact = Artifact(self.name, entry, str(folder / key), "kernel.neff", inputs, outputs)
        part = f"{artifact.folder}.{os.getpid()}.part"
        words = ["--entry", entry, "--target", self._target, "--lnc", str(self._logical)]
        words += [word for spec in inputs for word in ("--input", _told(spec))]
        words += [f"--option={option}" for option in self.options]
        words += ["--keep", f"{kept}/{key}"] if (kept := _kept_neffs()) else []
        command = (self._compiles, "-I", COMPILE_PROGRAM, part, *words)
        return Build(artifact, source, command, part)

    def compile_failure(self, log: str) -> tuple[Status, str] | None:
        """Return what neuronx-cc's messages mean."""
        return errors.of_the_compiler(log)

    def isolation(self) -> Isolation:
        """Return that the candidates of a core share a process, which holds it."""
        return "device"

    def devices(self) -> tuple[str, ...]:
        """Return the numbers of the free logical cores.

        Raises:
            UnavailableError: there is none; the message says who holds them.
        """
        free = cores.usable(cores.list_cores(self.lnc), os.environ.get(cores.VISIBLE, ""))
        return tuple(str(core.number) for core in free)

    def limits(self) -> Limits:
        """Return the limits; a runtime maps more memory than it uses, so there is none for it."""
        return Limits(compile_s=_COMPILE_S, memory_bytes=0)

    def roofline(self, dtype: str, *, again: bool = False) -> Roofline | None:  # noqa: ARG002
        """Return the data sheet's peaks of one logical core."""
        return peaks.roofline(self._target, self._logical, dtype)

    def open(self, device: str, inputs: Sequence[HostTensor], outputs: Sequence[HostTensor]) -> NeuronDevice:
        """Start the process that holds a core."""
        try:
            python, logical = self._runs, self._logical
        except UnavailableError as fault:
            raise DeviceFault(str(fault)) from fault
        timeout_s = self.exec_timeout_s or max(1, int(self.limits().run_s) - _MARGIN_S)
        env = {
            **toolchain.libraries(),
            cores.VISIBLE: device,
            cores.LOGICAL: str(logical),
            "NEURON_RT_EXEC_TIMEOUT": str(timeout_s),
        }
        return NeuronDevice(python, env, logical, inputs, outputs)

    def study(
        self,
        source: str,
        entry: str,
        inputs: Sequence[tuple[TensorSpec, NDArray[Any]]],
        outputs: Specs,
        folder: Path,
    ) -> str:
        """Have the best candidate traced once, and its trace summarized by neuron-profile."""
        from autotune.backends.neuron import traced  # it needs NumPy

        try:
            found = traced.record(self, self.open, source, entry, inputs, outputs, folder)
        except (Fault, DeviceFault, DataError, UnavailableError) as error:
            return f"no profile of the best config: {error}"
        return f"profile of the best config: {found}; the trace is {folder / traced.NTFF}"

    # -- what the settings leave open

    @property
    def _compiles(self) -> str:
        return toolchain.interpreter(self.compile_python, COMPILE_PYTHON)

    @property
    def _runs(self) -> str:
        return toolchain.interpreter(self.run_python, RUN_PYTHON)

    @property
    def _target(self) -> str:
        target = self.target or _target_of(toolchain.instance_type())
        if target not in peaks.TARGETS:
            raise UnavailableError(
                f"target {target or 'unknown'}: NeuronBackend(target=) is one of {', '.join(peaks.TARGETS)}"
            )
        return target

    @property
    def _logical(self) -> int:
        return _logical(self.lnc)


@functools.cache
def _kept_neffs() -> str:
    """Return the folder of NEFFs that outlive a run; empty if others could write to it."""
    folder = program_folder() / "neffs"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return "" if not_private(folder) else str(folder)
    except OSError:
        return ""


def _told(spec: TensorSpec) -> str:
    return f"{spec.name}:{spec.dtype}:{'x'.join(map(str, spec.shape))}"


def _target_of(instance: str) -> str:
    """Return the target of an instance's type; inf2 has the cores of trn1."""
    return instance[:4] if instance.startswith("trn") else "trn1" if instance.startswith("inf2") else ""


@functools.cache
def _logical(wanted: int) -> int:
    """Return the physical cores of a logical one, as the runtime has it.

    Raises:
        UnavailableError: it is not what is wanted.
    """
    found = {core.logical for core in cores.list_cores(wanted)}
    if len(found) > 1 or (wanted and found != {wanted}):
        has = " and ".join(map(str, sorted(found)))
        raise UnavailableError(
            f"LNC {wanted or 'of the machine'}: neuron-ls reports {has}; set {cores.LOGICAL}"
        )
    return found.pop()
