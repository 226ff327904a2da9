"""The report of fetched results: nothing that came from a host runs, wherever the user stands."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLANTED = (
    *("autotune/__init__.py", "autotune/__main__.py", "json.py", "argparse.py", "numpy/__init__.py"),
    *("matplotlib/__init__.py", "rich/__init__.py", "threadpoolctl.py", "sitecustomize.py"),
    *("usercustomize.py", "encodings/__init__.py", "autotune.pth", "runpy.py", "site.py"),
)
PARENT = """\
import os, sys
from pathlib import Path
from remote_tools.runs import reporting
from remote_tools.sync.progress import Display
os.environ["PYTHONPATH"] = os.pathsep.join(["", ".", os.getcwd()])
sys.path[:0] = ["", ".", os.getcwd()]
reporting.not_installed = lambda: ""
reporting.write_report(Path(sys.argv[1]), ["gemm/8x8/perf_metrics.json"], Display(sys.stdout))
print(reporting.run_autotune("comparison"))
"""


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of results in which a host put modules and settings that Python would take."""
    monkeypatch.syspath_prepend(ROOT / "tests/unit/autotune")
    import sample_cache

    folder = tmp_path / "cache"
    space = {"block": [8, 16], "unroll": [1, 2]}
    sample_cache.write_workload(folder / "gemm/8x8", {"flops": 1024, "bytes": 768}, space, 2, failing=0)
    for name in PLANTED:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        code = f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})"
        path.write_text(f"import sys; {code}\n" if name.endswith(".pth") else f"{code}\n")
    (folder / "matplotlibrc").write_text("figure.dpi: 1\ntext.usetex: True\nbackend: module://json\n")
    return folder


def test_nothing_in_the_current_folder_runs_when_the_report_is_written(results: Path, tmp_path: Path) -> None:
    parent = tmp_path / "parent.py"
    parent.write_text(PARENT)

    done = subprocess.run(
        [sys.executable, "-I", str(parent), "."], cwd=results, capture_output=True, text=True, check=False
    )

    assert (0, False) == (done.returncode, (tmp_path / "ran").exists()), done.stderr
    assert f"report: {results}/plots/report.html" in done.stdout
    assert "not a comparison" in done.stdout
    assert (results / "plots/gemm.png").is_file()


def test_the_report_is_written_where_there_is_no_current_folder(results: Path, tmp_path: Path) -> None:
    parent, gone = tmp_path / "parent.py", tmp_path / "gone"
    parent.write_text(PARENT.replace("os.getcwd()", repr(str(gone))))
    gone.mkdir()

    done = subprocess.run(
        ["sh", "-c", 'rmdir "$PWD" && exec "$0" "$@"', sys.executable, "-I", str(parent), str(results)],
        cwd=gone, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (0, True) == (done.returncode, (results / "plots/report.html").is_file()), done.stderr


@pytest.mark.parametrize("package", ["remote_tools", "autotune"])
def test_no_python_of_ours_starts_with_the_current_folder_on_its_path(package: str) -> None:
    commands = [
        (str(path.relative_to(ROOT)), [ast.unparse(word) for word in node.elts[:2]])
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.List | ast.Tuple) and "sys.executable" in map(ast.unparse, node.elts)
    ]
    assert [] != commands
    assert [] == [each for each in commands if each[1] != ["sys.executable", "'-I'"]]


SETTINGS = """\
from autotune.report.raster import png
from autotune.report.scene import Scene
png(Scene(100, 100, "", ()))
import matplotlib, os
print(os.getcwd(), matplotlib.rcParams["lines.linewidth"])
"""


def test_images_do_not_follow_settings_in_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 77\n")

    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{SETTINGS}"],
        cwd=tmp_path, env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert f"{tmp_path} 1.5\n" == done.stdout
