"""Who may know whom: the direction of imports, read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# From the ground up; a module imports only what stands before it. Modules not named here just form no cycle.
ORDER = [
    "errors", "settings", "argv", "ssh", "session", "workspace", "progress",
    "transfers", "pulls", "runs", "summaries", "steps", "hosts", "compare", "tasks", "bench", "collection",
]  # fmt: skip


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


def modules() -> dict[str, set[str]]:
    """Map each module of remote_tools to those of ours that it imports; a package counts as one module."""
    package = ROOT / "remote_tools"
    graph: dict[str, set[str]] = {}
    for path in package.rglob("*.py"):
        name = path.relative_to(package).with_suffix("").parts[0]
        ours = {each.split(".")[1] for each in imported(path) if each.startswith("remote_tools.")}
        graph.setdefault(name, set()).update(ours - {name})
    return graph


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


def test_imports_in_remote_tools_form_no_cycle() -> None:
    graph = modules()
    graph.pop("__init__")  # re-exports the namespace and is imported by nobody
    order = list(TopologicalSorter(graph).static_order())
    assert set(graph) <= set(order)


def test_imports_in_remote_tools_run_one_way() -> None:
    upward = [
        f"{name} imports {other}"
        for name, others in modules().items()
        for other in others
        if name in ORDER and other in ORDER and ORDER.index(other) >= ORDER.index(name)
    ]
    assert [] == upward


def test_what_is_sent_to_the_host_needs_the_standard_library_alone() -> None:
    strangers = [
        f"{path.name}: {name}"
        for path in sorted((ROOT / "remote_tools/host").glob("*.py"))
        for name in imported(path)
        if name.split(".")[0] not in sys.stdlib_module_names and not name.startswith("remote_tools.host.")
    ]
    assert [] == strangers


@pytest.mark.parametrize(
    ("package", "heavy"),
    [
        ("remote_tools", {"autotune", "fabric", "numpy", "paramiko", "patchwork", "rich", "tqdm"}),
        ("autotune", {"fabric", "invoke", "matplotlib", "paramiko", "remote_tools"}),
    ],
)
def test_importing_a_package_leaves_heavy_ones_alone(package: str, heavy: set[str]) -> None:
    code = f"import sys, {package}; print(*sorted(set(sys.modules) & {heavy!r}))"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert "\n" == found
