"""Candidates compiled, checked and timed in real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from vector_add import GOOD, INPUTS, KERNEL, LENGTH, LOOP, body

from autotune import backends
from autotune.backends.c import CBackend
from autotune.backends.numpy import NumpyBackend
from autotune.model.budget import Limits
from autotune.model.errors import AutotuneError, CacheError, DataError, UnavailableError, UsageError
from autotune.model.kernel import Inputs, TensorSpec
from autotune.model.timing import Timing
from autotune.model.trial import Status
from autotune.sites.local import LocalSite
from autotune.sites.site import BuildOutcome, RunOutcome

BRIEF = Timing(warmup_s=0, min_repeats=6, max_repeats=6, min_sample_ns=1)
TIGHT = Limits(compile_s=30, run_s=1.5, memory_bytes=96 << 20, output_bytes=10_000)


class Glutton(CBackend):
    """A compiler of its own for candidates, the system's for the runner."""

    def runner(self) -> tuple[str, ...]:
        """Return the runner of the backend with an honest compiler."""
        return CBackend().runner()


@pytest.fixture(scope="module")
def workers() -> Iterator[LocalSite]:
    """LocalSite for `add`, with limits that are soon reached."""
    with LocalSite(KERNEL, INPUTS, CBackend(), BRIEF, TIGHT) as made:
        yield made


def run(workers: LocalSite, source: str) -> RunOutcome:
    """Compile, which must succeed, and measure."""
    compiled = workers.build(source).result()
    assert compiled.artifact is not None, compiled.log
    return workers.measure(compiled.artifact)


def said(outcome: RunOutcome | BuildOutcome) -> tuple[str, str]:
    """Return what is told of an outcome."""
    return outcome.status.value, outcome.message


def descendants() -> list[psutil.Process]:
    """Return all processes below this one, zombies included."""
    return list(psutil.Process().children(recursive=True))


def processes_below() -> set[int]:
    """Return the ids of all processes below this one."""
    return {child.pid for child in descendants()}


