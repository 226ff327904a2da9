"""A backend goes to another process as it is, wherever its class comes from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

from autotune.backends import get
from autotune.backends.c import CBackend
from autotune.backends.numpy import NumpyBackend
from autotune.backends.travel import Sent, pack, unpack
from autotune.model.errors import UnavailableError, UsageError

ELSEWHERE = """
from dataclasses import dataclass
from autotune.backends import Artifact, Binding
from autotune.backends.numpy import NumpyBackend, array_at, timed

@dataclass(frozen=True)
class Scaled(NumpyBackend):
    name: str = "scaled"
    factor: float = 1.0
    words: tuple[tuple[str, int], ...] = ()

    def load(self, artifact: Artifact) -> Binding:
        scope = {}
        exec(open(artifact.path).read(), scope)

        def bind(addresses):
            arrays = [array_at(a, s) for a, s in zip(addresses, artifact.inputs + artifact.outputs)]
            return timed(lambda: scope["double"](self.factor, *arrays), ())

        return bind
"""
TUNE = """
import numpy as np
from autotune import Inputs, Kernel, SearchSpace, TensorSpec, Timing, tune

kernel = Kernel(
    name="double", entry="double", outputs=lambda specs: (TensorSpec("out", specs[0].shape),),
    generators={"scaled": lambda config, ins, outs: "def double(factor, x, out): out[...] = factor * x"},
    golden=lambda x: (2 * x,), flops=lambda specs: 0, bytes_moved=lambda specs: 0,
    space=lambda specs: SearchSpace({"a": [1, 2]}),
)

def main(backend):
    timing = Timing(warmup_s=0, min_repeats=6, max_repeats=6, min_sample_ns=1)
    inputs = Inputs((TensorSpec("x", (8, 8)),))
    results = tune(kernel, inputs, backend=backend, cache_dir="cache", timing=timing)
    print([trial.status.value for trial in results.trials])
"""


def ran(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder."""
    given = {**os.environ, "TMPDIR": str(folder), **env}
    return subprocess.run([sys.executable, *words], cwd=folder, env=given, capture_output=True, text=True)


@pytest.mark.parametrize(
    "backend", [CBackend(), CBackend("cc -m64", ("-O1", "-g"), "mine"), NumpyBackend(), NumpyBackend("other")]
)
def test_a_backend_arrives_as_it_was(backend: CBackend | NumpyBackend) -> None:
    sent = Sent(**json.loads(json.dumps(asdict(pack(backend)))))

    assert (type(backend), backend) == (type(unpack(sent)), unpack(sent))


def test_every_backend_of_ours_is_ours() -> None:
    assert [True, True] == [pack(get(name)).is_ours for name in ("c", "numpy")]


def test_a_backend_of_another_package_tunes(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/__init__.py").write_text("")
    (tmp_path / "theirs/scaled.py").write_text(ELSEWHERE)
    (tmp_path / "script.py").write_text(
        TUNE + "\nfrom theirs.scaled import Scaled\nmain(Scaled(factor=2.0))\n"
    )

    done = ran(tmp_path, "script.py")

    assert "['ok', 'ok']\n" == done.stdout, done.stderr


def test_the_settings_decide_what_the_worker_does(tmp_path: Path) -> None:
    (tmp_path / "scaled.py").write_text(ELSEWHERE)
    (tmp_path / "script.py").write_text(TUNE + "\nfrom scaled import Scaled\nmain(Scaled(factor=3.0))\n")

    done = ran(tmp_path, "script.py")

    assert "['wrong_output', 'wrong_output']\n" == done.stdout, done.stderr


def test_a_backend_of_the_script_itself_tunes(tmp_path: Path) -> None:
    """Its guarded part does not run in the worker, which would tune again."""
    guarded = "\nif __name__ == '__main__':\n    print('once')\n    main(Scaled(factor=2.0))\n"
    (tmp_path / "script.py").write_text(ELSEWHERE + TUNE + guarded)

    done = ran(tmp_path, "script.py")

    assert "once\n['ok', 'ok']\n" == done.stdout, done.stderr


def test_a_module_that_the_worker_cannot_import_is_named(tmp_path: Path) -> None:
    script = (
        f"import sys, types\nmodule = sys.modules['made'] = types.ModuleType('made')\n"
        f"exec({ELSEWHERE!r}, vars(module))\nmain(module.Scaled(factor=2.0))\n"
    )
    (tmp_path / "script.py").write_text(TUNE + textwrap.dedent(script))

    done = ran(tmp_path, "script.py")

    assert "cannot import the backend made.Scaled" in done.stderr.splitlines()[-1]
    assert "UnavailableError" in done.stderr


@dataclass(frozen=True)
class Holder(NumpyBackend):
    """A backend with a setting that cannot be sent."""

    name: str = "holder"
    held: object = field(default_factory=object)


def test_a_setting_that_cannot_be_sent_is_named() -> None:
    with pytest.raises(UsageError, match=r"'holder'.*Holder\.held: .*not made of numbers, texts and tuples"):
        pack(Holder())


def test_a_class_that_cannot_be_found_by_name_is_refused() -> None:
    @dataclass(frozen=True)
    class Local(NumpyBackend):
        name: str = "local"

    with pytest.raises(UsageError, match=r"'local'.* is not at the top of a module"):
        pack(Local())


@pytest.mark.parametrize(
    "sent",
    [
        Sent("no.such.module", "X"),
        Sent("autotune.backends.numpy", "NoClass"),
        Sent("autotune.backends.numpy", "NumpyBackend", "", {"unknown": 1}),
        Sent("__main__", "X", "no-such-file.py"),
        Sent("__main__", "X"),
    ],
)
def test_what_cannot_be_made_is_an_error_of_ours(sent: Sent) -> None:
    with pytest.raises(UnavailableError, match="cannot import the backend"):
        unpack(sent)
