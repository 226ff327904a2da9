"""The report reads what a host wrote, shows it in every terminal, and trusts none of it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import sample_cache
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from autotune import report
from autotune.__main__ import main
from autotune.model.errors import CacheError, DataError, UsageError
from autotune.model.trial import Status
from autotune.report.comparison import comparison_page
from autotune.report.page import page
from autotune.report.palette import ROLES
from autotune.report.records import LOG_TAIL_BYTES, load, log_tail, machine
from autotune.report.terminal import print_workloads
from autotune.report.visible import encodable, visible


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_cache.write_cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Write one small workload and return its perf_metrics.json."""
    space = {"block": [8, 16], "unroll": [1, 2, 4]}
    return sample_cache.write_workload(
        tmp_path / "cache/gemm/8x8", {"flops": 1024, "bytes": 768}, space, 2, 0.4
    )


def edited(path: Path, *keys: str | int, value: Any) -> Path:
    """Put `value` at the place in the JSON file that `keys` lead to."""
    record = place = json.loads(path.read_text())
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(record))
    return path


def printed(paths: list[Path], width: int | None = None, encoding: str = "utf-8") -> str:
    """Return what the table looks like in a pipe, or in a window of `width`."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    print_workloads([load(path) for path in paths], stream, width)
    stream.flush()
    return raw.getvalue().decode(encoding)


def test_a_workload_is_read_as_the_tuner_wrote_it(root: Path) -> None:
    workload = load(root / "gemm_lhs_rhs/128x512_512x128/perf_metrics.json")

    assert ("gemm_lhs_rhs", "128x512_512x128", "c") == (workload.kernel, workload.shapes, workload.backend)
    assert 486 == len(workload.trials) == len(workload.measured) + len(workload.failed)
    assert workload.trials[0] == workload.best
    assert (workload.trials[1],) == workload.ties
    assert workload.speedup == pytest.approx(1.31)
    assert "trn1-dev · AMD EPYC 7R13 · cc (Debian) 12.2.0" == machine(workload)


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (("kernel",), 7, "expected a text, found 7"),
        (("trials", 0, "metrics", "median_ms"), float("nan"), "expected a finite number, found nan"),
        (("trials", 0, "metrics", "median_ms"), 0, "expected a number above zero, found 0"),
        (("trials", 0, "metrics", "gflops"), -1, "gflops is -1, below zero"),
        (("trials", 0, "metrics", "median_ms"), 1e300, "expected a number below 1e+18, found 1e+300"),
        (("trials", 0, "status"), "sunny", "'sunny' is not a valid Status"),
        (("trials", 0, "config"), {"block": [1]}, "expected a parameter's value, found [1]"),
        (("best",), "elsewhere", "no 'elsewhere' there"),
        (("schema",), 99, "newer"),
        (("schema",), True, "no schema"),
        (("trials", 0, "order"), 10**400, "an integer of 401 digits"),
        (("trials", 0, "order"), "1", "expected a finite number, found '1'"),
        (("trials", 0, "compile_s"), "", "expected a finite number, found ''"),
        (("trials", 0, "samples_ms"), "12", "expected a list, found '12'"),
        (("trials", 0, "metrics"), [], "expected an object, found []"),
        (("trials", 0, "confirmed"), False, "expected an object, found False"),
        (("trials", 0, "config"), {"block": float("inf")}, "expected a parameter's value, found inf"),
        (("trials",), {}, "no trials"),
        (("inputs",), [{"name": "x", "shape": [-1], "dtype": "float32", "strides": None}], "negative"),
        (("inputs",), [{"name": "x", "shape": [1], "dtype": "x" * 99, "strides": None}], "expected a dtype"),
        (("search", "space_size"), [], "expected a finite number, found []"),
        (("baselines",), "", "expected a list, found ''"),
        (("roofline",), 0, "expected an object, found 0"),
        (("environment",), [], "expected an object, found []"),
        (("others",), {}, "expected a list, found {}"),
        (("contexts",), {"c": 1}, "expected an object, found 1"),
        (("environment", "host"), json.loads("[" * 99 + "]" * 99), "nested more than 32 deep"),
    ],
)
def test_a_record_that_cannot_be_trusted_is_refused_by_name(
    small: Path, keys: tuple[str | int, ...], value: Any, said: str
) -> None:
    edited(small, *keys, value=value)

    with pytest.raises(DataError) as refusal:
        load(small)

    assert str(small) in str(refusal.value)
    assert said in str(refusal.value)


def places(value: object, here: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return the way to every value inside a JSON document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here] * bool(here) + [place for key, each in inner for place in places(each, (*here, key))]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_record_with_anything_anywhere_is_shown_or_refused(small: Path, data: st.DataObject) -> None:
    whole = small.read_text()
    value = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just([]) | st.just({})
    try:
        edited(small, *data.draw(st.sampled_from(places(json.loads(whole)))), value=data.draw(value))
        workloads = [load(small)]
        page(workloads, "cache", "today").encode()
        print_workloads(workloads, io.StringIO(), 80)
    except DataError:
        pass
    finally:
        small.write_text(whole)


def test_a_log_is_shown_from_its_end(small: Path) -> None:
    workload = load(small)
    trial = next(trial for trial in workload.failed if trial.status is not Status.TIMEOUT)
    log = next((small.parent / trial.path).iterdir())
    log.write_text("".join(f"line {number}\n" for number in range(2000)))

    tail = log_tail(workload, trial).splitlines()

    assert ("…", "line 1999") == (tail[0], tail[-1])
    assert [f"line {number}" for number in range(2001 - len(tail), 2000)] == tail[1:]
    assert len("\n".join(tail)) <= LOG_TAIL_BYTES


def test_a_log_outside_the_workloads_folder_is_not_read(small: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    for name in ("compilation_output.log", "execution_output.log"):
        (tmp_path / "secret" / name).write_text("secret")
    (small.parent / "link").symlink_to(tmp_path / "secret")
    index = len(load(small).measured)

    for path in ("../../../secret", str(tmp_path / "secret"), "link", "nul\0", "x" * 5000):
        edited(small, "trials", index, "path", value=path)
        assert "" == log_tail(load(small), load(small).failed[0])


def test_a_pipe_gets_one_line_for_each_workload(root: Path) -> None:
    lines = printed(
        [root / "gemm_lhs_rhs/128x512_512x128/perf_metrics.json", root / "softmax/512x512/perf_metrics.json"]
    ).splitlines()

    assert 7 == len(lines)
    assert ["kernel", "shapes", "backend", "best", "config"] == lines[0].split()[:5]
    assert "1.31×" in lines[2]
    assert lines[2].split()[:3] == ["gemm_lhs_rhs", "128x512_512x128", "c"]
    assert "no config ended ok" in lines[3]
    assert lines[6].startswith("softmax 512x512: ")


def test_what_a_hundred_columns_do_not_hold_stands_below_the_table(root: Path) -> None:
    head, _, row, *below = printed(
        [root / "gemm_lhs_rhs/128x512_512x128/perf_metrics.json"], 100
    ).splitlines()

    assert ["kernel", "shapes", "time", "baseline", "speed-up", "rate", "roofline", "ties"] == head.split()
    assert ["gemm_lhs_rhs", "128x512_512x128"] == row.split()[:2]
    assert "gemm_lhs_rhs 128x512_512x128: c; " in " ".join(below)
    assert "against numpy" in " ".join(below)


def test_what_needs_unknown_flop_is_left_out(small: Path) -> None:
    record = json.loads(small.read_text())
    record["work"]["flops"] = None
    readings = [each["metrics"] for each in (*record["baselines"], *record["trials"])]
    for reading in filter(None, (*readings, *(trial["confirmed"] for trial in record["trials"]))):
        reading |= {"gflops": None, "arithmetic_intensity": None, "roofline_fraction": None}
    small.write_text(json.dumps(record))

    head, _, row, *_ = printed([small], 200).splitlines()
    told = read_page([small]).text

    assert (True, False) == ("rate" in head, "roofline" in head)
    assert "GB/s" in row and "GFLOP/s" not in row
    assert 1 == told.count("GFLOP/s")  # the machine's own peak


@pytest.mark.parametrize("width", [40, 200])
def test_no_speed_up_is_told_of_what_was_unsteady(small: Path, width: int) -> None:
    slow = json.loads(small.read_text())["baselines"][0]["metrics"]
    edited(small, "baselines", 0, "metrics", value={**slow, "ci95_low_ms": 20.0, "ci95_high_ms": 59.0})

    text = " ".join(printed([small], width).split())

    assert None is load(small).speedup
    assert "0.40×" not in text
    assert "against numpy, but the machine was busy: the best took" in text
    assert "the baseline 20.0–59.0 ms" in text
    assert "unsteady" in read_page([small]).text


@pytest.mark.parametrize("width", [20, 40, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal_and_no_word_is_lost(root: Path, width: int) -> None:
    path = root / "gemm_lhs_rhs/128x512_512x128/perf_metrics.json"

    text = printed([path], width)

    assert max(map(cell_len, text.splitlines())) <= width
    folded = "".join(text.split())
    assert "gemm_lhs_rhs" in folded
    assert "1.31×" in folded
    best = load(path).best
    assert best is not None
    assert width != 80 or "".join(f"{name}={value}," for name, value in best.config.items())[:-1] in folded


def test_where_there_is_no_utf_8_the_table_is_ascii(root: Path) -> None:
    text = printed([root / "gemm_lhs_rhs/128x512_512x128/perf_metrics.json"], encoding="ascii")

    assert text.isascii()
    assert "1.31x" in text


@pytest.mark.parametrize("width", [None, 40, 250])
def test_nothing_from_a_host_drives_the_terminal(small: Path, width: int | None) -> None:
    text = printed([sample_cache.make_hostile(small)], width)

    assert "" == "".join(char for char in text if not char.isprintable() and char != "\n")
    assert "\\x1b" in "".join(text.split())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain äß 漢字 🎉", "plain äß 漢字 🎉"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\u202eevil\u2066", "\\u202eevil\\u2066"),
        ("\ud800", "\\ud800"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
    ],
)
def test_what_cannot_be_seen_is_made_visible(text: str, shown: str) -> None:
    assert shown == visible(text)


def test_our_own_signs_have_ascii_stand_ins() -> None:
    assert "1.3x - 5 us, \\xe4" == encodable("1.3× – 5 µs, ä", "ascii")


class Page(HTMLParser):
    """Collect what a page is made of."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()
        self.headings: list[str] = []
        self.text = ""
        self._tag = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        self.tags.add(tag)
        self.attributes.update(attrs)

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._tag == "h4":
            self.headings.append(data)
            self._tag = ""


