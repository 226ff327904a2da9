"""While a search runs there is one line in a terminal, and a log elsewhere."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pexpect
import pytest

from autotune.model.trial import Metrics, Status, Trial
from autotune.report import live
from autotune.report.live import Live

SEARCH = """
import sys
sys.path.insert(0, sys.argv[1])
from autotune.report.live import Live
from autotune.model.trial import Metrics, Status, Trial
with Live("gemm 8x8", 3) as line:
    for ms in (4.0, None, 0.5):
        metrics = ms and Metrics(ms, ms, ms, ms, ms, 1, 0, 1.0, 1.0, 1.0)
        line.trial(Trial({}, Status.OK if ms else Status.CRASH, "", "", metrics=metrics))
"""


def trial(median_ms: float | None, status: Status = Status.OK) -> Trial:
    reading = Metrics(*[median_ms] * 5, 1, 0, 1.0, 1.0, 1.0) if median_ms else None
    return Trial({}, status, "", "", metrics=reading)


def searched(*trials: Trial, total: int | None = None, budget_s: float | None = None) -> list[str]:
    """Return the lines that a search of these trials leaves in a log."""
    stream = io.StringIO()
    with Live("gemm 8x8", total, budget_s, stream) as line:
        for each in trials:
            line.trial(each)
    return stream.getvalue().splitlines()


def test_a_log_gets_one_closing_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "elapsed", lambda _seconds: "some time")

    lines = searched(trial(4), trial(None, Status.CRASH), trial(0.5), trial(2), total=4)

    assert ["gemm 8x8: 4/4 trials, best 0.500 ms, 1 failed, some time"] == lines


def test_a_log_gets_a_line_for_each_period(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PERIOD_S", 0.0)
    monkeypatch.setattr(live, "elapsed", lambda _seconds: "1 s")

    lines = searched(trial(None, Status.TIMEOUT), trial(4), total=3, budget_s=60)

    assert [
        "gemm 8x8: 1/3 trials, no result yet, 1 failed, 1 s left",
        "gemm 8x8: 2/3 trials, best 4.00 ms, 1 failed, 1 s left",
        "gemm 8x8: 2/3 trials, best 4.00 ms, 1 failed, 1 s",
    ] == lines


def test_a_search_without_a_count_tells_what_is_done() -> None:
    (line,) = searched(trial(4), trial(5))

    assert line.startswith("gemm 8x8: 2 trials, best 4.00 ms, ")


def test_a_search_that_fails_still_tells_where_it_ended() -> None:
    stream = io.StringIO()

    with pytest.raises(KeyboardInterrupt), Live("gemm 8x8", 9, None, stream) as line:
        line.trial(trial(4))
        raise KeyboardInterrupt

    assert stream.getvalue().startswith("gemm 8x8: 1/9 trials, best 4.00 ms")


def test_a_hostile_name_drives_no_terminal() -> None:
    stream = io.StringIO()

    with Live("\x1b[2J\nevil", None, None, stream):
        pass

    assert stream.getvalue().startswith("\\x1b[2J\\nevil: 0 trials, no result yet")


@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_a_terminal_gets_one_line_that_ends_with_the_result(tmp_path: Path, locale: str) -> None:
    program = tmp_path / "search.py"
    program.write_text(SEARCH)
    encoding = "utf-8" if locale == "C.UTF-8" else "ascii"
    env = {**os.environ, "LC_ALL": locale, "PYTHONIOENCODING": encoding, "TERM": "xterm"}
    root = str(Path(live.__file__).parents[2])

    output, status = pexpect.run(
        f"{sys.executable} {program} {root}",
        withexitstatus=True,
        env=env,
        timeout=60,
        encoding="utf-8",
    )  # a pty of 80 columns

    assert 0 == status
    assert 1 == output.count("\n")
    last = output.replace("\r\n", "").split("\r")[-1]
    assert last.startswith("gemm 8x8 3/3 ")
    assert "best 0.500 ms, 1 failed" in last
    assert max(map(len, output.replace("\r\n", "").split("\r"))) <= 80
    assert (locale == "C") == last.isascii()


def test_a_terminal_without_a_size_gets_plain_lines(tmp_path: Path) -> None:
    program = tmp_path / "search.py"
    program.write_text(SEARCH)
    root = str(Path(live.__file__).parents[2])

    child = pexpect.spawn(
        sys.executable, [str(program), root], dimensions=(0, 0), encoding="utf-8", timeout=60
    )
    child.expect(pexpect.EOF)

    assert child.before.startswith("gemm 8x8: 3/3 trials, best 0.500 ms, 1 failed, ")
