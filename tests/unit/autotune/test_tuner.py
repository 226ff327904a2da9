import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from tuned import BRIEF, INPUTS, kernel, run, space

from autotune import Budget, Choice, Inputs, Limits, SearchSpace, Status, TensorSpec, best_config
from autotune.backends.c import CBackend
from autotune.model.errors import CacheError, DataError, UnavailableError, UsageError
from autotune.store import cache, journal
from autotune.verify import verify

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
FOLDER = "add/1000_1000"


def statuses(results):
    return {trial.config["kind"]: trial.status.value for trial in results.trials}


def document(cache_dir):
    return json.loads((cache_dir / FOLDER / "perf_metrics.json").read_text())


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_every_config_ends_in_a_status_and_the_run_goes_on(tmp_path):
    kinds = ("good", "slow", "wrong", "crash", "broken", "refused", "faulty")
    results = run(tmp_path, space(*kinds))
    assert {
        "good": "ok",
        "slow": "ok",
        "wrong": "wrong_output",
        "crash": "crash",
        "broken": "compile_error",
        "refused": "invalid",
        "faulty": "error",
    } == statuses(results)
    assert {"kind": "good", "variant": 0} == results.best.config
    assert "SIGSEGV" in next(trial.message for trial in results.trials if trial.status is Status.CRASH)


def test_the_cache_holds_what_its_layout_says(tmp_path):
    run(tmp_path, space("good", "broken"))
    assert {"kind=good,variant=0", "kind=broken,variant=0", "perf_metrics.json"} == names(tmp_path / FOLDER)
    for kind in ("good", "broken"):
        folder = tmp_path / FOLDER / f"kind={kind},variant=0"
        assert {"performance_result.pkl", "compilation_output.log", "execution_output.log"} == names(folder)
        told = {trial["path"]: trial for trial in document(tmp_path)["trials"]}[folder.name]
        kept = cache.read_result(folder / "performance_result.pkl")["trial"]
        assert {**told, "confirmed": None} == kept
    assert "error:" in (folder / "compilation_output.log").read_text()
    assert "not run\nended: compile_error" in (folder / "execution_output.log").read_text()


def test_the_best_and_what_may_tie_with_it_are_confirmed_and_the_baselines_with_them(tmp_path):
    results = run(tmp_path)
    assert results.best.confirmed and all(trial.confirmed for trial in results.ties)
    assert results.best.best_reading is results.best.confirmed
    assert results.baseline.metrics.median_ms > 0
    written = document(tmp_path)
    assert results.best.path == written["best"] == written["trials"][0]["path"]
    assert [each.to_dict() for each in results.baselines] == written["baselines"]
    expected = Choice({"kind": "good", "variant": 0}, "exact", ("1000_1000",), "c")
    assert expected == best_config(kernel(), INPUTS, tmp_path)


def test_best_config_says_so_where_inputs_were_never_tuned(tmp_path):
    run(tmp_path, space("good"))
    close, far = (Inputs((TensorSpec("a", (n,)), TensorSpec("b", (n,)))) for n in (1100, 7))
    expected = Choice({"kind": "good", "variant": 0}, "nearest", ("1000_1000",), "c")
    assert expected == best_config(kernel(), close, tmp_path)
    assert "model" == best_config(kernel(), far, tmp_path).origin
    assert None is best_config(kernel(name="another"), INPUTS, tmp_path)