def eventually_gone(pids: set[int]) -> bool:
    """Wait a little for processes to end."""
    deadline = time.monotonic() + 60
    while any(map(psutil.pid_exists, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(map(psutil.pid_exists, pids))


# -- what goes well


def test_a_right_candidate_is_timed(workers: LocalSite) -> None:
    outcome = run(workers, GOOD)
    assert (Status.OK, "", "", 6, 1, None) == (
        outcome.status,
        outcome.message,
        outcome.log,
        len(outcome.samples_ms),
        outcome.calls,
        outcome.mismatch,
    )
    assert all(sample > 0 for sample in outcome.samples_ms)


def test_a_baseline_is_measured_the_same_way(workers: LocalSite) -> None:
    outcome = workers.baseline("NumPy")
    assert (Status.OK, 6) == (outcome.status, len(outcome.samples_ms))
    assert workers.baseline("NumPy").status is Status.OK


def test_a_candidate_is_timed_with_cold_caches() -> None:
    timing = Timing(caches="cold", warmup_s=0, min_repeats=2, max_repeats=2)
    with LocalSite(KERNEL, INPUTS, CBackend(), timing) as cold:
        outcome = run(cold, GOOD)
    assert (Status.OK, 2, 1) == (outcome.status, len(outcome.samples_ms), outcome.calls), outcome.message


def test_a_kernel_without_that_baseline_says_so() -> None:
    with (
        LocalSite(replace(KERNEL, baselines={}), INPUTS, CBackend(), BRIEF) as workers,
        pytest.raises(UsageError, match="kernel 'add' has no baseline 'NumPy'"),
    ):
        workers.baseline("NumPy")


def test_a_candidate_gets_the_functions_that_its_headers_declare(workers: LocalSite) -> None:
    """The oldest realpath of glibc refuses a NULL to write to, which today's takes."""
    source = body(f'if (!realpath("/", NULL)) abort(); {LOOP} out[i] = a[i] + b[i];', "stdlib")
    assert ("ok", "") == said(run(workers, source))


def test_what_a_candidate_prints_is_kept(workers: LocalSite) -> None:
    outcome = run(
        workers,
        body(f'static int once; if (!once++) printf("tile 4\\n"); {LOOP} out[i] = a[i] + b[i];', "stdio"),
    )
    assert (Status.OK, "tile 4\n") == (outcome.status, outcome.log)
    assert "" == run(workers, GOOD).log


def test_what_was_printed_before_a_crash_is_kept(workers: LocalSite) -> None:
    outcome = run(workers, body('printf("so far\\n"); *(volatile int *)0 = 1;', "stdio"))
    assert (Status.CRASH, "so far\n") == (outcome.status, outcome.log)


def test_an_object_is_compiled_once(workers: LocalSite) -> None:
    first, again = (workers.build(GOOD).result() for _ in range(2))
    assert (first.artifact, 0.0, True) == (again.artifact, again.seconds, "(built before)" in again.log)


def test_the_log_of_a_compilation_holds_command_version_and_messages(workers: LocalSite) -> None:
    outcome = workers.build("#warning look here\n" + GOOD).result()
    command, version, *rest = outcome.log.splitlines()
    assert outcome.artifact is not None
    assert command.startswith("$ /") and f"-o {outcome.artifact.path} " in command
    assert CBackend().fingerprint()["version"] == version
    assert "look here" in "\n".join(rest)


def test_many_compile_at_once(workers: LocalSite) -> None:
    futures = [workers.build(f"/* {i} */ {GOOD}") for i in range(6)]
    assert {Status.OK} == {workers.measure(future.result().artifact).status for future in futures}  # type: ignore[arg-type]


def test_strided_inputs_and_outputs_are_laid_out_as_their_specs_say() -> None:
    specs = tuple(TensorSpec(name, (3, 4), "float64", (1, 5)) for name in "ab")
    kernel = replace(KERNEL, outputs=lambda _specs: (TensorSpec("out", (3, 4), "float64", (8, 2)),))
    source = (
        "void add(const double *a, const double *b, double *out) {\n"
        "for (int i = 0; i < 3; i++) for (int j = 0; j < 4; j++)\n"
        "out[i * 8 + j * 2] = a[i + j * 5] + b[i + j * 5]; SPILL }\n"
    )
    with LocalSite(kernel, Inputs(specs), CBackend(), BRIEF) as workers:
        assert Status.OK is run(workers, source.replace("SPILL", "")).status
        spilled = run(workers, source.replace("SPILL", "out[1] = 0;"))
    assert ("wrong_output", "out: wrote 8 bytes outside the tensor") == said(spilled)


def test_the_numpy_backend_measures_and_survives_its_candidates() -> None:
    numpy = backends.get("numpy")
    with LocalSite(KERNEL, INPUTS, numpy, BRIEF, TIGHT) as workers:
        head = "import numpy as np, os, sys\n"
        ended = {
            text: said(run(workers, head + f"def add(a, b, out):\n    {text}\n"))
            for text in (
                "np.add(a, b, out=out)",
                "out[:] = a",
                "raise SystemExit(3)",
                "os.kill(os.getpid(), 11)",
                "x = [bytearray(1 << 20) for _ in range(10**6)]",
                "1 / 0",
            )
        }
        broken = workers.build("def add(:\n").result()
    wrong = ended.pop("out[:] = a")
    assert ("wrong_output", "out: 1000 of 1000 elements wrong") == (wrong[0], wrong[1].partition(";")[0])
    assert {
        "np.add(a, b, out=out)": ("ok", ""),
        "raise SystemExit(3)": ("error", "ended the process with exit code 3 before it returned"),
        "os.kill(os.getpid(), 11)": ("crash", "killed by SIGSEGV"),
        "x = [bytearray(1 << 20) for _ in range(10**6)]": (
            "out_of_memory",
            "needed more than 96 MiB of memory",
        ),
        "1 / 0": ("error", "ZeroDivisionError: division by zero"),
    } == ended
    assert ("compile_error", True) == (broken.status.value, "SyntaxError" in broken.log)


def test_compilers_stand_still_while_a_candidate_is_measured(tmp_path: Path) -> None:
    long = "".join(f"int f{i}(int x) {{ return x * {i}; }}\n" for i in range(100_000))  # killed at the end
    go = tmp_path / "go"
    # So slow that the first call and that with other copies of the outputs are one each: the third is timed.
    hold = f'static int n; usleep(3000); if (n++ > 1) while (access("{go}", F_OK)) usleep(1000);'
    slow = body(f"{hold} {LOOP} out[i] = a[i] + b[i];", "unistd")
    limits = replace(TIGHT, run_s=60, memory_bytes=1 << 30)
    with LocalSite(KERNEL, INPUTS, CBackend(), BRIEF, limits, compile_jobs=2) as workers:
        artifact = workers.build(slow).result().artifact
        assert artifact is not None
        pending = [workers.build(f"/* {i} */ {long}") for i in range(2)]
        while len(compilers := [each for each in descendants() if each.name() == "cc1"]) < 2:
            assert not any(future.done() for future in pending)
            time.sleep(0.01)
        with ThreadPoolExecutor() as thread:
            measuring = thread.submit(workers.measure, artifact)
            while {psutil.STATUS_STOPPED} != {each.status() for each in compilers}:
                assert not measuring.done()
                time.sleep(0.01)
            spent = [each.cpu_times().user for each in compilers]
            time.sleep(0.4)
            still = [each.cpu_times().user for each in compilers]
            go.touch()
            assert spent == still
            assert Status.OK is measuring.result().status
        assert psutil.STATUS_STOPPED not in {each.status() for each in compilers if each.is_running()}


def test_compilers_go_on_while_a_candidate_is_called_for_the_first_time(tmp_path: Path) -> None:
    """One ends meanwhile, and the next one begins."""
    go = tmp_path / "go"
    limits = replace(TIGHT, run_s=60)
    held = body(f'while (access("{go}", F_OK)) usleep(1000); {LOOP} out[i] = a[i] + b[i];', "unistd")
    with LocalSite(KERNEL, INPUTS, CBackend(), BRIEF, limits, compile_jobs=1) as workers:
        artifact = workers.build(held).result().artifact
        assert artifact is not None
        with ThreadPoolExecutor() as thread:
            measuring = thread.submit(workers.measure, artifact)
            outcomes = [workers.build(f"/* {i} */ {GOOD}").result() for i in range(2)]
            assert not measuring.done()
            assert [("ok", "")] * 2 == [said(outcome) for outcome in outcomes]
            go.touch()
            assert ("ok", "") == said(measuring.result())


# -- what goes wrong


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (body("*(volatile int *)0 = 1;"), ("crash", "killed by SIGSEGV")),
        (body("abort();", "stdlib"), ("crash", "killed by SIGABRT")),
        (body("raise(SIGFPE);", "signal"), ("crash", "killed by SIGFPE")),
        (body("__builtin_trap();"), ("crash", "killed by SIGILL")),
        (body("errno = ENOMEM; *(volatile int *)8 = 0;", "errno"), ("crash", "killed by SIGSEGV")),
        (
            body("kill(getppid(), SIGKILL); pause();", "signal", "unistd"),
            ("crash", "killed the process that watches it"),
        ),
        (body("raise(SIGSTOP);", "signal"), ("crash", "stopped itself with SIGSTOP")),
        (body("exit(0);", "stdlib"), ("error", "ended the process with exit code 0 before it returned")),
        (body("exit(9);", "stdlib"), ("error", "ended the process with exit code 9 before it returned")),
        (body("volatile int on = 1; while (on) ;"), ("timeout", "did not return within 1.5 s")),
        (
            body("close(3); for (int i = 4; i < 64; i++) close(i); pause();", "unistd"),
            ("timeout", "did not return within 1.5 s"),
        ),
        (
            body("for (;;) { char *p = malloc(1 << 20); memset(p, 1, 1 << 20); }", "stdlib", "string"),
            ("out_of_memory", "needed more than 96 MiB of memory"),
        ),
        (
            body("*(volatile char *)malloc(1ul << 40) = 1;", "stdlib"),
            ("crash", "killed by SIGSEGV"),
        ),
        (body('for (;;) puts("0123456789");', "stdio"), ("error", "wrote more than 10000 bytes of output")),
        (body("((float *)a)[0] = 1;"), ("wrong_output", "wrote to its input a")),
        (body("((float *)b)[999] = 1;"), ("wrong_output", "wrote to its input b")),
        (body("out[100000] = 1;"), ("crash", "killed by SIGSEGV")),
        (
            body(f"{LOOP} out[i] = a[i] + b[i]; out[{LENGTH}] = 1;"),
            ("wrong_output", "out: wrote 4 bytes outside the tensor"),
        ),
        (
            body(f"{LOOP} out[i] = a[i] + b[i]; out[-2] = out[-1] = 1;"),
            ("wrong_output", "out: wrote 8 bytes outside the tensor"),
        ),
        (
            body(f"static int n; n++; {LOOP} out[i] = a[i] + b[i]; if (n > 3) out[0] = 77;"),
            ("wrong_output", "out: 1 of 1000 elements wrong"),
        ),
        (
            body(f"{LOOP} if (i < 900) out[i] = a[i] + b[i];"),
            ("wrong_output", "out: 100 of 1000 elements wrong, 100 never written"),
        ),
        (
            body("recurse:; volatile char deep[1 << 23]; deep[0] = 1; out[0] = deep[0]; goto recurse;"),
            ("crash", "killed by SIGSEGV"),
        ),
    ],
)
def test_each_way_to_fail_has_its_status(workers: LocalSite, source: str, expected: tuple[str, str]) -> None:
    outcome = run(workers, source)
    assert expected == (outcome.status.value, outcome.message.partition(";")[0])
    assert () == outcome.samples_ms
    assert Status.OK is run(workers, GOOD).status


