import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tuned import run, space

from autotune import SearchSpace, verify
from autotune.__main__ import main
from autotune.kernels import transpose
from autotune.store import journal

ROOT = Path(__file__).parents[3]
FOLDER = "add/1000_1000"
GOOD = "kind=good,variant=0"


@pytest.fixture(scope="module")
def tuned_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    run(folder, space("good", "slow", "wrong", "broken"))
    return folder


@pytest.fixture
def tuned(tuned_once, tmp_path):
    return shutil.copytree(tuned_once, tmp_path / "cache")


def said(capsys, *words, code=0):
    assert code == main([str(word) for word in words])
    return capsys.readouterr().out


def cli(*words):
    command = [sys.executable, "-m", "autotune", *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_list_prints_the_best_of_every_workload(tuned, capsys):
    text = said(capsys, "list", "--cache-dir", tuned)
    assert "add" in text and "1000_1000" in text and "kind=good" in text


def test_best_prints_json(tuned, capsys):
    record = json.loads(said(capsys, "best", "add", "--cache-dir", tuned))
    assert {"kind": "good", "variant": 0} == record["config"]
    assert ("add", "1000_1000", True) == (record["kernel"], record["shapes"], record["confirmed"])


def test_show_prints_trials_and_statuses(tuned, capsys):
    text = said(capsys, "show", FOLDER, "--cache-dir", tuned)
    assert f"confirmed  {GOOD}" in text
    assert text.endswith("  1 compile_error, 2 ok, 1 wrong_output\n")


def test_show_prints_a_failure_with_its_log(tuned, capsys):
    text = said(capsys, "show", "add", "kind=broken", "--cache-dir", tuned)
    assert "status: " in text and "error:" in text


def test_a_whole_cache_verifies(tuned, capsys):
    assert "4 trials read: no problems found\n" == said(capsys, "verify", "--cache-dir", tuned)


def test_verify_finds_a_hostile_pickle_and_runs_nothing(tuned, tmp_path, capsys):
    class Touch:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    path = tuned / FOLDER / GOOD / "performance_result.pkl"
    path.write_bytes(pickle.dumps({"trial": Touch()}))
    assert f"damaged: {path}" in said(capsys, "verify", "--cache-dir", tuned, code=65)
    assert not (tmp_path / "ran").exists()


def test_verify_finds_a_pickle_that_says_something_else(tuned, capsys):
    path = tuned / FOLDER / GOOD / "performance_result.pkl"
    result = pickle.loads(path.read_bytes())
    result["trial"]["metrics"]["median_ms"] = 0.0
    path.write_bytes(pickle.dumps(result, 4))
    expected = f"damaged: {path}: is not what the journal recorded"
    assert expected in said(capsys, "verify", "--cache-dir", tuned, code=65)


def test_verify_finds_a_summary_that_was_edited(tuned, capsys):
    path = tuned / FOLDER / "perf_metrics.json"
    document = json.loads(path.read_text())
    document["trials"][0]["metrics"]["median_ms"] = 1e-9
    path.write_text(json.dumps(document))
    expected = f"damaged: {path}: {GOOD} is not what the journal recorded"
    assert expected in said(capsys, "verify", "--cache-dir", tuned, code=65)


def test_verify_finds_a_corrupt_journal_and_names_it(tuned, capsys):
    path = next((tuned / "add/index").iterdir())
    path.write_bytes(path.read_bytes().replace(b"ok", b"KO", 1))
    assert f"damaged: {path}" in said(capsys, "verify", "--cache-dir", tuned, code=65)


def test_verify_tells_what_a_killed_tuner_left_and_clean_removes_it(tuned, capsys):
    path = next((tuned / "add/index").iterdir())
    dead = subprocess.Popen(["true"])
    dead.wait()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    writer = {"host": socket.gethostname(), "pid": dead.pid, "boot": boot}
    header = journal.encode(json.dumps({"schema": 1, "writer": writer}))
    path.write_bytes(header + path.read_bytes().partition(b"\n")[2][:-20])
    left = tuned / FOLDER / ".unfinished-0"
    left.mkdir()
    os.utime(left, (0, 0))
    text = said(capsys, "verify", "--cache-dir", tuned)
    assert f"incomplete: {left}: left by a killed tuner" in text
    assert f"incomplete: {path}: its last record is torn" in text
    assert "4 trials read: 2 incomplete\n" in text
    said(capsys, "clean", "--cache-dir", tuned)
    assert "4 trials read: no problems found\n" == said(capsys, "verify", "--cache-dir", tuned)


def test_verify_says_what_would_be_measured_again_here_and_why(tuned, capsys, monkeypatch):
    monkeypatch.setenv("CC", "no-such-cc")
    text = said(capsys, "verify", "--cache-dir", tuned)
    assert f"stale: {tuned / FOLDER}: backend c: no C compiler: looked for no-such-cc" in text


def test_verify_says_that_a_kernel_of_ours_writes_another_source_now(tmp_path, capsys, monkeypatch):
    kernel, inputs = transpose.kernel, transpose.inputs(24, 40)
    run(tmp_path, first_of(kernel.space(inputs.specs)), kernel=kernel, inputs=inputs)
    assert "1 trials read: no problems found\n" == said(capsys, "verify", "--cache-dir", tmp_path)
    source = kernel.generators["c"]
    changed = {**kernel.generators, "c": lambda *words: source(*words) + "/* new */\n"}
    monkeypatch.setattr(transpose, "kernel", replace(kernel, generators=changed))
    verify.own_kernels.cache_clear()
    text = said(capsys, "verify", "--cache-dir", tmp_path)
    verify.own_kernels.cache_clear()
    assert "the generator writes another source for 1 of 1 configs" in text


def first_of(space):
    config = next(iter(space))
    return SearchSpace({name: (value,) for name, value in config.items()})


@pytest.mark.parametrize("name", ["add.csv", "add.t4.json", "add.json.gz"])
def test_what_is_exported_can_be_imported_again(tuned, tmp_path, capsys, name):
    file = tmp_path / name
    assert f"{file}\n" == said(capsys, "export", "add", file, "--cache-dir", tuned)
    summary = Path(said(capsys, "import", file, "--cache-dir", tmp_path / "other").strip())
    assert summary.is_relative_to(tmp_path / "other")
    (best,) = said(capsys, "best", "--cache-dir", tmp_path / "other").splitlines()
    assert (
        json.loads(said(capsys, "best", "--cache-dir", tuned))["median_ms"] == json.loads(best)["median_ms"]
    )


def test_a_file_that_cannot_be_imported_is_said(tuned, tmp_path):
    (tmp_path / "file").write_text("no such format")
    code, _, err = cli("import", tmp_path / "file", "--cache-dir", tuned)
    assert 65 == code
    assert "neither a kernel_tuner cache, nor T4 results, nor a CSV" in err and "Traceback" not in err


def test_clean_merges_journals_and_keeps_every_record(tuned, capsys):
    run(tuned, space("good", "slow", "wrong", "broken", "crash"))
    before = [record for each in journal.read_all(tuned / "add/index") for record in each.records]
    text = said(capsys, "clean", "--cache-dir", tuned)
    (merged,) = journal.read_all(tuned / "add/index")
    assert (before, True) == (merged.records, merged.finished)
    assert f"merged 2 journals of {len(before)} records into {merged.path}\n" == text
    assert 0 == run(tuned, space("good", "slow", "wrong", "broken", "crash")).measured
    assert "" == said(capsys, "clean", "--cache-dir", tuned)


def test_a_cache_of_a_newer_version_is_refused(tuned):
    path = tuned / FOLDER / "perf_metrics.json"
    path.write_text(path.read_text().replace('"schema": 2', '"schema": 3', 1))
    code, _, err = cli("best", "--cache-dir", tuned)
    assert (65, f"autotune: {path}: schema 3 is newer than 2; update autotune to read it\n") == (code, err)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["show", "ad"], 64, "no workload 'ad'. Known: add/1000_1000."),
        (["show", "add", "kind=goof"], 64, "no config 'kind=goof'"),
        (["bets"], 64, "invalid choice: 'bets'"),
        ([], 64, "required: COMMAND"),
    ],
)
def test_a_wrong_word_is_said_with_the_nearest_right_one(tuned, words, code, message):
    done = cli(*words, *(["--cache-dir", tuned] if words else []))
    assert code == done[0]
    assert message in done[2] and "Traceback" not in done[2]


