"""A space of which every third config does its worst: all others are measured, and nothing is left behind."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from numpy.typing import NDArray

import autotune
from autotune.backends.c import CBackend
from autotune.model.budget import Budget, Limits
from autotune.model.kernel import Inputs, Kernel, Specs, TensorSpec
from autotune.model.space import Config, SearchSpace
from autotune.model.timing import Timing

LENGTH = 512
SHORT, LONG = 66, 200  # two of each fault, and six
RIGHT = f"for (int i = 0; i < {LENGTH}; i++) out[i] = a[i] + b[i];"
ONCE = "static int done; if (!done++)"

FAULTS = {
    "segfault": ('fclose(fopen("stray", "w")); *(volatile int *)0 = 1;', "crash", "killed by SIGSEGV"),
    "loop": ("volatile int on = 1; while (on) ;", "timeout", "did not return within 1 s"),
    "allocate": (
        "for (;;) { char *p = malloc(1 << 20); memset(p, 1, 1 << 20); }",
        "out_of_memory",
        "needed more than 128 MiB of memory",
    ),
    "overrun": (f"{RIGHT} out[{LENGTH}] = 1;", "wrong_output", "out: wrote 4 bytes outside the tensor"),
    "wild write": (f"{RIGHT} out[1 << 20] = 1;", "crash", "killed by SIGSEGV"),
    "wrong": (
        "for (int i = 0; i < 512; i++) out[i] = a[i];",
        "wrong_output",
        "out: 512 of 512 elements wrong",
    ),
    "print": (
        "static char line[1000]; for (int i = 0; i < 100000; i++) fwrite(line, 1, sizeof line, stdout);",
        "error",
        "wrote more than 1048576 bytes of output",
    ),
    "leave a child": (f"{ONCE} if (!fork()) {{ setsid(); for (;;) pause(); }} {RIGHT}", "ok", ""),
    "exit": ("exit(0);", "error", "ended the process with exit code 0 before it returned"),
    "stop": ("raise(SIGSTOP);", "crash", "stopped itself with SIGSTOP"),
    "not C": ("this is not C", "compile_error", "the compiler ended with exit code 1"),
}
HEADERS = "".join(f"#include <{name}.h>\n" for name in ("signal", "stdio", "stdlib", "string", "unistd"))


def fault(config: Config) -> str | None:
    """Return which fault a config has; None for two of three."""
    number = int(config["number"])
    return list(FAULTS)[number // 3 % len(FAULTS)] if number % 3 == 0 else None


def source(config: Config, _inputs: Specs, _outputs: Specs) -> str:
    """Generate a candidate, sound or not."""
    name = fault(config)
    text = FAULTS[name][0] if name else RIGHT
    return (
        f"{HEADERS}/* {config['number']} */\n"
        f"void add(const float *a, const float *b, float *out) {{ {text} }}\n"
    )


def add(a: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[Any]]:
    """Return what every candidate should."""
    return (a + b,)


KERNEL = Kernel(
    name="drill",
    entry="add",
    generators={"c": source},
    outputs=lambda specs: (TensorSpec("out", specs[0].shape),),
    golden=add,
    baselines={"NumPy": add},
    flops=lambda _specs: LENGTH,
    bytes_moved=lambda _specs: 12 * LENGTH,
    space=lambda _specs: SearchSpace({"number": range(LONG)}),
)


def running(program: str, before: set[psutil.Process]) -> list[str]:
    """Return the processes that have this in their command line, and our new ones, zombies included."""
    found = [child.name() for child in {*psutil.Process().children(recursive=True)} - before]
    for process in psutil.process_iter(["cmdline"]):
        if program in " ".join(process.info["cmdline"] or ()):
            found.append(process.name())
    return found


@pytest.mark.parametrize("configs", [SHORT, pytest.param(LONG, marks=pytest.mark.long)])
def test_every_third_config_does_its_worst(
    configs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {*psutil.Process().children(recursive=True)}  # a server that other tests share, say
    temporary, here, cache = (tmp_path / name for name in ("tmp", "here", "cache"))
    temporary.mkdir()
    here.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.chdir(here)
    backend = CBackend(flags=("-O1",))
    results = autotune.tune(
        KERNEL,
        Inputs(tuple(TensorSpec(name, (LENGTH,)) for name in "ab")),
        backend=backend,
        space=SearchSpace({"number": range(configs)}),
        budget=Budget(limits=Limits(run_s=1, memory_bytes=128 << 20)),
        cache_dir=cache,
        timing=Timing(warmup_s=0, min_repeats=6, max_repeats=6, max_s=0.1),
    )
    found: dict[str, Counter[tuple[str, str]]] = {}
    for trial in results.trials:
        name = fault(trial.config) or "sound"
        found.setdefault(name, Counter())[trial.status.value, trial.message.partition(";")[0]] += 1
    many = Counter(fault({"number": number}) or "sound" for number in range(configs))
    expected = {name: {(status, message): many[name]} for name, (_, status, message) in FAULTS.items()}
    assert {**expected, "sound": {("ok", ""): many["sound"]}} == found
    assert (configs, configs - (configs + 2) // 3) == (len(results.trials), many["sound"])
    assert [] == running(backend.runner()[0], before)
    assert ([], []) == (list(temporary.iterdir()), list(here.iterdir()))
    names = {path.name for path in cache.rglob("*") if path.is_file()}
    assert not {name for name in names if "stray" in name or "part" in name}
