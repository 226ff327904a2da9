"""A result is used again only if all that decided it is the same; a fault of the machine is no verdict."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tuned import BRIEF, INPUTS, kernel, run, space
from vector_add import GOOD, LOOP, body

from autotune import Budget, Inputs, Limits, SearchSpace, Status, Timing, best_config
from autotune.backends.c import CBackend
from autotune.machine.cpu import cpu_name, find_compiler
from autotune.model.errors import CacheError, UnavailableError, UsageError
from autotune.model.fingerprint import function_digest
from autotune.model.trial import Metrics, Trial
from autotune.sites import correctness
from autotune.store import journal
from autotune.store.catalog import load
from autotune.store.clean import clean
from autotune.store.results import ranking
from autotune.tuner import decides

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PRELUDE = f"""
import sys; sys.path[:0] = [{str(ROOT)!r}, {str(HERE)!r}]
from tuned import *
"""


def python(code: str, *, wrap: str = "exec", **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program that has the helpers of `tuned`, in a shell whose last word is `wrap` and the program."""
    return subprocess.run(
        ["sh", "-c", f'{wrap} "$0" -c "$1"', sys.executable, PRELUDE + code],
        capture_output=True, text=True, check=False, timeout=300, **options,
    )  # fmt: skip


# -- the key


def test_a_changed_header_has_its_sources_measured_again(tmp_path: Path) -> None:
    header = tmp_path / "op.h"
    made = kernel(
        generators={"c": lambda *_: f'#include "{header}"\n' + body(f"{LOOP} out[i] = OP(a[i], b[i]);")}
    )
    header.write_text("#define OP(x, y) ((x) + (y))\n")
    assert Status.OK is run(tmp_path / "cache", space("good"), kernel=made).trials[0].status
    header.write_text("#define OP(x, y) ((x) - (y))\n")
    assert Status.WRONG_OUTPUT is run(tmp_path / "cache", space("good"), kernel=made).trials[0].status


def test_headers_that_flags_include_count_and_system_headers_do_not(tmp_path: Path) -> None:
    (tmp_path / "op.h").write_text("int op;\n")
    found = CBackend(flags=("-O1", f"-I{tmp_path}", "-includeop.h")).includes("#include <math.h>\nint x;\n")
    assert [str(tmp_path / "op.h")] == list(found)
    assert {} == CBackend().includes("#include <math.h>\nint x;\n")
    assert {"absent.h": "missing"} == CBackend().includes('#include "absent.h"\n')


SCALE = 1.0


def _scaled(a: Any, b: Any) -> Any:
    return (a + SCALE * b,)


def test_a_golden_is_known_by_its_code_and_by_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    plus, minus = (lambda a, b: (a + b,), lambda a, b: (a - b,))
    assert function_digest(plus) != function_digest(minus)

    def bound(factor: Any) -> Any:
        return lambda a, b: (a + factor * b,)

    assert function_digest(bound(1.0)) == function_digest(bound(1.0)) != function_digest(bound(2.0))
    assert function_digest(bound(np.ones(3))) != function_digest(bound(np.zeros(3)))
    made: dict[float, dict[str, Any]] = {1.0: {}, 3.0: {}}
    for factor, scope in made.items():
        exec(f"def golden(a, b): return (a + b * {factor},)", scope)
    assert function_digest(made[1.0]["golden"]) != function_digest(made[3.0]["golden"])
    before = function_digest(_scaled)
    assert before == function_digest(functools.partial(_scaled))
    assert before != function_digest(functools.partial(_scaled, b=0))
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    assert before != function_digest(_scaled)


def test_stricter_rules_judge_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = kernel(generators={"c": lambda *_: body(f"{LOOP} out[i] = (a[i] + b[i]) * (1 + 3e-7f);")})
    assert Status.OK is run(tmp_path, space("good"), kernel=made).trials[0].status
    monkeypatch.setattr(correctness, "SAFETY", 0.5)
    assert Status.WRONG_OUTPUT is run(tmp_path, space("good"), kernel=made).trials[0].status


def test_flags_are_a_list_and_a_string_is_split() -> None:
    one, two = CBackend(flags=("-DA=1 -DB",)), CBackend(flags=("-DA=1", "-DB"))
    assert one.fingerprint()["flags"] != two.fingerprint()["flags"]
    assert two == CBackend(flags="-DA=1 -DB")  # type: ignore[arg-type]