def test_what_is_known_is_not_measured_again_and_the_summary_stands(tmp_path):
    first = run(tmp_path, space("good", "slow", "wrong", "broken"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    second = run(tmp_path, space("good", "slow", "wrong", "broken"))
    assert (4, 0) == (first.measured, second.measured)
    assert (first.best.config, first.best.confirmed) == (second.best.config, second.best.confirmed)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_larger_space_measures_only_what_is_new(tmp_path):
    run(tmp_path, space("good"))
    assert 1 == run(tmp_path, space("good", "slow")).measured


def test_a_smaller_space_hides_what_is_outside_it_but_forgets_nothing(tmp_path):
    run(tmp_path, space("good", "slow"))
    results = run(tmp_path, space("slow"))
    assert (0, ["slow"]) == (results.measured, [trial.config["kind"] for trial in results.trials])
    assert {"good", "slow"} == {trial["config"]["kind"] for trial in document(tmp_path)["trials"]}


def test_who_deletes_a_folder_has_it_measured_again(tmp_path):
    run(tmp_path)
    shutil.rmtree(tmp_path / FOLDER / "kind=slow,variant=0")
    assert 1 == run(tmp_path).measured


def test_another_source_is_measured_again_and_the_note_says_why(tmp_path):
    run(tmp_path, space("good"))
    changed = kernel(generators={"c": lambda *_: "/* new */ void add(){}"})
    results = run(tmp_path, space("good"), kernel=changed)
    assert (1, {"good": "wrong_output"}) == (results.measured, statuses(results))
    assert "1 earlier result does not hold any more: the generator writes another source" in results.notes


def test_other_flags_and_another_timing_are_measured_again_and_the_note_says_why(tmp_path):
    run(tmp_path, space("good"))
    flags = run(tmp_path, space("good"), backend=CBackend(flags=("-O1",)))
    assert 1 == flags.measured
    assert "fingerprint.flags: -O3" in flags.notes[0] and "-> -O1" in flags.notes[0]
    wide = run(tmp_path, space("good"), timing=dataclasses.replace(BRIEF, target_ci=0.5))
    assert 1 == wide.measured
    assert "timing.target_ci: 0.01 -> 0.5" in wide.notes[0]
    assert 0 == run(tmp_path, space("good")).measured


def test_a_failure_that_may_pass_is_tried_once_more_and_then_believed(tmp_path):
    brief = Budget(limits=Limits(run_s=0.2))
    measured = [run(tmp_path, space("endless"), budget=brief).measured for _ in range(3)]
    assert [1, 1, 0] == measured
    assert 1 == run(tmp_path, space("endless"), budget=Budget(limits=Limits(run_s=0.3))).measured


def test_a_failure_that_will_not_pass_is_believed_at_once(tmp_path):
    results = [run(tmp_path, space("crash", "wrong", "broken")) for _ in range(2)]
    assert [3, 0] == [each.measured for each in results]
    assert [None, None] == [each.best for each in results]


def test_a_budget_of_trials_counts_those_of_earlier_runs(tmp_path):
    measured = [run(tmp_path, space("good", variants=6), budget=Budget(trials=n)).measured for n in (2, 5, 5)]
    assert [2, 3, 0] == measured


def test_a_budget_of_seconds_ends_the_search_with_what_it_found(tmp_path):
    results = run(tmp_path, space("good", variants=500), budget=Budget(seconds=2))
    assert results.measured < 500
    assert len(document(tmp_path)["trials"]) == results.measured


def test_trials_of_two_backends_stand_side_by_side(tmp_path):
    run(tmp_path, space("good"))
    results = run(tmp_path, space("good"), backend="numpy")
    assert ["backend=numpy,kind=good,variant=0"] == [trial.path for trial in results.trials]
    assert {"kind=good,variant=0", "backend=numpy,kind=good,variant=0"} == {
        trial["path"] for trial in document(tmp_path)["trials"]
    }


def test_a_remote_run_is_told_exactly_the_files_written(tmp_path, monkeypatch):
    listed = tmp_path / "outputs"
    monkeypatch.setenv("AUTOTUNE_OUTPUTS", str(listed))
    run(tmp_path / "cache", space("good", "broken"))
    told = set(listed.read_bytes().decode().rstrip("\0").split("\0"))
    assert {str(path) for path in (tmp_path / "cache").rglob("*") if path.is_file()} == told
    listed.unlink()
    run(tmp_path / "cache", space("good", "broken"))
    assert f"{tmp_path / 'cache' / FOLDER / 'perf_metrics.json'}\0" == listed.read_text()


def test_the_cache_root_is_the_argument_else_the_variable_else_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AUTOTUNE_CACHE_DIR", raising=False)
    assert tmp_path / ".cache/autotune" == cache.root()
    monkeypatch.setenv("AUTOTUNE_CACHE_DIR", "~/there")
    assert tmp_path / "there" == cache.root()
    assert Path("/else") == cache.root("/else")


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"backend": "cc"}, UsageError, "no backend 'cc'; did you mean 'c'"),
        (
            {"searched": SearchSpace({"kin": ("good",)})},
            UsageError,
            "no parameter 'kin'; did you mean 'kind'",
        ),
        (
            {"searched": SearchSpace({"kind": ("good",)}, (lambda _config: False,))},
            UsageError,
            "the search space is empty",
        ),
        ({"backend": CBackend(compiler="no-such-cc")}, UnavailableError, "no-such-cc"),
        (
            {
                "inputs": Inputs(
                    INPUTS.specs,
                    arrays=(np.full(1000, np.nan, np.float32), np.zeros(1000, np.float32)),
                )
            },
            DataError,
            "1000 of 1000 elements are NaN",
        ),
        (
            {"inputs": Inputs((TensorSpec("a", (4,), "complex64"), TensorSpec("b", (4,), "complex64")))},
            UsageError,
            "no tolerance for dtype 'complex64'",
        ),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_left(tmp_path, options, kind, message):
    with pytest.raises(kind, match=message):
        run(tmp_path / "cache", **options)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("fields", [{"trials": 0}, {"seconds": 0}, {"seconds": float("nan")}])
def test_a_budget_that_cannot_be_meant_is_refused(fields):
    with pytest.raises(UsageError, match="budget"):
        Budget(**fields)


def test_a_cache_that_cannot_be_written_is_said_before_anything_is_compiled(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="cannot be written: Not a directory; choose another place"):
        run(tmp_path / "file" / "cache")


def test_a_cache_that_this_user_may_not_write_is_said(tmp_path):
    (tmp_path / "cache").mkdir(mode=0o500)
    as_nobody = "import os; os.getuid() or os.setuid(65534)"  # root may write anywhere
    code = f"import sys; sys.path[:0] = {[str(ROOT), str(HERE)]!r}; from tuned import run; {as_nobody}\n"
    code += f"run({str(tmp_path / 'cache')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "cannot be written: Permission denied; give this user the right to write there" in done.stderr
    assert [] == list((tmp_path / "cache").iterdir())


