"""The files of a project that a Python file imports: they decide what its code does."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

PROGRAM = "__autotune_program__"
"""Name of the user's script in other processes. It is not `__main__`, so its guarded part does not run."""
_MARKS = ("pyproject.toml", ".git")
_INSTALLED = {"site-packages", "dist-packages"}
_OURS = Path(__file__).resolve().parents[1]
"""This package: its version and its rules are recorded by themselves."""


def project_files(file: Path) -> dict[str, str]:
    """Return path -> digest of a Python file and of all files of its project that it imports.

    The project is the folder of the nearest pyproject.toml or .git; else the outermost folder on Python's
    path that the file is in, which in a remote run is the code path; else the file's own folder. What is
    installed, the standard library and this package do not belong to it; of a file that is installed itself,
    the project is its outermost package. The `import` statements are read; a module whose name is made while
    the program runs is not found.

    Args:
        file: where to begin.

    Returns:
        Paths relative to the project, sorted, with 16 hex digits each.
    """
    file = file.resolve()
    root = _project(file)
    # As `import` would look: first beside the script, then where this process looks.
    roots = [_package_root(file), *(Path(each).resolve() for each in sys.path if each)]
    roots = [each for each in dict.fromkeys(roots) if each.is_relative_to(root) or root.is_relative_to(each)]
    found: dict[Path, str] = {}
    open_ones = [file, *_packages(file)]
    while open_ones:
        path = open_ones.pop()
        if path in found or not _belongs(path, root):
            continue
        data = path.read_bytes()
        found[path] = hashlib.sha256(data).hexdigest()[:16]
        for name, level in _imports(data) if path.suffix == ".py" else ():
            above = [path.parents[level - 1]] if 0 < level <= len(path.parents) else roots
            open_ones += _files(name, above, relative=bool(level))
    return {str(path.relative_to(root)): found[path] for path in sorted(found)}


def _project(file: Path) -> Path:
    if _INSTALLED & {*file.parts}:
        return _package_root(file) / file.relative_to(_package_root(file)).parts[0]
    for folder in file.parents:
        if any((folder / mark).exists() for mark in _MARKS):
            return folder
    above = [
        folder for folder in map(Path.resolve, map(Path, filter(None, sys.path))) if folder in file.parents
    ]
    return min([_package_root(file), *above], key=lambda folder: len(folder.parts))


def _package_root(file: Path) -> Path:
    """Return the folder from which a file is imported: the one above its outermost package."""
    return next(folder for folder in file.parents if not (folder / "__init__.py").exists())


def _packages(file: Path) -> list[Path]:
    """Return the files that are executed before the module in a file: those of its packages."""
    above = file.relative_to(_package_root(file)).parents
    return [_package_root(file) / folder / "__init__.py" for folder in list(above)[:-1]]


def module_name(file: Path) -> str:
    """Return the full name of the module in a file, seen from the folder above its outermost package."""
    parts = file.resolve().with_suffix("").relative_to(_package_root(file.resolve())).parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _belongs(path: Path, root: Path) -> bool:
    return (
        path.is_relative_to(root)
        and not path.is_relative_to(_OURS)
        and not _INSTALLED & {*path.relative_to(root).parts}
    )


@functools.lru_cache(maxsize=4096)
def _imports(text: bytes) -> tuple[tuple[str, int], ...]:
    """Return the name and the level of each import in a file's text, wherever in it that stands."""
    names: list[tuple[str, int]] = []
    with contextlib.suppress(SyntaxError, ValueError):  # nothing can be imported from it either
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                names += [(alias.name, 0) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                stem = f"{node.module}." if node.module else ""
                names += [(f"{stem}{alias.name}", node.level) for alias in node.names]
    return tuple(names)


def _files(name: str, roots: list[Path], *, relative: bool = False) -> Iterator[Path]:
    """Yield the files that the import of a name executes: each package on the way, and the module.

    Its last part may be no module but something in one: then that one is the last file.
    """
    for root in roots:
        folder, met = root, [root / "__init__.py"] if relative else []
        for part in name.split("."):
            met += [folder / f"{part}.py", *(folder / f"{part}{suffix}" for suffix in EXTENSION_SUFFIXES)]
            folder /= part
            met.append(folder / "__init__.py")
        if existing := [path for path in met if path.is_file()]:
            yield from existing
            return
