"""The flags of scripts that tune, and `autotune tune FILE:NAME`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tuned import INPUTS, kernel

from autotune import script
from autotune.__main__ import main

DECLARED = Path(__file__).with_name("declared.py")
PARSER = script.parser("Tune.", budget=16)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--budget x", "a count of configs, 0 or more, not 'x'"),
        ("--seconds 0", "a number of seconds, more than 0, not '0'"),
        ("--seconds nan", "a number of seconds, more than 0, not 'nan'"),
        ("--strategy best", "invalid choice: 'best'"),
        ("--devices 0,,1", "names of devices with commas between them, or all, not '0,,1'"),
        ("--dtype int7", "invalid choice: 'int7'"),
    ],
)
def test_a_bad_flag_of_a_script_is_told_and_ends_with_2(words: str, message: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        PARSER.parse_args(words.split())

    assert (2, True) == (ended.value.code, message in capsys.readouterr().err)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--shape x=3x", "a shape such as x=4096x512 or x=4096x512,float64, not 'x=3x'"),
        ("--shape 3x3", "a shape such as"),
        ("--shape x=3,", "a shape such as"),
        ("--shape x=3,int7", "no dtype 'int7' here"),
        ("--shape x=3 --dtype int7", "no dtype 'int7' here"),
        ("--shape y=3x3", "kernel row_sums: no tensor 'y'"),
        ("", "the following arguments are required: --shape"),
    ],
)
def test_a_bad_flag_of_tune_is_told_and_ends_with_2(words: str, message: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["tune", f"{DECLARED}:sums", *words.split()])

    assert (2, True) == (ended.value.code, message in capsys.readouterr().err)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (f"{DECLARED}:sum", "has no kernel 'sum'; did you mean 'sums'? Known: returned, written, sums."),
        ("nowhere.py:sums", "nowhere.py:sums: name a file and a kernel in it, such as ops.py:softmax"),
        ("sums", "sums: name a file and a kernel in it"),
    ],
)
def test_a_kernel_that_is_not_there_is_told(named: str, message: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["tune", named, "--shape", "x=3"])

    assert (2, True) == (ended.value.code, message in capsys.readouterr().err)


@pytest.mark.parametrize(
    ("words", "trials", "seconds"),
    [
        ("", 16, None),
        ("--budget 0", None, None),
        ("--budget 3", 3, None),
        ("--seconds 2.5", None, 2.5),
        ("--seconds 2 --budget 3", 3, 2.0),
    ],
)
def test_the_default_budget_holds_unless_seconds_are_given(
    words: str, trials: int | None, seconds: float | None
) -> None:
    options = script._options(PARSER.parse_args(words.split()))
    assert (trials, seconds) == (options["budget"].trials, options["budget"].seconds)
    assert None is options.get("devices")


def test_flags_are_passed_on() -> None:
    flags = PARSER.parse_args(["--strategy", "random", "--retune", "--devices", "0,1", "--cache-dir", "x"])
    options = script._options(flags)
    assert ("Random", True, ("0", "1")) == (
        type(options["strategy"]).__name__, options["retune"], options["devices"],
    )  # fmt: skip
    assert "all" == PARSER.parse_args(["--devices", "all"]).devices


def test_json_is_one_object_and_all_that_is_on_stdout(tmp_path: Path, capsys: Any) -> None:
    flags = PARSER.parse_args(["--json", "--cache-dir", str(tmp_path), "--budget", "1"])
    code = script.main(flags, [script.Case(kernel(), INPUTS)])
    out, err = capsys.readouterr()
    told = json.loads(out)
    (workload,) = told.pop("workloads")
    written = json.loads((tmp_path / "add/1000_1000/perf_metrics.json").read_text())

    assert (0, {"schema": 1}) == (code, told)
    assert written["best"] == workload["best"]["path"]
    assert written["trials"][0]["confirmed"] == workload["best"]["metrics"]
    assert written["baselines"] == workload["baselines"]
    assert ({"ok": 1}, 1, []) == (workload["statuses"], workload["measured"], workload["ties"])
    assert "best config" in err


def test_a_declared_kernel_and_a_kernel_object_are_tuned_from_their_file(tmp_path: Path, capsys: Any) -> None:
    where = ["--cache-dir", str(tmp_path), "--json"]
    codes = [
        main(["tune", f"{DECLARED}:sums", "--shape", "x=4x6", *where]),
        main(
            [
                "tune",
                f"{DECLARED.with_name('vector_add.py')}:KERNEL",
                "--shape=a=1000",
                "--shape=b=1000",
                *where,
            ]
        ),
    ]
    sums, add = map(json.loads, capsys.readouterr().out.splitlines())

    assert [0, 0] == codes
    assert ("row_sums", "4x6", {"ok": 2}) == tuple(
        sums["workloads"][0][key] for key in ("kernel", "shapes", "statuses")
    )
    assert ("add", "c", ["NumPy"]) == (
        add["workloads"][0]["kernel"], add["workloads"][0]["backend"],
        [each["name"].partition(",")[0] for each in add["workloads"][0]["baselines"]],
    )  # fmt: skip