SCRIPT = """
import resource, sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from autotune.model.errors import AutotuneError
from tuned import run, space
class Filling:
    # Files grow no more after so many trials; the workers, which run already, are not concerned.

    def __init__(self, *_search):
        self.left = int(sys.argv[2])

    def trial(self, trial):
        self.left -= 1
        if self.left == 0:
            journal = max(path.stat().st_size for path in Path(sys.argv[1]).glob("add/index/*"))
            resource.setrlimit(resource.RLIMIT_FSIZE, (journal + 300, resource.RLIM_INFINITY))

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        pass

try:
    results = run(sys.argv[1], space("good", "slow", variants=10), progress=Filling)
    print(results.measured, len(results.trials), results.best.confirmed is not None)
except AutotuneError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def start(cache_dir, full_after=0, **options):
    command = [sys.executable, "-c", SCRIPT, str(cache_dir), str(full_after), str(ROOT), str(HERE)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def recorded(cache_dir):
    return {
        record["trial"]["identity"]
        for each in journal.read_all(cache_dir / "add/index")
        for record in each.records
        if record["record"] == "trial"
    }


def wait_for_records(cache_dir, count):
    for _ in range(1200):
        if len(recorded(cache_dir)) >= count:
            return
        time.sleep(0.05)
    raise AssertionError("the tuner records nothing")


def test_a_tuner_that_is_killed_continues_and_loses_at_most_what_was_in_flight(tmp_path):
    tuner = start(tmp_path, start_new_session=True)
    wait_for_records(tmp_path, 5)
    family = psutil.Process(tuner.pid).children(recursive=True)
    tuner.kill()
    tuner.communicate()
    kept = recorded(tmp_path)
    psutil.wait_procs(family, timeout=20)
    assert [] == [process for process in family if process.is_running()]
    results = run(tmp_path, space("good", "slow", variants=10))
    assert (20 - len(kept), 20) == (results.measured, len(results.trials))
    assert kept <= recorded(tmp_path) and 20 == len(recorded(tmp_path))
    assert 20 == len(document(tmp_path)["trials"])


def test_ctrl_c_leaves_a_summary_of_what_was_found(tmp_path):
    tuner = start(tmp_path, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_for_records(tmp_path, 3)
    tuner.send_signal(signal.SIGINT)
    tuner.communicate()
    assert 0 != tuner.returncode
    assert len(recorded(tmp_path)) == len(document(tmp_path)["trials"])


def test_two_tuners_on_one_cache_both_finish_and_no_record_is_lost(tmp_path):
    tuners = [start(tmp_path), start(tmp_path)]
    said = [tuner.communicate()[0].split() for tuner in tuners]
    assert [0, 0] == [tuner.returncode for tuner in tuners]
    assert [["20", "True"]] * 2 == [words[1:] for words in said]
    assert 20 == len(recorded(tmp_path)) == len(document(tmp_path)["trials"])
    assert 0 == run(tmp_path, space("good", "slow", variants=10)).measured
    assert (20, []) == verify(tmp_path)


def test_a_disk_that_fills_up_is_said_and_nothing_is_half_written(tmp_path):
    tuner = start(tmp_path, full_after=5)
    said = tuner.communicate()[0]
    assert 74 == tuner.returncode
    assert "cannot be written: File too large" in said
    assert {"index", "1000_1000"} == names(tmp_path / "add")
    assert not any(path.name.startswith(".unfinished") for path in tmp_path.rglob("*"))
    kept = recorded(tmp_path)
    assert 3 <= len(kept) < 20
    assert 20 - len(kept) == run(tmp_path, space("good", "slow", variants=10)).measured


def test_a_torn_record_is_told_and_only_its_config_measured_again(tmp_path):
    run(tmp_path, space("good", "slow"))
    path = next((tmp_path / "add/index").iterdir())
    lines = path.read_bytes().splitlines(keepends=True)
    records = [line for line in lines if b'"record":"trial"' in line]
    path.write_bytes(b"".join(lines[: lines.index(records[1])]) + records[1][:100])
    results = run(tmp_path, space("good", "slow"))
    assert (1, f"{path}: its last record is torn and was left out") == (results.measured, results.notes[0])


def test_a_corrupt_record_elsewhere_is_an_error_that_names_the_file(tmp_path):
    run(tmp_path, space("good", "slow"))
    path = next((tmp_path / "add/index").iterdir())
    path.write_bytes(path.read_bytes().replace(b'"status":"ok"', b'"status":"KO"', 1))
    with pytest.raises(DataError, match=f"{path}: line 3 of"):
        run(tmp_path, space("good", "slow"))


def test_the_tuner_never_waits_for_what_a_killed_one_left(tmp_path):
    left = tmp_path / FOLDER / ".unfinished-0123456789ab"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    assert 2 == run(tmp_path).measured
    assert [left] == cache.unfinished(tmp_path)
