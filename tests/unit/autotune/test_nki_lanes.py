"""What a person sees of an estimate: what to do next, and the page with the lanes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from autotune.kernels import gemm_nki_space
from autotune.model.errors import UsageError
from autotune.nki.kernel_file import find_kernel, keyword, operand
from autotune.nki.timing.advice import advice
from autotune.nki.timing.estimates import Estimate, estimate_trace
from autotune.nki.trace import PSUM, SBUF, Trace
from autotune.report.estimate_text import estimate_lines
from autotune.report.lanes import NOTICE, lanes_page, lanes_scene
from autotune.report.scene import Bar
from tests.unit.autotune import nki_published as published
from tests.unit.autotune.nki_traces import Kernel


def first(build: Callable[[], Trace]) -> str:
    return advice(estimate_trace(build()))[0].text


def products_of_float32() -> Trace:
    kernel = Kernel()
    lhs, rhs = kernel.tile(SBUF, 128, 128, "float32"), kernel.tile(SBUF, 128, 512, "float32")
    total = kernel.tile(PSUM, 128, 512, "float32")
    for _ in range(50):
        kernel.do("nc_matmul", total.whole, lhs.whole, rhs.whole)
    return kernel.trace


def many_copies() -> Trace:
    kernel = Kernel()
    one, other = (kernel.tile(SBUF, 128, 2048, "float32") for _ in range(2))
    for _ in range(50):
        kernel.do("tensor_copy", other.whole, one.whole)
    return kernel.trace


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (published.loads_inside, "Loads of tile are not doubled"),
        (lambda: published.whole_rows(1), "is not doubled: the tensor engine waits until it is drained"),
        (lambda: published.whole_rows(2), "The first matmul starts after 26.2 us"),
        (lambda: published.blocked(True, True, False), "at 91% of its peak: only less arithmetic would help"),
        (products_of_float32, "Matmuls of float32 take four passes"),
        (many_copies, "give ScalarE some of the copies"),
        (published.scan_of_states, "give GpSimd some of the arithmetic"),
    ],
)
def test_advice_names_what_holds_a_kernel_up(build: Callable[[], Trace], text: str) -> None:
    assert text in first(build)


def test_advice_names_the_line_and_the_time_that_it_is_about() -> None:
    found = estimate_trace(published.loads_inside())
    points = advice(found)
    assert points[0].line is not None
    assert "kernel.py" == points[0].line[0]
    assert [each.us for each in points] == sorted((each.us for each in points), reverse=True)
    assert 0.6 * found.us < points[0].us < found.us
    assert any("is loaded 16.0 times over, 128 MiB in all" in each.text for each in points)
    assert any("runs of 256 bytes" in each.text for each in points)


@pytest.fixture(scope="module")
def found() -> Estimate:
    """Return the estimate of a small kernel."""
    return estimate_trace(published.scan_of_states(128, 512, 2))


def test_the_page_loads_nothing_and_runs_one_script(found: Estimate) -> None:
    html = lanes_page(found, "scan <128 channels>")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy
    assert re.fullmatch(
        r"default-src (&#x27;|')none(&#x27;|'); style-src (&#x27;|')unsafe-inline(&#x27;|'); "
        r"script-src (&#x27;|')sha256-[\w+/]{43}=(&#x27;|')",
        policy[1],
    )
    assert not re.search(r'(src|href)="', html)
    assert "scan &lt;128 channels&gt;" in html


def test_the_page_says_that_nothing_was_run(found: Estimate) -> None:
    html = lanes_page(found, "scan")
    assert html.count(NOTICE) >= 2
    assert f"{found.us:,.1f} us" in html
    assert not re.search(r"\d ms\b", html)


def test_the_page_has_every_instruction(found: Estimate) -> None:
    html = lanes_page(found, "scan")
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', html)
    assert text and found.timeline
    data = json.loads(text[1])
    count = len(found.timeline.trace.instructions)
    for column in ("work", "line", "into", "start", "end", "cause", "critical"):
        assert count == len(data[column])
    assert round(found.us * 1e3) == data["ns"]
    assert found.timeline.path == [number for number, flag in enumerate(data["critical"]) if flag]


def test_the_picture_without_scripts_shows_what_is_busy(found: Estimate) -> None:
    bars = [mark for mark in lanes_scene(found, "scan").marks if isinstance(mark, Bar) and mark.y == 42]
    assert found.engines["vector"] == pytest.approx(sum(bar.width for bar in bars) / 980, abs=0.03)


def test_the_terminal_says_what_to_do_next() -> None:
    text = list(estimate_lines(estimate_trace(published.whole_rows(1))))
    assert text[0].startswith("estimated 343.8 us (")
    assert text[0].endswith("nothing was run on a NeuronCore")
    assert text[1].startswith("busy: TensorE 67%, VectorE 10%")
    assert any("is not doubled" in line and line.endswith("(kernel.py:2)") for line in text)


@pytest.mark.parametrize(
    ("read", "text", "expected"),
    [
        (operand, "2048x1024:bfloat16", ((2048, 1024), "bfloat16")),
        (operand, "7:float32", ((7,), "float32")),
        (keyword, "tiles_m=4", ("tiles_m", 4)),
        (keyword, "loop_order=NMK", ("loop_order", "NMK")),
        (keyword, "shape=(1, 2)", ("shape", (1, 2))),
    ],
)
def test_words_of_the_command_line(read: Callable[[str], object], text: str, expected: object) -> None:
    assert expected == read(text)


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (operand, "2048*1024:bfloat16", "write shape and dtype as 2048x2048:bfloat16"),
        (operand, "8:bf17", "NKI has no dtype 'bf17'"),
        (keyword, "4", "NAME=VALUE"),
        (find_kernel, "nowhere.py:kernel", "no file nowhere.py"),
        (
            find_kernel,
            str(Path(gemm_nki_space.__file__).with_name("gemm_nki.py")),
            "it has gemm_lhsT_rhs, gemm_lhs_rhs",
        ),
    ],
)
def test_wrong_words_say_what_to_type(read: Callable[[str], object], text: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        read(text)


def test_advice_sees_engines_that_wait_for_each_other() -> None:
    kernel = Kernel()
    one, other = (kernel.tile(SBUF, 128, 8, "float32") for _ in range(2))
    for _ in range(20):
        kernel.do("activation", one.whole, other.whole, op="exp")
        kernel.do("tensor_copy", other.whole, one.whole)
    assert "Engines hand results to each other" in advice(estimate_trace(kernel.trace))[0].text
