"""The report in a real browser: readable at every width, in light and dark, and no line of it runs.

A harness frames the report at some widths, measures it and writes down what it finds; Chromium prints that.
"""

from __future__ import annotations

import html
import importlib
import json
import os
import re
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from autotune import report
from autotune.report.palette import ROLES
from tests import needs

CHROMIUM = needs.find(needs.CHROMIUM)
pytestmark = [
    needs.skip_without(needs.CHROMIUM),
    pytest.mark.skipif("CI" in os.environ, reason="a browser in CI tests the CI"),
]
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--allow-file-access-from-files",  # else the harness may not look into its frame
    "--virtual-time-budget=20000",
)
HARNESS = """<!doctype html><body><pre></pre>
<script>
const inside = (a, b) =>
  a.left > b.left - 1 && a.right < b.right + 1 && a.top > b.top - 1 && a.bottom < b.bottom + 1;
// Boxes of two lines may touch: they are taller than the letters in them.
const meet = (a, b) =>
  Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
  Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 5;
function look(frame) {
  const page = frame.contentDocument, view = frame.contentWindow;
  const found = {width: page.documentElement.scrollWidth, charts: 0, cut: [], covered: [], small: []};
  found.background = view.getComputedStyle(page.body).backgroundColor;
  found.loaded = view.performance.getEntriesByType("resource").map(entry => entry.name);
  found.ran = view.owned !== undefined;
  for (const chart of page.querySelectorAll("svg")) {
    const name = chart.getAttribute("aria-label"), around = chart.getBoundingClientRect();
    const texts = [...chart.querySelectorAll("text")];
    const boxes = texts.map(text => [text.textContent, text.getBoundingClientRect()]);
    found.charts += 1;
    boxes.forEach(([text, box], index) => {
      if (!inside(box, around)) found.cut.push([name, text]);
      if (box.height < 8) found.small.push([name, text]);
      for (const [other, its] of boxes.slice(index + 1))
        if (meet(box, its)) found.covered.push([name, text, other]);
    });
  }
  return found;
}
const frames = WIDTHS.map(width => {
  const frame = document.createElement("iframe");
  frame.style = `border:0; height:9000px; width:${width}px`;
  frame.src = "report.html";
  document.body.append(frame);
  return frame;
});
onload = () => { document.querySelector("pre").textContent = JSON.stringify(frames.map(look)); };
</script>"""


@pytest.fixture
def sample_cache(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the module that writes caches, which stands beside the report's unit tests."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "unit/autotune")
    return importlib.import_module("sample_cache")


def browsed(root: Path, *widths: int, scheme: str = "light") -> list[dict[str, Any]]:
    """Write the report of a cache and return what the harness finds in it at each width."""
    workloads, faults = report.load_all(root)
    assert [] == faults
    folder = report.write_page(workloads, root, root / "plots").parent
    (folder / "harness.html").write_text(HARNESS.replace("WIDTHS", str(list(widths))))
    preference = f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"
    profile = root / "profile"
    assert CHROMIUM is not None
    command = [
        CHROMIUM,
        *FLAGS,
        preference,
        f"--user-data-dir={profile}",
        "--window-size=1400,9100",
        "--dump-dom",
    ]
    ran = subprocess.run(
        [*command, (folder / "harness.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "HOME": str(root)},
    )
    written = re.search("<pre>(.+)</pre>", ran.stdout)
    assert written, ran.stderr
    found: list[dict[str, Any]] = json.loads(html.unescape(written[1]))
    return found


def readable(width: int, charts: int, scheme: str) -> dict[str, Any]:
    """Return what the harness finds in a report without a fault."""
    page = ROLES["page"].dark if scheme == "dark" else ROLES["page"].light
    background = f"rgb({int(page[1:3], 16)}, {int(page[3:5], 16)}, {int(page[5:7], 16)})"
    nothing: dict[str, Any] = {"cut": [], "covered": [], "small": [], "loaded": [], "ran": False}
    return {"width": width, "background": background, "charts": charts, **nothing}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_chart_can_be_read(sample_cache: ModuleType, tmp_path: Path, scheme: str) -> None:
    found = browsed(sample_cache.write_cache(tmp_path), 1280, 400, scheme=scheme)

    assert [readable(1280, 21, scheme), readable(400, 21, scheme)] == found


def test_nothing_from_a_host_runs(sample_cache: ModuleType, tmp_path: Path) -> None:
    space = {"block": [8, 16], "unroll": [1, 2, 4]}
    work = {"flops": 1024, "bytes": 768}
    path = sample_cache.write_workload(tmp_path / "gemm/8x8", work, space, 2, failing=0.4)

    assert [readable(400, 7, "light")] == browsed(sample_cache.make_hostile(path).parents[2], 400)
