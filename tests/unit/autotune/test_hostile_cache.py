"""A cache from elsewhere: whatever is in it is shown or told in a line, runs nothing and leads nowhere."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import zlib
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import pytest
from sample_cache import write_workload
from tuned import run, space

from autotune import SearchSpace
from autotune.__main__ import main
from autotune.kernels import transpose
from autotune.model.errors import AutotuneError, CacheError
from autotune.report import load_all
from autotune.report.page import page
from autotune.report.raster import png
from autotune.report.scene import Scene
from autotune.report.visible import visible
from autotune.store import journal
from remote_tools.runs import summaries
from remote_tools.runs.compare import Side, closing, compare

FOLDER = "add/1000_1000"
INTACT = "intact"
ESCAPE = "\x1b]52;c;x\x07\u202e\x9b31m\n"
DEEP = "replaced by brackets"
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**63, 10**99, 10**400, -(10**400)),
    *(0.5, -0.0, 1e-320, 1e18, 1e308, float("nan"), float("inf"), -float("inf")),
    *("", "x" * 100_000, "\ud800", "\udfff" + ESCAPE, "..", ".", "../../secret", "/etc/passwd", "nul\0"),
    *([], {}, [[]], {"": {}}, [None] * 100, {"a": 10**400}, {"min_ms": 1}, "ok", "c", DEEP),
)


pytestmark = pytest.mark.usefixtures("bounded_memory")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a real cache: a kernel of these tests, one of ours, and one that is never changed."""
    root = tmp_path_factory.mktemp("tuned")
    run(root, space("good", "slow", "wrong", "broken"))
    run(root, space("good"), backend="numpy")
    kernel, inputs = transpose.kernel, transpose.inputs(24, 40)
    config = next(iter(kernel.space(inputs.specs)))
    run(root, SearchSpace({key: (each,) for key, each in config.items()}), kernel=kernel, inputs=inputs)
    work = {"flops": 1024, "bytes": 768}
    write_workload(root / INTACT / "8x8", work, {"block": [8, 16], "unroll": [1, 2, 4]}, 2, failing=0.4)
    return root


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    """Return a copy of that cache, beside which a secret lies."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/file").write_text("secret")
    return shutil.copytree(whole, tmp_path / "cache")


# Changes: each takes a file and does something to it --------------------------------------------------------


def as_json(value: object) -> bytes:
    """Return JSON; some of its texts become lists that are nested deeper than Python can recurse."""
    text = json.dumps(value)
    for depth in (480, 100_000):
        text = text.replace(json.dumps(DEEP), "[" * depth + "1" + "]" * depth, 1)
    return text.encode()


def places(value: object, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every value inside a JSON document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here] * bool(here) + [place for key, each in inner for place in places(each, (*here, key))]


def edit(draw: random.Random, document: Any) -> Any:
    """Replace, remove, rename or repeat something in a JSON document."""
    ways = places(document)
    if not ways or draw.random() < 0.02:
        return draw.choice(VALUES)
    place, way = document, draw.choice(ways)
    last = way[-1]
    for key in way[:-1]:
        place = place[key]
    kind = draw.randrange(6)
    if kind == 0:
        del place[last]
    elif kind == 1 and isinstance(place, dict):
        place[draw.choice(["", ESCAPE, "\ud800", "a=1"])] = place.pop(last)
    elif kind == 2 and isinstance(place, list):
        place += [place[last]] * draw.choice([1, 50])
    else:
        place[last] = draw.choice(VALUES)
    return document


def edit_json(draw: random.Random, path: Path) -> None:
    document = json.loads(path.read_bytes())
    for _ in range(draw.choice([1, 1, 1, 3])):
        document = edit(draw, document)
    path.write_bytes(as_json(document))


def edit_line(draw: random.Random, path: Path) -> None:
    """Change a record of a journal, and give the line the right checksum."""
    lines = path.read_bytes().splitlines()
    at = draw.randrange(len(lines))
    payload = as_json(edit(draw, json.loads(lines[at][9:])))
    lines[at] = b"%08x %s" % (zlib.crc32(payload), payload)
    path.write_bytes(b"\n".join(lines) + b"\n")


def edit_bytes(draw: random.Random, path: Path) -> None:
    data = bytearray(path.read_bytes() or b"\0")
    for _ in range(draw.choice([1, 3, 30])):
        at = draw.randrange(len(data))
        kind = draw.randrange(4)
        if kind == 0:
            data[at] = draw.randrange(256)
        elif kind == 1:
            data[at:at] = draw.randbytes(draw.choice([1, 9]))
        elif kind == 2:
            del data[at : at + draw.choice([1, 9, 99])]
            data = data or bytearray(1)
        else:
            data[at:at] = data[at : at + 99] * draw.choice([1, 20])
    path.write_bytes(data)


def replace_file(draw: random.Random, path: Path) -> None:
    path.unlink()
    made: list[Callable[[], object]] = [
        lambda: os.mkfifo(path),
        lambda: path.mkdir(),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to(path),
        lambda: path.symlink_to("nowhere"),
        lambda: path.symlink_to("/etc/passwd"),
        lambda: (path.touch(), os.truncate(path, 2 << 30)),
        lambda: path.touch(),
        lambda: path.write_bytes(b"[" * 1_000_000),
        lambda: path.write_bytes(ESCAPE.encode() * 5000),
        lambda: None,
    ]
    draw.choice(made)()


def rename_folder(draw: random.Random, path: Path) -> None:
    """Give the folder of a file, or the one above it, a hostile name, or make a link of it."""
    folder = draw.choice([path.parent, path.parents[1]])
    if draw.random() < 0.3:
        elsewhere = folder.with_name("elsewhere")
        folder.rename(elsewhere)
        folder.symlink_to(elsewhere)
    else:
        names = (os.fsdecode(b"\xff\xfe"), ESCAPE, "x" * 255, "<script>", "a'\"&;$(touch owned)")
        with suppress(OSError):  # another change may have taken that name
            folder.rename(folder.with_name(draw.choice(names)))


CHANGES: dict[str, tuple[Callable[[random.Random, Path], None], ...]] = {
    "perf_metrics.json": (*[edit_json] * 4, edit_bytes, replace_file, rename_folder),
    "index/*.jsonl": (*[edit_line] * 3, edit_bytes, replace_file),
    "performance_result.pkl": (edit_bytes, edit_bytes, replace_file, rename_folder),
    "*.log": (edit_bytes, replace_file),
}


def change(draw: random.Random, kernel: Path) -> str:
    """Change a file of a kernel; sometimes there is no summary, so that journals count."""
    pattern = draw.choices(list(CHANGES), (6, 4, 2, 1))[0]
    path = draw.choice(sorted(kernel.rglob(pattern)))
    if draw.random() < 0.4 and path.name != "perf_metrics.json":
        next(kernel.glob("*/perf_metrics.json")).unlink()
    way = draw.choice(CHANGES[pattern])
    way(draw, path)
    return f"{way.__name__} {path}"


# What may come of it ----------------------------------------------------------------------------------------


class Printed(io.StringIO):
    """What a command prints, as a terminal of today takes it."""

    encoding = "utf-8"


def said(*words: str) -> tuple[int, str]:
    """Run a command; return its exit code, and what it printed."""
    printed = Printed()
    with redirect_stdout(printed), redirect_stderr(printed):
        try:
            code = main(words)
        except AutotuneError as error:
            code = error.exit_code
            print(visible(str(error)))
    return code, printed.getvalue()


def everything_is_shown_or_told(root: Path) -> None:
    for words in (("list", "--cache-dir", str(root)), ("report", "--no-html", str(root))):
        code, text = said(*words)
        assert code in {0, 65, 74}, text
        assert INTACT in text
        assert "" == "".join(char for char in text if not char.isprintable() and char != "\n")
    assert said("verify", "--cache-dir", str(root))[0] in {0, 65, 74}
    page(load_all(root)[0], "cache", "today").encode()
    best, _faults = summaries.read_all(summaries.below(root))
    sides = [Side("a", "", best), Side("b", "", {**best})]
    closing(sides, compare(sides))


def report_writes_only_below_plots(root: Path) -> None:
    before = {path: path.lstat() for path in root.parent.rglob("*") if root / "plots" not in path.parents}
    code, text = said("report", str(root))
    assert code in {0, 65, 74}, text
    after = {path: path.lstat() for path in root.parent.rglob("*") if not path.is_relative_to(root / "plots")}
    changed = {path for path in after if path != root and after[path].st_mtime_ns != before[path].st_mtime_ns}
    assert (before.keys() - {root / "plots"}, set()) == (after.keys(), changed)


def test_a_config_that_would_unroll_for_ever_is_not_generated(root: Path) -> None:
    (path,) = (root / "transpose/index").iterdir()
    lines = [json.loads(line[9:]) for line in path.read_bytes().splitlines()]
    for record in lines:
        if record.get("record") == "trial":
            record["trial"]["config"]["vector_bytes"] = 2**40
    path.write_bytes(b"".join(journal.encode(json.dumps(record)) for record in lines))

    code, text = said("verify", "--cache-dir", str(root))

    assert (65, True) == (code, "is not what the journal recorded" in text), text


def test_one_bad_summary_hides_no_other_from_best(root: Path) -> None:
    (root / FOLDER / "perf_metrics.json").write_text("{")

    code, text = said("best", "--cache-dir", str(root))

    assert (65, True) == (code, '"kernel": "transpose"' in text)


@pytest.mark.parametrize(("name", "code"), [("add.csv", 65), ("add.json.gz", 65), ("add.t4.json", 0)])
def test_configs_of_other_parameters_are_exported_where_that_can_be_said(
    root: Path, tmp_path: Path, name: str, code: int
) -> None:
    path = root / FOLDER / "perf_metrics.json"
    document = json.loads(path.read_text())
    del document["trials"][1]["config"]["variant"]
    path.write_text(json.dumps(document))

    assert code == said("export", "add", str(tmp_path / name), "--cache-dir", str(root))[0]


def test_many_small_workloads_and_parameters_are_drawn_soon(tmp_path: Path) -> None:
    path = write_workload(tmp_path / "k/0", {"flops": 1024, "bytes": 768}, {"a": [1]}, 2, failing=0)
    for number in range(1, 900):
        (tmp_path / f"k/{number}").mkdir()
        shutil.copy(path, tmp_path / f"k/{number}/perf_metrics.json")
    document = json.loads(path.read_text())
    trial = document["trials"][0]
    document["trials"] = [trial] + [
        {**trial, "path": f"{number}", "config": {f"p{number}": number}} for number in range(20_000)
    ]
    path.write_text(json.dumps(document))

    workloads, faults = load_all(tmp_path)
    html = page(workloads, "cache", "today")

    assert ([], 900, 900) == (faults, len(workloads), html.count("<h3"))


def test_a_chart_of_thousands_of_shapes_becomes_an_image() -> None:
    assert b"\x89PNG" == png(Scene(420, 100_000, "", ()))[:4]


@pytest.mark.timeout(60)  # 2.4 µs for each pair of records
def test_one_identity_in_many_records_is_compared_soon(root: Path) -> None:
    count = 5_000
    summary, (index,) = root / "transpose/24x40/perf_metrics.json", (root / "transpose/index").iterdir()
    document = json.loads(summary.read_text())
    document["trials"] = [
        {**document["trials"][0], "message": f"{number}"} for number in range(count)
    ] + document["trials"]
    summary.write_text(json.dumps(document))
    lines = index.read_bytes().splitlines(keepends=True)
    (record,) = [json.loads(line[9:]) for line in lines if b'"record":"trial"' in line]
    confirmed = {"record": "confirmation", "context": record["context"], "readings": {}}
    metrics = record["trial"]["metrics"]
    for number in range(count):
        record["trial"]["message"] = f"other {number}"
        lines.insert(2, journal.encode(json.dumps(record)))
        lines.insert(2, journal.encode(json.dumps({**confirmed, "readings": {f"{number}": metrics}})))
    index.write_bytes(b"".join(lines))

    code, text = said("verify", "--cache-dir", str(root))

    assert (65, count) == (code, text.count("is not what the journal recorded"))


# Links ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", ["plots", "plots/intact", "plots/intact.png", "plots/report.html"])
def test_the_report_is_not_written_through_a_link(root: Path, tmp_path: Path, link: str) -> None:
    (root / link).parent.mkdir(exist_ok=True)
    (root / link).symlink_to(tmp_path / ("secret/file" if "." in link else "secret"))

    code, text = said("report", str(root))

    assert ["file"] == [path.name for path in (tmp_path / "secret").iterdir()]
    assert "secret" == (tmp_path / "secret/file").read_text()
    assert (0 if "." in link else 74) == code
    assert ("." in link) or f"{root / link} is a link; remove it" in text


def test_a_folder_that_the_user_names_for_the_report_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "named").symlink_to("there")

    assert 0 == said("report", str(root), "--out", str(tmp_path / "named"))[0]

    assert (tmp_path / "there/report.html").is_file()


@pytest.mark.parametrize("link", ["add", "add/index", FOLDER])
def test_a_tuner_does_not_write_through_a_link(root: Path, tmp_path: Path, link: str) -> None:
    shutil.move(root / link, tmp_path / "elsewhere")
    (root / link).symlink_to(tmp_path / "elsewhere")
    before = sorted((tmp_path / "elsewhere").rglob("*"))

    with pytest.raises(CacheError, match="is a link; remove it"):
        run(root, space("good", variants=3))

    assert before == sorted((tmp_path / "elsewhere").rglob("*"))


def test_a_link_in_the_place_of_a_trial_is_replaced(root: Path, tmp_path: Path) -> None:
    folder = root / FOLDER / "kind=good,variant=1"
    folder.symlink_to(tmp_path / "secret")

    run(root, space("good", variants=2))

    assert (False, True) == (folder.is_symlink(), (folder / "performance_result.pkl").is_file())
    assert ["file"] == [path.name for path in (tmp_path / "secret").iterdir()]


def test_nothing_is_removed_through_a_link(root: Path, tmp_path: Path) -> None:
    for folder in (tmp_path / "secret", tmp_path / "secret/8x8"):
        (folder / ".unfinished-0").mkdir(parents=True)
        os.utime(folder / ".unfinished-0", (0, 0))
    (root / "linked").symlink_to(tmp_path / "secret")
    (root / "add/linked").symlink_to(tmp_path / "secret")
    (root / ".unfinished-1").symlink_to(tmp_path / "secret")
    os.utime(root / ".unfinished-1", (0, 0), follow_symlinks=False)

    code, text = said("clean", "--cache-dir", str(root))

    assert (0, f"removed {root / '.unfinished-1'}") == (code, text.splitlines()[0])
    assert {".unfinished-0", "8x8", "file"} == {path.name for path in (tmp_path / "secret").iterdir()}


# Anything, anywhere -----------------------------------------------------------------------------------------


def survive(root: Path, tmp_path: Path, numbers: range) -> None:
    """Change a copy of a cache in one or more places, once for each number, and look at it."""
    for number in numbers:
        draw = random.Random(number)
        copy = shutil.copytree(root, tmp_path / f"copy{number}/cache")
        kernels = draw.sample(["add", "transpose"], draw.choice([1, 2]))
        done = [change(draw, copy / kernel) for kernel in kernels]
        try:
            everything_is_shown_or_told(copy)
            if number % 20 == 0:
                report_writes_only_below_plots(copy)
        except BaseException:
            print(f"seed {number}: {done}")
            raise
        shutil.rmtree(copy.parent)


@pytest.mark.parametrize("part", range(4))
def test_anything_anywhere_is_shown_or_told(root: Path, tmp_path: Path, part: int) -> None:
    survive(root, tmp_path, range(30 * part, 30 * (part + 1)))


@pytest.mark.long
@pytest.mark.parametrize("part", range(100))
def test_anything_anywhere_is_shown_or_told_thousands_of_times(root: Path, tmp_path: Path, part: int) -> None:
    survive(root, tmp_path, range(1000 + 60 * part, 1000 + 60 * (part + 1)))