def test_a_cache_that_is_not_there_is_said(tmp_path):
    code, _, err = cli("verify", "--cache-dir", tmp_path / "nowhere")
    assert (74, f"autotune: cache {tmp_path}/nowhere: no such folder; name another with --cache-dir\n") == (
        code,
        err,
    )


def test_a_reader_that_has_seen_enough_ends_it_quietly(tuned):
    command = f"{sys.executable} -m autotune show add --cache-dir {tuned} | true"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert "" == done.stderr


def test_names_from_another_machine_move_no_cursor(tuned, capsys):
    path = tuned / FOLDER / "perf_metrics.json"
    path.write_text(path.read_text().replace('"message":""', '"message":"\\u001b[2J"'))
    assert "\x1b" not in said(capsys, "show", "add", "--cache-dir", tuned)


def test_the_version_is_the_projects():
    from autotune import __version__

    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_report_takes_the_cache_as_every_command_does(tuned, capsys):
    assert "add" in said(capsys, "report", "--cache-dir", tuned, "--no-html")
    assert "add" in said(capsys, "report", tuned, "--no-html")


def test_the_command_is_installed_by_the_name_that_its_help_says(tuned):
    command = [str(Path(sys.executable).with_name("autotune")), "list", "--cache-dir", str(tuned)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)
    assert "kind=good" in done.stdout