def test_a_candidate_that_does_not_load_says_what_is_missing(workers: LocalSite) -> None:
    undefined = run(workers, "void nowhere(void); " + body("nowhere();"))
    nameless = run(workers, "void other(void) {}")
    assert (Status.ERROR, True) == (undefined.status, undefined.message.endswith("undefined symbol: nowhere"))
    assert (Status.ERROR, True) == (nameless.status, nameless.message.endswith("undefined symbol: add"))


def test_a_source_that_does_not_compile_says_why(workers: LocalSite) -> None:
    outcome = workers.build("void add( {").result()
    assert (Status.COMPILE_ERROR, None, "the compiler ended with exit code 1") == (
        outcome.status,
        outcome.artifact,
        outcome.message,
    )
    assert "error:" in outcome.log


def test_a_compiler_that_never_ends_is_killed(tmp_path: Path) -> None:
    bomb = (
        "".join(f"#define A{i} A{i + 1} A{i + 1}\n" for i in range(30))
        + "#define A30 1,\nint x[] = { A0 };\n"
    )
    limits = replace(TIGHT, compile_s=0.5, memory_bytes=4 << 30)
    with LocalSite(KERNEL, INPUTS, CBackend(), BRIEF, limits) as workers:
        assert ("compile_timeout", "the compiler took more than 0.5 s") == said(workers.build(bomb).result())
    assert [] == [path.name for path in tmp_path.rglob("*.part")]