def test_threads_and_instruction_sets_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = decides(CBackend(), BRIEF)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert before != decides(CBackend(), BRIEF)
    text = "model name : AMD EPYC\nflags : fpu avx2{}\n"
    real, names = Path.read_text, []
    for flags in ("", " avx512f"):
        cpu_name.cache_clear()
        shown = text.format(flags)
        monkeypatch.setattr(
            Path,
            "read_text",
            lambda self, *a, shown=shown, **k: shown if str(self) == "/proc/cpuinfo" else real(self, *a, **k),
        )
        names.append(cpu_name())
    cpu_name.cache_clear()
    assert names[0] != names[1]


def test_an_override_of_the_blas_is_told_beside_a_baseline(tmp_path: Path) -> None:
    code = f"found = run({str(tmp_path)!r})\nprint(*found.notes)\n"
    code += "print((found.folder / 'perf_metrics.json').read_text())"
    done = python(code, env={**os.environ, "OPENBLAS_CORETYPE": "Haswell"})
    assert "OPENBLAS_CORETYPE=Haswell is set" in done.stdout
    assert '"blas":"openblas' in done.stdout


def test_one_folder_keeps_and_shows_the_results_of_other_data(tmp_path: Path) -> None:
    """Kind 0 is the faster one on the ones, kind 1 on the tens."""
    ones, tens = (Inputs(INPUTS.specs, arrays=(np.full(1000, x, "f4"),) * 2) for x in (1, 10))

    def source(config: Any, *_: Any) -> str:
        times = f"int n = (a[0] > 5) ^ {int(config['kind'] == 'slow')} ? 50 : 1;"
        return body(f"{times} for (int r = 0; r < n; r++) {LOOP} ((volatile float *)out)[i] = a[i] + b[i];")

    made = kernel(generators={"c": source})
    tuned = [run(tmp_path, kernel=made, inputs=inputs) for inputs in (ones, tens)]
    assert ["good", "slow"] == [found.best.config["kind"] for found in tuned if found.best]
    for inputs, found in zip((ones, tens), tuned, strict=True):
        choice = best_config(made, inputs, tmp_path)
        assert choice and found.best
        assert (found.best.config, "exact", ()) == (choice.config, choice.origin, choice.differs)
    shown = load(tuned[0].folder / "perf_metrics.json")
    assert ["slow", "good"] == [each.best.config["kind"] for each in (shown, *shown.others) if each.best]
    other = best_config(made, replace(ones, seed=3, arrays=()), tmp_path)
    assert other and "nearest" == other.origin and any(each.startswith("data") for each in other.differs)


def test_best_config_says_what_is_no_longer_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path)
    exact = best_config(kernel(), INPUTS, tmp_path)
    assert exact and "exact" == exact.origin
    flags = best_config(kernel(), INPUTS, tmp_path, CBackend(flags=("-O1",)))
    assert flags and "nearest" == flags.origin and "fingerprint.flags" in flags.differs[0]
    source = best_config(kernel(generators={"c": lambda *_: "int other;"}), INPUTS, tmp_path)
    assert source and "nearest" == source.origin and source.differs[0].startswith("source")
    monkeypatch.setenv("CC", "no-such-cc")
    missing = best_config(kernel(), INPUTS, tmp_path)
    assert missing and "nearest" == missing.origin and "no C compiler" in missing.differs[0]


# -- the best


def reading(median_ms: float, low_ms: float, high_ms: float) -> Metrics:
    return Metrics(median_ms, median_ms, median_ms, low_ms, high_ms, 60, 0, 1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("slow", "chosen"),
    [
        (reading(1.01, 1.0, 1.02), "slow"),  # a tie: the shorter source
        (reading(1.03, 1.0, 1.06), "fast"),  # more than 2 % slower
        (reading(20.0, 0.9, 20.1), "fast"),  # a wide interval says nothing
        (reading(1.01, 1.005, 1.02), "fast"),  # no overlap
    ],
)
def test_a_tie_overlaps_and_is_within_2_percent(slow: Metrics, chosen: str) -> None:
    fast = reading(1.0, 0.99, 1.004)
    trials = [
        Trial({"x": name}, Status.OK, name, name, metrics=each, confirmed=each)
        for name, each in (("fast", fast), ("slow", slow))
    ]
    best = ranking(trials, {"fast": 501, "slow": 500}.__getitem__).best
    assert best and chosen == best.path