def read_page(paths: list[Path]) -> Page:
    return Page(page([load(path) for path in paths], "cache", "today"))


def test_the_page_has_every_chart_and_table(root: Path) -> None:
    path = root / "gemm_lhs_rhs/128x512_512x128/perf_metrics.json"

    shown = read_page([path])

    assert [
        "Best against baseline",
        "Spread: time over the best's",
        "Roofline",
        "Distribution of all trials",
        "Progress of the search",
        "Effect of each parameter",
        f"Failures: {len(load(path).failed)} of 486 trials",
        "Best configs",
        "Failures and their logs",
    ] == shown.headings
    assert "'acc_6' undeclared (first use in this function)" in shown.text
    assert "AMD EPYC 7R13" in shown.text


def test_the_page_needs_nothing_from_anywhere(root: Path) -> None:
    shown = read_page(sorted(root.glob("*/*/perf_metrics.json")))
    targets = {f"#{value}" for name, value in shown.attributes if name == "id"}

    assert shown.tags.isdisjoint({"script", "img", "link", "iframe", "object", "base", "form"})
    assert targets == {value for name, value in shown.attributes if name in {"href", "src", "action"}}
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in shown.attributes


def test_nothing_from_a_host_becomes_markup(small: Path) -> None:
    harmless = read_page([small])
    shown = read_page([sample_cache.make_hostile(small)])

    assert harmless.tags == shown.tags
    assert {name for name, _ in harmless.attributes} == {name for name, _ in shown.attributes}
    assert "" == "".join(char for char in shown.text if not char.isprintable() and char not in "\n\t")
    assert "<script>owned = 1</script>" in shown.text