def test_a_compiler_that_eats_memory_is_stopped(tmp_path: Path) -> None:
    glutton = tmp_path / "glutton"
    glutton.write_text(
        f"#!{sys.executable}\nimport sys\nif sys.argv[1:] != ['--version']:\n"
        "    [bytearray(1 << 20) for _ in range(10**6)]\n"
    )
    glutton.chmod(0o755)
    backend = Glutton(str(glutton))
    with LocalSite(KERNEL, INPUTS, backend, BRIEF, TIGHT) as workers:
        outcome = workers.build(GOOD).result()
    assert ("out_of_memory", "needed more than 96 MiB of memory") == said(outcome)


# -- what is left


def test_children_die_with_their_candidate_in_whatever_session(workers: LocalSite, tmp_path: Path) -> None:
    note = tmp_path / "pids"
    note.touch()
    source = body(
        f'static int once; if (!once++) {{ FILE *f = fopen("{note}", "a");'
        ' fprintf(f, "%d\\n", getpid()); fflush(f);'
        "for (int k = 0; k < 3; k++) if (!fork()) { if (k) setsid(); if (k > 1 && fork()) _exit(0);"
        ' fprintf(f, "%d\\n", getpid()); fflush(f); pause(); _exit(0); }'
        f' for (int lines = 0; lines < 4; usleep(1000)) {{ lines = 0; FILE *r = fopen("{note}", "r");'
        " for (int c; (c = fgetc(r)) != EOF;) lines += c == 10; fclose(r); } }"
        f"{LOOP} out[i] = a[i] + b[i];",
        "stdio",
        "unistd",
    )
    assert Status.OK is run(workers, source).status
    pids = set(map(int, note.read_text().split()))
    assert (4, set()) == (len(pids), {pid for pid in pids if psutil.pid_exists(pid)})


def test_files_a_candidate_leaves_are_removed(workers: LocalSite) -> None:
    source = body(
        'static int once; if (!once++) { mkdir("left", 0700); fclose(fopen("left/over", "w"));'
        f" char here[4096]; puts(getcwd(here, 4096)); }} {LOOP} out[i] = a[i] + b[i];",
        "stdio",
        "unistd",
        "sys/stat",
    )
    outcome = run(workers, source)
    assert (Status.OK, []) == (outcome.status, list(Path(outcome.log.strip()).iterdir()))


def test_nothing_is_left_once_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    before = processes_below()
    with LocalSite(KERNEL, INPUTS, CBackend(), BRIEF, TIGHT) as workers:
        run(workers, GOOD)
        workers.baseline("NumPy")
        started = processes_below() - before
        slow = workers.build("".join(f"int f{i}(int x) {{ return x * {i}; }}\n" for i in range(20000)))
    assert (set(), []) == (processes_below() - before, list(temporary.iterdir()))
    assert len(started) >= 4
    with pytest.raises(AutotuneError, match="the site was closed"):
        slow.result()