def _without(folder: Path, kind: str) -> None:
    """Take the records of one kind out of all journals."""
    for path in (folder.parent / "index").iterdir():
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(line for line in lines if f'"record":"{kind}"'.encode() not in line))


def test_an_interrupted_confirmation_is_completed(tmp_path: Path) -> None:
    first = run(tmp_path)
    _without(first.folder, "confirmation")
    again = run(tmp_path)
    assert (0, True) == (again.measured, all(trial.confirmed for trial in again.trials))


def test_a_confirmation_goes_with_the_trial_that_it_was_of(tmp_path: Path) -> None:
    first = run(tmp_path)
    for trial in first.trials:
        shutil.rmtree(first.folder / trial.path)
    second, third = run(tmp_path), run(tmp_path)
    confirmed = [{trial.path: trial.confirmed for trial in each.trials} for each in (first, second, third)]
    assert (2, 0) == (second.measured, third.measured)
    assert confirmed[0] != confirmed[1] == confirmed[2]


def test_readings_of_a_busy_machine_are_told_and_taken_again_when_it_is_calm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Metrics, "disturbed", property(lambda _self: True))
    busy = run(tmp_path)
    assert any(note.startswith("2 of 2 readings were taken while other programs") for note in busy.notes)
    for module in ("tuning.search_run", "store.ledger"):
        monkeypatch.setattr(f"autotune.{module}.is_calm", lambda: True)
    assert (2, True) == (
        (calm := run(tmp_path)).measured,
        "2 earlier results of a busy machine are measured again" in calm.notes,
    )


# -- faults of the machine


def test_a_compiler_that_fails_now_and_then_is_tried_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", str(wrapper(tmp_path, 'if mkdir "$0.once" 2>/dev/null; then exit 1; fi')))
    assert ["ok", "ok"] == [trial.status.value for trial in run(tmp_path / "cache").trials]


def test_a_compiler_that_the_system_killed_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starved = tmp_path / "starved"
    words = "cc: fatal error: Killed signal terminated program cc1"
    monkeypatch.setenv(
        "CC", str(wrapper(tmp_path, f'if [ -e {starved} ]; then echo "{words}" >&2; exit 1; fi'))
    )
    starved.touch()
    assert Status.OUT_OF_MEMORY is run(tmp_path / "cache", space("good")).trials[0].status
    starved.unlink()
    assert Status.OK is run(tmp_path / "cache", space("good")).trials[0].status


def wrapper(folder: Path, before: str) -> Path:
    """Write a compiler that does something before it compiles a candidate."""
    path = folder / "cc"
    path.write_text(f'#!/bin/sh\ncase "$*" in *kernel.so*) {before};; esac\nexec gcc "$@"\n')
    path.chmod(0o755)
    return path


def test_configs_of_one_source_compile_at_once(tmp_path: Path) -> None:
    made = kernel(generators={"c": lambda *_: GOOD})
    found = run(tmp_path, space("good", variants=24), kernel=made)
    assert {"ok"} == {trial.status.value for trial in found.trials}


