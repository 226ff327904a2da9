"""Who may know whom: the direction of imports, read from the source."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# From the ground up; a folder, or a file beside the folders, imports only what stands before it.
ORDER = {
    "remote_tools": [
        "escape", "errors", "host", "settings", "ssh", "sync", "runs", "loop", "setup", "tasks",
    ],
    "autotune": [
        "model", "nki", "machine", "search", "backends", "sites", "store", "kernels", "tuning", "estimating",
        "tuner", "exchange", "verify", "report", "declare", "nki_script", "script", "tune_file", "testing",
    ],
}  # fmt: skip
# The same inside autotune.nki: the machine, the trace, what interprets kernels, then what prices a trace.
NKI_ORDER = [
    "errors", "machine", "trace", "constants", "interpreter", "isa", "language", "launch",
    "timing", "activate", "kernel_file", "script",
]  # fmt: skip
DOORS = {"__init__", "__main__", "dev_run"}  # nobody imports them


def imported(path: Path) -> Iterator[str]:
    """Yield the full name of everything a file imports, wherever in it the import stands."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def outsiders(folder: str, forbidden: set[str]) -> list[str]:
    """List the imports of a folder's files that lead to a forbidden package."""
    return [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path.parent.name != "other_repo"  # its tasks.py and fabfile.py are a laptop's half
        for name in imported(path)
        if name.split(".")[0] in forbidden
    ]


def folders(package: str) -> dict[str, set[str]]:
    """Map each folder of a package, and each file beside them, to those that it imports."""
    graph: dict[str, set[str]] = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        name = path.relative_to(ROOT / package).with_suffix("").parts[0]
        ours = {each.split(".")[1] for each in imported(path) if each.startswith(f"{package}.")}
        graph.setdefault(name, set()).update(ours - {name})
    return {name: others for name, others in graph.items() if name not in DOORS}


def modules(package: str) -> dict[str, set[str]]:
    """Map each module of a package to those that it imports."""
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.stem not in DOORS
    }
    return {
        name: {each for each in imported(path) for each in (each, each.rpartition(".")[0]) if each in paths}
        for name, path in paths.items()
    }


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("remote_tools", {"autotune", "numpy", "examples"}),
        ("autotune", {"remote_tools", "fabric", "invoke", "paramiko", "patchwork", "examples"}),
        ("examples", {"remote_tools", "fabric", "invoke", "paramiko", "patchwork"}),
    ],
)
def test_the_laptops_half_and_the_hosts_half_do_not_know_each_other(folder: str, forbidden: set[str]) -> None:
    assert [] == outsiders(folder, forbidden)


@pytest.mark.parametrize("package", ORDER)
def test_modules_form_no_cycle(package: str) -> None:
    tuple(TopologicalSorter(modules(package)).static_order())  # raises CycleError and names the cycle


@pytest.mark.parametrize("package", ORDER)
def test_folders_import_only_what_stands_before_them(package: str) -> None:
    order = ORDER[package]
    graph = folders(package)
    assert sorted(order) == sorted(graph)
    upward = [
        f"{name} imports {other}"
        for name, others in graph.items()
        for other in sorted(others)
        if other not in order or order.index(other) >= order.index(name)
    ]
    assert [] == upward


def test_modules_of_nki_import_only_what_stands_before_them() -> None:
    graph: dict[str, set[str]] = {}
    for path in sorted((ROOT / "autotune/nki").rglob("*.py")):
        name = path.relative_to(ROOT / "autotune/nki").with_suffix("").parts[0]
        inside = {each.split(".")[2] for each in imported(path) if each.startswith("autotune.nki.")}
        graph.setdefault(name, set()).update(inside - {name})
    del graph["__init__"]
    assert sorted(NKI_ORDER) == sorted(graph)
    assert [] == [
        f"{name} imports {other}"
        for name, others in graph.items()
        for other in sorted(others)
        if NKI_ORDER.index(other) >= NKI_ORDER.index(name)
    ]


def test_what_is_sent_to_the_host_needs_the_standard_library_alone() -> None:
    strangers = [
        f"{path.name}: {name}"
        for path in sorted((ROOT / "remote_tools/host").glob("*.py"))
        for name in imported(path)
        if name.split(".")[0] not in sys.stdlib_module_names and not name.startswith("remote_tools.host.")
    ]
    assert [] == strangers


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        (
            "from remote_tools import ns",
            {"autotune", "fabric", "numpy", "paramiko", "patchwork", "rich", "tqdm"},
        ),
        ("import autotune", {"fabric", "invoke", "matplotlib", "paramiko", "remote_tools"}),
    ],
)
def test_importing_a_package_leaves_heavy_ones_alone(statement: str, heavy: set[str]) -> None:
    code = f"import sys; {statement}; print(*sorted(set(sys.modules) & {heavy!r}))"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert "\n" == found


EVERY_MODULE = """\
import importlib, pkgutil, remote_tools
for module in pkgutil.walk_packages(remote_tools.__path__, "remote_tools."):
    importlib.import_module(module.name)
"""


def run_in(folder: Path, prepare: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder that a shell's line has prepared."""
    words = ["sh", "-c", f'{prepare} && exec "$0" -c "$1"', sys.executable, code]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True)


@pytest.mark.parametrize("prepare", ["echo 'remote: {' > invoke.yaml", 'rmdir "$PWD"'])
def test_importing_our_modules_reads_nothing_of_the_working_directory(tmp_path: Path, prepare: str) -> None:
    done = run_in(tmp_path, prepare, EVERY_MODULE)

    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


ASK = """\
from remote_tools.errors import ConfigError
try:
    from remote_tools import ns
except ConfigError as error:
    print(error.reason)
"""


def test_asking_for_the_tasks_reports_a_broken_invoke_yaml(tmp_path: Path) -> None:
    done = run_in(tmp_path, "echo 'remote: {' > invoke.yaml", ASK)

    assert ("", True) == (done.stderr, "invoke.yaml:2: " in done.stdout)