TUNER = """
import sys
sys.path.insert(0, {tests!r})
from autotune.backends.c import CBackend
from autotune.backends.numpy import NumpyBackend
from autotune.sites.local import LocalSite
from vector_add import *

with LocalSite(KERNEL, INPUTS, CBackend()) as workers:
    forks = body("if (!fork()) {{ setsid(); pause(); }} pause();", "unistd")
    artifact = workers.build(forks).result().artifact
    workers.baseline("NumPy")
    workers.build("".join("int f%d(int x) {{ return x * %d; }}\
" % (i, i) for i in range(50000)))
    print("measuring", flush=True)
    workers.measure(artifact)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_tuner_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    code = TUNER.format(tests=str(Path(__file__).parent))
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    ) as tuner:
        assert tuner.stdout is not None
        assert b"measuring\n" == tuner.stdout.readline()
        while len(family := {child.pid for child in psutil.Process(tuner.pid).children(recursive=True)}) < 5:
            time.sleep(0.01)
        tuner.send_signal(number)
    assert eventually_gone(family)
    deadline = time.monotonic() + 60
    while (left := list(tmp_path.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [] == left


def test_a_keeper_that_was_killed_has_a_successor() -> None:
    before = processes_below()
    with LocalSite(KERNEL, INPUTS, CBackend(), BRIEF, TIGHT) as workers:
        artifact = workers.build(GOOD).result().artifact
        assert artifact is not None
        for round in range(3):
            for pid in processes_below() - before:
                os.kill(pid, signal.SIGKILL)
            other = workers.build(f"/* {round} */ {GOOD}").result()
            assert Status.OK is workers.measure(artifact).status
            assert other.artifact is not None
            assert Status.OK is workers.measure(other.artifact).status
            assert Status.OK is workers.baseline("NumPy").status


def test_what_a_killed_keeper_started_ends() -> None:
    before = processes_below()
    with LocalSite(KERNEL, INPUTS, CBackend(), BRIEF, TIGHT) as workers:
        artifact = workers.build(GOOD).result().artifact
        assert artifact is not None
        assert Status.OK is workers.measure(artifact).status
        keepers = {child.pid for child in psutil.Process().children()} - before
        below = processes_below() - before - keepers
        for pid in keepers:
            os.kill(pid, signal.SIGKILL)
        assert below
        assert eventually_gone(below)


def test_keepers_that_die_again_and_again_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotune.sites.local._MOST_DEATHS", 2)
    before = processes_below()
    with (
        LocalSite(KERNEL, INPUTS, CBackend(), BRIEF, TIGHT) as workers,
        pytest.raises(AutotuneError, match="killed again and again"),
    ):
        for round in range(4):
            for pid in processes_below() - before:
                os.kill(pid, signal.SIGKILL)
            workers.build(f"/* {round} */ {GOOD}").result()


# -- what is refused before anything starts


def test_a_missing_temporary_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    before = processes_below()
    with pytest.raises(CacheError, match=r"cannot make a temporary folder: .*; set TMPDIR to one with room"):
        LocalSite(KERNEL, INPUTS, CBackend(), BRIEF, TIGHT)
    assert before == processes_below()


def test_no_candidate_is_loaded_from_where_others_could_replace_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "shared"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    with LocalSite(KERNEL, INPUTS, CBackend(), BRIEF, TIGHT) as workers:
        artifact = workers.build(GOOD).result().artifact
        assert artifact is not None
        assert Path(artifact.path).is_relative_to(tmp_path / "xdg")
        assert Status.OK is workers.measure(artifact).status
    (tmp_path / "xdg").chmod(0o777)
    with pytest.raises(UnavailableError, match="other users can write to"):
        LocalSite(KERNEL, INPUTS, NumpyBackend(), BRIEF, TIGHT)
    assert [] == list((tmp_path / "shared").iterdir())
    assert not list((tmp_path / "xdg").rglob("autotune-*/run"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
def test_a_full_disk_ends_the_run_and_is_no_fault_of_the_candidate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no rights to mount here")
    try:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        big = f"char filled[{1 << 20}] = {{1}};\n{GOOD}"
        with (
            LocalSite(KERNEL, INPUTS, CBackend(), BRIEF, TIGHT) as workers,
            pytest.raises(CacheError, match=f"no space for the compiler's files in {tmp_path}; free some"),
        ):
            workers.build(big).result()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_inputs_that_cannot_be_meant_start_nothing() -> None:
    before = processes_below()
    bad = replace(INPUTS, arrays=(np.full(LENGTH, np.nan, "f4"), np.zeros(LENGTH, "f4")))
    with pytest.raises(DataError, match="input 'a': 1000 of 1000"):
        LocalSite(KERNEL, bad, CBackend())
    assert before == processes_below()