def test_objects_that_cannot_win_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    most = 0

    class Count:
        def trial(self, _trial: Trial) -> None:
            nonlocal most
            most = max(most, len(list(tmp_path.glob("autotune-*/run/*/kernel.so"))))

    run(tmp_path / "cache", space("good", variants=30), progress=lambda *_: contextlib.nullcontext(Count()))
    assert 0 < most < 20


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_temporary_folder_without_execution_is_told_and_nothing_recorded(tmp_path: Path) -> None:
    place, cache = tmp_path / "tmp", tmp_path / "cache"
    place.mkdir()
    mount = f"mount -t tmpfs -o noexec tmpfs {place} && exec"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount} "$0" -c "$1"', sys.executable, f"{PRELUDE}run('{cache}')"],
        env={**os.environ, "TMPDIR": str(place)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert f"{UnavailableError.__name__}: {place} is mounted noexec" in done.stderr
    assert 2 == run(cache).measured


@pytest.mark.parametrize(
    ("code", "wrap"),
    [
        ("import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)", "exec"),
        ("", "exec <&- >&- 2>&- "),
        ("", "ulimit -v 3000000; exec"),
        ("", "ulimit -f 200000; exec"),
        ("", "unset HOME XDG_CACHE_HOME; exec"),
    ],
    ids=["SIGCHLD ignored", "closed streams", "ulimit -v", "ulimit -f", "no HOME"],
)
def test_the_tuner_works_in_the_process_as_it_is(tmp_path: Path, code: str, wrap: str) -> None:
    out = tmp_path / "out"
    drop = "setpriv --bounding-set=-sys_resource " if os.geteuid() == 0 else ""  # root would not be bound
    code += f"\nfound = run({str(tmp_path / 'cache')!r})"
    code += f"\nopen({str(out)!r}, 'w').write(' '.join(t.status.value for t in found.trials))"
    done = python(code, wrap=wrap.replace("exec", f"exec {drop}", 1))
    assert "ok ok" == (out.read_text() if out.exists() else done.stderr)


def test_cc_may_have_arguments() -> None:
    command = find_compiler("env gcc -m64")
    assert ("env", "gcc", "-m64") == (Path(command[0]).name, *command[1:])
    with pytest.raises(UnavailableError, match="looked for no-such-cc on PATH"):
        find_compiler("no-such-cc gcc")


# -- what is recorded


def test_a_first_run_that_was_killed_is_listed_and_used(tmp_path: Path) -> None:
    found = run(tmp_path)
    (found.folder / "perf_metrics.json").unlink()
    choice = best_config(kernel(), INPUTS, tmp_path)
    assert choice and found.best and (found.best.config, "exact") == (choice.config, choice.origin)
    words = [sys.executable, "-m", "autotune", "verify", "--cache-dir", str(tmp_path)]
    told = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert "2 trials are recorded and the run was killed; run the tuner again to continue" in told
    assert {"good", "slow"} == {
        trial.config["kind"] for trial in load(found.folder / "perf_metrics.json").trials
    }


def test_damage_anywhere_in_a_summary_is_mended_by_the_next_run(tmp_path: Path) -> None:
    path = run(tmp_path).folder / "perf_metrics.json"
    data = bytearray(path.read_bytes())
    data[data.index(b'"environment"') :][:1] = b""
    at = data.index(b'"environment"')
    data[at : at + 8] = bytes(8)
    path.write_bytes(data)
    assert 0 == run(tmp_path).measured
    assert best_config(kernel(), INPUTS, tmp_path) is not None


def test_the_later_measurement_counts_whatever_the_clocks_said(tmp_path: Path) -> None:
    first = run(tmp_path, space("good"))
    (path,) = (tmp_path / "add/index").iterdir()
    path.rename(path.with_name("2099" + path.name[4:]))
    shutil.rmtree(first.folder / first.trials[0].path)
    second, third = run(tmp_path, space("good")), run(tmp_path, space("good"))
    assert first.trials[0].started_at != second.trials[0].started_at == third.trials[0].started_at


def test_clean_leaves_a_journal_whose_writer_lives(tmp_path: Path) -> None:
    """A container has other process ids, and may have the same host name: the lock says who lives."""
    code = "import sys, time\nfrom autotune.store.journal import Writer\nfrom pathlib import Path\n"
    code += f"writer = Writer(Path({str(tmp_path / 'k/index')!r}), 'b')\n"
    code += 'writer.append([\'{"record": "x"}\'])\n'
    code += "print('ready', flush=True)\ntime.sleep(600)"
    writer = subprocess.Popen([sys.executable, "-c", PRELUDE + code], stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout and "ready\n" == writer.stdout.readline()
        ended = journal.Writer(tmp_path / "k/index", "a")
        ended.append(['{"record": "y"}'])
        ended.close()
        assert [] == clean(tmp_path)
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()


def test_what_is_known_is_returned_from_a_cache_that_cannot_be_written() -> None:
    drop = "import os; os.getuid() or os.setuid(65534)\n"
    # Not in pytest's own folder, which every other run of pytest closes to other users again.
    with tempfile.TemporaryDirectory() as folder:
        cache, temporary = Path(folder, "cache"), Path(folder, "tmp")
        run(cache)
        temporary.mkdir()
        temporary.chmod(0o1777)
        for each in (cache, *cache.rglob("*")):
            each.chmod(0o555 if each.is_dir() else 0o444)
        Path(folder).chmod(0o755)
        env = {**os.environ, "HOME": "/nonexistent", "TMPDIR": str(temporary)}
        done = python(f"{drop}print(run({str(cache)!r}).measured)", env=env)
        more = python(f"{drop}run({str(cache)!r}, space('good', 'slow', variants=2))", env=env)
        for each in (cache, *cache.rglob("*")):
            each.chmod(0o755)
    assert "0\n" == done.stdout, done.stderr
    assert CacheError.__name__ in more.stderr


# -- the clock of the budget, and the generator


def test_a_large_space_with_an_opaque_constraint_is_searched_soon(tmp_path: Path) -> None:
    names = [f"f{i}" for i in range(7)]
    factors = SearchSpace(
        {n: tuple(2**i for i in range(11)) for n in names},
        (lambda c: np.prod([c[n] for n in names]) <= 1024,),
    )
    made = kernel(generators={"c": lambda *_: GOOD}, space=lambda _specs: factors)
    found = run(tmp_path, factors, kernel=made, budget=Budget(trials=5))
    assert 5 == found.measured


def test_a_slow_constraint_does_not_hold_up_the_first_trial(tmp_path: Path) -> None:
    seen = []

    def slow(config: Any) -> bool:
        seen.append(config)
        time.sleep(0.01)
        return bool(config["variant"] >= 0)

    searched = SearchSpace({"kind": ("good",), "variant": tuple(range(100_000))}, (slow,))
    assert 3 == run(tmp_path, searched, budget=Budget(trials=3)).measured
    assert len(seen) < 2000


def test_few_configs_are_chosen_before_anything_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autotune.tuning.search_run.usable_cores", lambda: 64)
    blind = 0

    class Watched:
        def propose(self, searched: Any, history: Any, count: int) -> Any:
            nonlocal blind
            known = {each.config["variant"] for each in history}
            new = [each for each in searched if each["variant"] not in known][:count]
            blind += len(new) * all(each.cost is None for each in history)
            return new

    run(tmp_path, space("good", variants=40), budget=Budget(trials=20), strategy=Watched())
    assert 0 < blind <= 5


def test_a_slow_kernel_is_confirmed_in_the_time_that_is_left(tmp_path: Path) -> None:
    """Six turns of each finalist would be a hundred calls."""
    calls = tmp_path / "calls"
    count = f'FILE *f = fopen("{calls}", "a"); fputc(1, f); fclose(f); usleep(200000);'
    slow = body(
        f"{count} {LOOP} out[i] = a[i] + b[i];",
        "stdio",
        "unistd",
    )
    made = kernel(generators={"c": lambda config, *_: f"{slow}/* {config['variant']} */"}, baselines={})
    budget = Budget(seconds=2, limits=Limits(run_s=20))
    found = run(tmp_path / "cache", space("good", variants=6), kernel=made, budget=budget, timing=Timing())
    assert found.best and found.best.confirmed
    assert len(calls.read_bytes()) < 40


def test_whatever_a_generator_does_ends_one_config(tmp_path: Path) -> None:
    faults: dict[int, Any] = dict(
        enumerate([RuntimeError, NotImplementedError, OSError, RecursionError, None, b"x"])
    )

    def source(config: Any, *_: Any) -> Any:
        fault = faults.get(config["variant"], GOOD)
        if isinstance(fault, type):
            raise fault("not for this one")
        return fault

    found = run(tmp_path, space("good", variants=len(faults) + 2), kernel=kernel(generators={"c": source}))
    expected = {variant: "error" if variant in faults else "ok" for variant in range(len(faults) + 2)}
    assert expected == {trial.config["variant"]: trial.status.value for trial in found.trials}


class Order(str, Enum):
    ROWS = "rows"


def test_an_enum_is_refused_since_a_text_would_come_back() -> None:
    with pytest.raises(UsageError, match="give a name for it"):
        SearchSpace({"order": (Order.ROWS,)})
