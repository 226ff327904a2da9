"""One candidate in a process of its own: its text becomes a kernel that is estimated, or run and checked."""

from __future__ import annotations

import linecache
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autotune.estimating.result import figures
from autotune.model.errors import UsageError
from autotune.model.kernel import Specs
from autotune.model.tensors import Array
from autotune.model.trial import Status
from autotune.nki import Estimate, NkiError, activate, estimate, simulate
from autotune.sites.correctness import Golden

FILE = "candidate.py"
"""What messages call the text of a candidate."""
_CALL = "\n\nKERNEL = "
"""Where the text of a candidate becomes its own; what stands before it is that of all candidates."""


@dataclass(frozen=True)
class Task:
    """Say what all candidates of one ranking have in common.

    Args:
        specs: the inputs.
        target: "trn1", "trn2" or "trn3".
        memory_bytes: address space that a candidate may use beside what the process has; 0 for no limit.
        arrays, golden: to run and check candidates; without them they are estimated.
    """

    specs: Specs
    target: str
    memory_bytes: int = 0
    arrays: Sequence[Array] = ()
    golden: Golden | None = None


Reply = tuple[Status, str, dict[str, Any]]
"""How a candidate ended, the message, and what the model says of it."""


class Texts:
    """Turn the texts of candidates into their kernels; what all of them share is compiled and run once."""

    def __init__(self) -> None:
        """Let `import nki` mean the interpreter, also where AWS's package is: nothing is run on a device."""
        activate(force=True)
        self._shared: dict[str, dict[str, Any]] = {}

    def kernel(self, text: str) -> tuple[Any, dict[str, Any]]:
        """Return the kernel of a text, and the keywords of its call.

        Raises:
            UsageError: the text names none.
        """
        shared, call, own = text.rpartition(_CALL)
        if shared not in self._shared:
            lines = f"{text}\n".splitlines(keepends=True)
            linecache.cache[FILE] = (len(text), None, lines, FILE)  # for the names of tensors, and messages
            names: dict[str, Any] = {"__name__": "candidate"}
            exec(compile(shared, FILE, "exec"), names)
            self._shared = {shared: names}
        names = dict(self._shared[shared])
        line = "\n" * shared.count("\n")
        exec(compile(f"{line}{call}{own}", FILE, "exec"), names)
        if "KERNEL" not in names or not isinstance(names.get("CONFIG"), dict):
            raise UsageError("an NKI candidate ends with KERNEL = its function, CONFIG = its keywords")
        return names["KERNEL"], names["CONFIG"]


def estimate_text(text: str, specs: Specs, target: str) -> Estimate:
    """Estimate a candidate in this process, with its timeline.

    Raises:
        NkiError: the kernel asks for what the target does not have.
    """
    kernel, config = Texts().kernel(text)
    return estimate(kernel, *[(spec.shape, spec.dtype) for spec in specs], target=target, **config)


class Candidates:
    """Turn texts into replies, one after the other."""

    def __init__(self, task: Task) -> None:
        """Prepare the process, and limit its memory."""
        self._task = task
        self._texts = Texts()
        if task.memory_bytes:
            limit = _address_space() + task.memory_bytes
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def reply(self, text: str) -> Reply:
        """Estimate a candidate, or run it on the arrays and compare its outputs with the golden."""
        try:
            kernel, config = self._texts.kernel(text)
            if self._task.golden is None:
                return Status.OK, "", self._estimate(kernel, config)
            wrong = self._check(kernel, config, self._task.golden)
        except NkiError as error:
            return Status.INVALID, str(error), {}
        except MemoryError:
            return Status.OUT_OF_MEMORY, f"more than {self._task.memory_bytes:,} bytes of memory", {}
        except Exception as error:  # noqa: BLE001  a candidate is anybody's code
            return Status.ERROR, f"{type(error).__name__}: {error}", {}
        return (Status.WRONG_OUTPUT, wrong, {}) if wrong else (Status.OK, "", {})

    def _estimate(self, kernel: Any, config: dict[str, Any]) -> dict[str, Any]:
        operands = [(spec.shape, spec.dtype) for spec in self._task.specs]
        return figures(estimate(kernel, *operands, target=self._task.target, **config))

    def _check(self, kernel: Any, config: dict[str, Any], golden: Golden) -> str:
        inputs = [array.copy() for array in self._task.arrays]
        found = simulate(kernel, self._task.target)(*inputs, **config)
        outputs = [np.asarray(each) for each in (found if isinstance(found, tuple) else (found,))]
        expected = [(spec.shape, spec.dtype) for spec in golden.specs]
        got = [(array.shape, array.dtype.name) for array in outputs]
        if got != expected:
            return f"the outputs are {got}, they should be {expected}"
        mismatch = golden.compare(outputs)
        return str(mismatch) if mismatch else ""


def _address_space() -> int:
    """Return the bytes of address space that the process has."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  one line of the kernel's
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0