def test_a_comparison_is_drawn_with_every_interval() -> None:
    text = "<b>\x1b"
    ratios = [
        {"value": v, "low": v / 1.1, "high": v * 1.1, "verdict": w} for v, w in ((2, "faster"), (1, "same"))
    ]
    best = {"config": text, "median_ms": 2.0, "gflops": 3.0}
    row = {
        "kernel": text,
        "shapes": "8x8",
        "best": [best, best, None, best],
        "ratios": [ratios[0], None, ratios[1]],
    }
    sides = [{"name": name, "about": text} for name in ("trn1", "trn2", "trn3", "trn4")]
    shown = Page(
        comparison_page(json.dumps({"made_at": "today", "sides": sides, "lines": [text], "rows": [row]}))
    )

    assert {("aria-label", "faster"), ("aria-label", "same")} == {
        each for each in shown.attributes if each[0] == "aria-label"
    }
    assert shown.tags.isdisjoint({"script", "img", "link", "b"})
    assert "2x [1.82, 2.2] faster" in shown.text
    assert "" == "".join(char for char in shown.text if not char.isprintable() and char not in "\n\t")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sides": []}', "[" * 100_000])
def test_what_is_no_comparison_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="not a comparison"):
        comparison_page(text)


def test_the_report_is_a_page_and_a_png_for_each_kernel_and_shape(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, work = small.parents[2], {"flops": 0, "bytes": 4096}
    sample_cache.write_workload(root / "transpose/32x32", work, {"block": [8, 16]}, 2, failing=0)
    sample_cache.write_workload(root / "softmax/32x32", work, {"block": [8, 16]}, 2, failing=1)

    assert 0 == main(["report", str(root), "--out", str(tmp_path / "out")])

    assert [
        "gemm.png",
        "gemm/8x8.png",
        "report.html",
        "softmax/32x32.png",
        "transpose.png",
        "transpose/32x32.png",
    ] == sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    assert b"\x89PNG\r\n\x1a\n" == (tmp_path / "out/transpose.png").read_bytes()[:8]
    out = capsys.readouterr().out
    assert f"report: {tmp_path / 'out/report.html'}\nplots:  {tmp_path / 'out'} (5 PNG)\n" in out


def test_hostile_names_are_drawn_too(small: Path, tmp_path: Path) -> None:
    assert [tmp_path / "gemm.png", tmp_path / "gemm/8x8.png"] == report.write_plots(
        [load(sample_cache.make_hostile(small))], tmp_path
    )


def test_no_html_writes_nothing(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(small.parents[2].rglob("*"))

    assert 0 == main(["report", str(small.parents[2]), "--no-html"])

    assert before == sorted(small.parents[2].rglob("*"))
    assert "gemm" in capsys.readouterr().out


def test_what_can_be_read_is_shown_beside_what_cannot(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torn = small.parents[1] / "9x9/perf_metrics.json"
    torn.parent.mkdir()
    torn.write_text(small.read_text()[:-20])

    assert 65 == main(["report", str(small.parents[2]), "--no-html"])

    shown = capsys.readouterr()
    assert "8x8" in shown.out
    assert str(torn) in shown.err


def test_a_cache_without_results_says_what_to_name_instead(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing was tuned here"):
        main(["report", str(tmp_path)])
    with pytest.raises(CacheError, match="no such folder"):
        main(["report", str(tmp_path / "absent")])


def test_a_fault_of_usage_ends_with_ex_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["report", "--sunny"])

    assert 64 == ended.value.code
    assert "unrecognized arguments: --sunny" in capsys.readouterr().err


def test_without_matplotlib_there_is_a_table_a_page_and_advice(small: Path) -> None:
    program = (
        "import sys; sys.modules['matplotlib'] = None; from autotune.__main__ import main; main(sys.argv[1:])"
    )

    ran = subprocess.run(
        [sys.executable, "-c", program, "report", str(small.parents[2])],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(report.__file__).parents[2])},
    )

    assert 0 == ran.returncode, ran.stderr
    assert "gemm" in ran.stdout
    assert (small.parents[2] / "plots/report.html").is_file()
    advice = "PNG plots need matplotlib; install it with: pip install 'remote-autotune[autotune]'"
    assert f"autotune: {advice}\n" == ran.stderr


def luminance(colour: str) -> float:
    """Return WCAG's relative luminance of `#rrggbb`."""
    channels = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("role", ["ink", "muted", "best", "baseline", "failed"])
def test_every_text_stands_out_as_wcag_asks(role: str, scheme: str) -> None:
    text, page, card = (luminance(getattr(ROLES[name], scheme)) for name in (role, "page", "card"))

    for ground in (page, card):
        assert (max(text, ground) + 0.05) / (min(text, ground) + 0.05) >= 4.5
