"""What people read: generated pages are up to date, and links lead somewhere."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)[^)]*\)")


def generated_pages() -> Mapping[str, tuple[str, ...]]:
    """Read from this checkout's tasks.py which pages are generated, and how."""
    spec = importlib.util.spec_from_file_location("tasks_with_pages", ROOT / "tasks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pages: Mapping[str, tuple[str, ...]] = module.GENERATED_PAGES
    return pages


@pytest.mark.parametrize(("page", "command"), generated_pages().items())
def test_a_generated_page_is_up_to_date(page: str, command: tuple[str, ...]) -> None:
    printed = subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout

    assert (ROOT / page).read_text() == printed.decode(), "run: inv docs"


@pytest.mark.parametrize("page", sorted(path.name for path in ROOT.glob("*.md")))
def test_the_links_of_a_page_outside_the_site_lead_to_files(page: str) -> None:
    links = LINK.findall((ROOT / page).read_text())

    assert [] == [link for link in links if not (ROOT / link).exists()]


@pytest.mark.parametrize(("place", "lines", "statuses"), [(1, 6, {"square": 4}), (2, 56, {"row_sums": 7})])
def test_the_kernels_of_the_documentation_can_be_tuned(
    place: int, lines: int, statuses: Mapping[str, int], tmp_path: Path
) -> None:
    """The first one is tuned where the wheel is installed, by tests/integration/test_other_repo.py."""
    text = (ROOT / "docs/your_kernel.md").read_text().split("```python\n")[1 + place].split("```")[0]
    (tmp_path / "script.py").write_text(text)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "AUTOTUNE_CACHE_DIR": str(tmp_path / "cache")}

    subprocess.run([sys.executable, "script.py"], cwd=tmp_path, check=True, env=env)

    summaries = map(json.loads, map(Path.read_text, tmp_path.glob("cache/*/*/perf_metrics.json")))
    ended = {each["kernel"]: [trial["status"] for trial in each["trials"]] for each in summaries}
    assert {kernel: ["ok"] * count for kernel, count in statuses.items()} == ended
    assert lines >= len(list(filter(None, text.splitlines())))


def test_the_nki_kernel_of_the_documentation_runs_and_is_ranked(tmp_path: Path) -> None:
    blocks = (ROOT / "docs/your_first_nki_kernel.md").read_text().split("```python\n")[1:]
    for name, block in zip(("product.py", "rank.py"), blocks, strict=True):
        (tmp_path / name).write_text(block.split("```")[0])
    env = {**os.environ, "PYTHONPATH": str(ROOT)}

    def printed(*words: str) -> str:
        command = [sys.executable, *words]
        return subprocess.run(
            command, cwd=tmp_path, env=env, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    assert "right: True\n" == printed("-m", "autotune", "nki", "run", "product.py")
    assert ["1 ", "2 ", "4 ", "8 ", "16"] == [line[:2] for line in printed("rank.py").splitlines()[:5]]


def test_the_readme_fits_in_a_hundred_lines() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 100


def test_each_broken_link_is_a_warning_and_fails_the_build(tmp_path: Path) -> None:
    links = ["[a](missing.md)", "[a](start.md#no-such-heading)", "{py:obj}`autotune.no`"]
    (tmp_path / "conf.py").write_text((ROOT / "docs/conf.py").read_text())
    (tmp_path / "site.css").write_text("")
    (tmp_path / "index.md").write_text("\n\n".join(["# Index", *links, "```{toctree}\nstart\n```\n"]))
    (tmp_path / "start.md").write_text("# Start\n\n[back](index.md#index)\n")
    build = ["-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going"]
    words = [*build, str(tmp_path), str(tmp_path / "site")]
    broken = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    (tmp_path / "index.md").write_text("# Index\n\n```{toctree}\nstart\n```\n")
    whole = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)

    assert (1, 0) == (broken.returncode, whole.returncode), broken.stderr + whole.stderr
    warnings = "".join(line for line in broken.stderr.splitlines() if "index.md" in line)
    assert [] == [name for name in ("missing.md", "no-such-heading", "autotune.no") if name not in warnings]


def test_each_promise_of_security_names_tests_that_exist() -> None:
    rows = [line for line in (ROOT / "docs/security.md").read_text().splitlines() if line.startswith("| ")]
    promises = [row for row in rows if not row.endswith("held by |")]
    named = {name for row in promises for name in re.findall(r"`(test_\w+\.py(?:::\w+)?)`", row)}
    sources = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    missing = {
        name
        for name in named
        if f"def {name.partition('::')[2] or 'test_'}" not in sources.get(name.partition("::")[0], "")
    }

    assert ([], set()) == ([row for row in promises if "`test_" not in row], missing)
