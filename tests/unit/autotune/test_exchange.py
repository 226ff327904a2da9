"""What other tuners recorded can be read, and what this one recorded can be given to them."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from autotune import exchange
from autotune.exchange.recording import Recording, trial_of
from autotune.model.errors import CacheError, DataError, UsageError
from autotune.model.trial import Status
from autotune.report import load
from autotune.report.best_table import headline
from autotune.store import catalog
from autotune.store.clean import clean
from autotune.verify import verify

KERNEL_TUNER = {
    "device_name": "NVIDIA RTX A4000",
    "kernel_name": "convolution_kernel",
    "problem_size": [4096, 4096],
    "tune_params_keys": ["block_size_x", "order"],
    "tune_params": {"block_size_x": [16, 32, 64], "order": ["MN", "NM"]},
    "objective": "time",
    "cache": {
        "16,MN": {
            "block_size_x": 16,
            "order": "MN",
            "time": 2.0,
            "times": [1.5, 2.0, 2.5],
            "compile_time": 800.0,
            "verification_time": 0,
            "benchmark_time": 6.0,
            "strategy_time": 0,
            "framework_time": 1.0,
            "timestamp": "2023-12-22 09:53:48+00:00",
        },
        "32,MN": {"block_size_x": 32, "order": "MN", "time": "CompilationFailedConfig"},
        "32,NM": {"block_size_x": 32, "order": "NM", "time": "RuntimeFailedConfig"},
        "16,NM": {"block_size_x": 16, "order": "NM", "time": 1e20},
        "64,NM": {"block_size_x": 64, "order": "NM", "time": 1.25},
    },
}


def recording() -> Recording:
    """Return one trial of every status, with values that a table could take for something else."""
    configs = [
        {"block": 2**i, "order": order, "pack": i % 2 == 0, "scale": 0.5 * i, "text": text}
        for i, (order, text) in enumerate(
            zip(["MNK", "a,b", '"', "", "x\ny"] * 2, ["1", "true", "é", "null", "1e3"] * 2, strict=True)
        )
    ]
    statuses = list(Status)
    trials = [
        trial_of(config, status, order, 1.5 + order if status is Status.OK else "it failed", (), 120.0, "")
        for order, (config, status) in enumerate(zip(configs, statuses, strict=False))
    ]
    parameters = {
        name: list(dict.fromkeys(config[name] for config in configs[: len(statuses)])) for name in configs[0]
    }
    return Recording("gemm", "64x64", "EPYC", parameters, tuple(trials))


def outcomes(recorded: Recording) -> list[tuple[object, ...]]:
    return [
        (trial.config, trial.status, trial.metrics and trial.metrics.median_ms, trial.compile_s)
        for trial in recorded.trials
    ]


def test_a_kernel_tuner_cache_is_read_with_its_failures(tmp_path: Path) -> None:
    (tmp_path / "space.json.gz").write_bytes(gzip.compress(json.dumps(KERNEL_TUNER).encode()))
    read = exchange.read(tmp_path / "space.json.gz")
    assert ("convolution_kernel", "4096x4096,NVIDIA_RTX_A4000") == (read.kernel, read.workload)
    assert {"block_size_x": [16, 32, 64], "order": ["MN", "NM"]} == read.parameters
    assert [
        ({"block_size_x": 16, "order": "MN"}, Status.OK, 2.0, 0.8),
        ({"block_size_x": 32, "order": "MN"}, Status.COMPILE_ERROR, None, None),
        ({"block_size_x": 32, "order": "NM"}, Status.CRASH, None, None),
        ({"block_size_x": 16, "order": "NM"}, Status.ERROR, None, None),
        ({"block_size_x": 64, "order": "NM"}, Status.OK, 1.25, None),
    ] == outcomes(read)
    assert (1.5, 2.0, 2.5) == read.trials[0].samples_ms


@pytest.mark.parametrize("end", ["", ",", ",\n"])
def test_a_kernel_tuner_cache_of_a_run_that_was_killed_is_read(tmp_path: Path, end: str) -> None:
    torn = json.dumps(KERNEL_TUNER).removesuffix("}}") + end
    (tmp_path / "torn.json").write_text(torn)
    assert 5 == len(exchange.read(tmp_path / "torn.json").trials)


def test_repeats_in_another_unit_than_the_time_are_left_out(tmp_path: Path) -> None:
    document = json.loads(json.dumps(KERNEL_TUNER))
    document["cache"]["16,MN"] |= {"time": 52.5, "times": [0.49, 0.5]}
    (tmp_path / "space.json").write_text(json.dumps(document))
    assert (52.5,) == exchange.read(tmp_path / "space.json").trials[0].samples_ms


@pytest.mark.parametrize("name", ["out.csv", "out.csv.gz"])
def test_csv_gives_back_what_was_written(tmp_path: Path, name: str) -> None:
    exchange.write(recording(), tmp_path / name)
    read = exchange.read(tmp_path / name)
    assert outcomes(recording()) == outcomes(read)
    assert [trial.message for trial in recording().trials] == [trial.message for trial in read.trials]
    kept = {
        name: [type(value) for value in config.values()] for name, config in [("0", read.trials[0].config)]
    }
    assert {"0": [int, str, bool, float, str]} == kept


@pytest.mark.parametrize("name", ["out.json", "out.json.gz", "out.t4.json", "out.t4.json.gz"])
def test_kernel_tuner_and_t4_files_give_back_configs_times_and_kinds_of_failure(
    tmp_path: Path, name: str
) -> None:
    exchange.write(recording(), tmp_path / name)
    read = exchange.read(tmp_path / name)
    exchange.write(read, tmp_path / f"again-{name}")
    again = exchange.read(tmp_path / f"again-{name}")
    assert [row[0] for row in outcomes(recording())] == [row[0] for row in outcomes(read)]
    assert [row[2] for row in outcomes(recording())] == [row[2] for row in outcomes(read)]
    assert outcomes(read) == outcomes(again)
    assert read.trials == again.trials


def test_t4_tells_timeouts_and_wrong_outputs_apart(tmp_path: Path) -> None:
    exchange.write(recording(), tmp_path / "out.t4.json")
    read = {trial.status for trial in exchange.read(tmp_path / "out.t4.json").trials}
    assert read >= {Status.OK, Status.INVALID, Status.COMPILE_ERROR, Status.TIMEOUT, Status.WRONG_OUTPUT}


def test_an_imported_file_is_a_workload_of_the_cache_that_the_report_reads(tmp_path: Path) -> None:
    (tmp_path / "space.json").write_text(json.dumps(KERNEL_TUNER))
    summary = exchange.import_file(tmp_path / "space.json", tmp_path / "cache")
    assert [summary] == catalog.workloads(tmp_path / "cache")
    workload = load(summary)
    assert ("convolution_kernel", "4096x4096,NVIDIA_RTX_A4000") == (workload.kernel, workload.shapes)
    assert workload.best is not None
    assert {"block_size_x": 64, "order": "NM"} == dict(workload.best.config)
    assert "1.25 ms" == headline(workload)  # no rate: what it computes is not known


def test_an_imported_workload_is_whole_but_nothing_that_a_tuner_would_use(tmp_path: Path) -> None:
    (tmp_path / "space.json").write_text(json.dumps(KERNEL_TUNER))
    summary = exchange.import_file(tmp_path / "space.json", tmp_path / "cache")
    count, (found,) = verify(tmp_path / "cache")
    assert (len(load(summary).trials), "stale", summary.parent) == (count, found.kind, found.where)
    assert found.message.startswith("imported: ")
    assert [] == clean(tmp_path / "cache")


def test_an_import_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "space.json").write_text(json.dumps(KERNEL_TUNER))
    exchange.import_file(tmp_path / "space.json", tmp_path / "cache")
    with pytest.raises(UsageError, match=r"perf_metrics\.json exists; import into another cache"):
        exchange.import_file(tmp_path / "space.json", tmp_path / "cache")


@pytest.mark.parametrize("name", ["out.csv", "out.json", "out.t4.json"])
def test_a_workload_of_the_cache_is_exported_and_imported_again(tmp_path: Path, name: str) -> None:
    (tmp_path / "space.json").write_text(json.dumps(KERNEL_TUNER))
    summary = exchange.import_file(tmp_path / "space.json", tmp_path / "cache")
    exchange.export_file(summary, tmp_path / name)
    imported = load(exchange.import_file(tmp_path / name, tmp_path / "second"))
    first = load(summary)
    assert [(trial.config, trial.metrics and trial.metrics.median_ms) for trial in first.trials] == [
        (trial.config, trial.metrics and trial.metrics.median_ms) for trial in imported.trials
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\x1f\x8bnot gzip",
        b"\xff\xfe",
        b"a,b\n1,2\n",
        b"block,status,time_ms,compile_s,message\n4,ok\n",
        b"block,status,time_ms,compile_s,message\n4,ok,-1,,\n",
        b'{"results": [{"configuration": {}, "invalidity": "odd", "times": {}}]}',
        b'{"cache": {"1": {}}, "tune_params_keys": ["a"], "kernel_name": "k"}',
        b'{"cache": {"1": {"a": 1, "time": NaN}}, "tune_params_keys": ["a"], "kernel_name": "k"}',
    ],
)
def test_a_file_of_no_known_format_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd").write_bytes(content)
    with pytest.raises(DataError, match=r"odd: neither a kernel_tuner cache, nor T4 results, nor a CSV"):
        exchange.read(tmp_path / "odd")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"missing\.csv: No such file"):
        exchange.read(tmp_path / "missing.csv")


def test_a_name_that_leads_out_of_the_cache_is_made_harmless(tmp_path: Path) -> None:
    (tmp_path / "space.json").write_text(json.dumps({**KERNEL_TUNER, "kernel_name": "../../up"}))
    summary = exchange.import_file(tmp_path / "space.json", tmp_path / "cache")
    assert (tmp_path / "cache") == summary.parents[2]


def test_values_that_are_not_listed_are_found_in_the_configs(tmp_path: Path) -> None:
    exchange.write(replace(recording(), parameters=recording().parameters), tmp_path / "out.t4.json")
    assert [1, 2, 4, 8, 16, 32, 64, 128, 256, 512] == exchange.read(tmp_path / "out.t4.json").parameters[
        "block"
    ]
