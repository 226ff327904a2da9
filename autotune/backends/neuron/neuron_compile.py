"""Compile one NKI kernel to a NEFF: a program of its own, for the interpreter that has `nki`.

    python -I neuron_compile.py FOLDER --entry add --target trn2 --lnc 1 --input a:float32:128x512 < kernel.py

Standard library, NumPy, ml_dtypes and nki only: autotune is not there. The folder then holds `kernel.neff`,
`kernel.json` that describes it, and the source. Exit codes: 0, 1 if the kernel is to blame, 69 without nki,
70 if the compiler failed twice and did not say why.

The way to a NEFF is the documented one: `NKI_ARTIFACTS_DIR`, set before nki is imported. A call then leaves
the NEFF there and goes on to execute it. No core is visible here, so that fails, and no core is taken.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ATTEMPTS = 2  # neuronx-cc exits 70 now and then for no reason of the kernel's (aws-neuron-sdk issue 1369)
UNAVAILABLE, INTERNAL = 69, 70
NO_CORE = "65535"
PACKAGES = ("nki", "neuronx-cc")
MADE = ("kernel.neff", "kernel.json")
KEPT = 2000
"""NEFFs that are kept for other runs: some hundred kilobytes each."""
_INTERNAL = re.compile(
    r"(?:exit(?:ed)?|failed|return(?:ed)?)(?: with)?(?: ?code| status| exit code)?[ :=]*70\b", re.IGNORECASE
)
_EXPLAINED = re.compile(r"\bNCC_[A-Z]+\d+|out of memory in (?:sbuf|psum)", re.IGNORECASE)
_LAST = re.compile(r"^\w[\w.]*(?:Error|Exception|Interrupt|Exit)\b.*", re.MULTILINE)


def main() -> int:
    """Compile, or say which versions would."""
    words = _parser().parse_args()
    if words.versions:
        return _versions()
    folder = Path(words.folder)
    if words.inner:
        return _inner(words, folder)
    (folder / "kernel.py").write_text(sys.stdin.read(), encoding="utf-8")
    if words.keep and _copied(Path(words.keep), folder):
        print(f"compiled before: {words.keep}")
        return 0
    code, said = 0, ""
    for _attempt in range(ATTEMPTS):
        code, said = _attempted(folder)
        if code == 0:
            if words.keep:
                _keep(folder, Path(words.keep))
            return 0
        if not _is_internal(code, said):
            break
    last = _EXPLAINED.search(said) and next(line for line in said.splitlines() if _EXPLAINED.search(line))
    reason = last or (_LAST.findall(said) or [f"the compiler ended with exit code {code}"])[-1]
    internal = _is_internal(code, said)
    print(f"error: {reason.strip()}{' (twice)' if internal else ''}", file=sys.stderr)
    return INTERNAL if internal else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Compile the NKI kernel on standard input to a NEFF.")
    parser.add_argument("folder", nargs="?", default=".")
    parser.add_argument("--entry", default="", help="the function, unless the source defines KERNEL")
    parser.add_argument("--target", default="trn2")
    parser.add_argument("--lnc", type=int, default=1, help="physical cores of a logical one")
    parser.add_argument("--input", action="append", default=[], metavar="NAME:DTYPE:2048x512")
    parser.add_argument("--option", action="append", default=[], help="of neuronx-cc")
    parser.add_argument("--keep", default="", help="a folder, named after all that decides a NEFF")
    parser.add_argument("--versions", action="store_true", help="print the versions as JSON")
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    return parser


def _versions() -> int:
    """Print the versions of what compiles; the packages of these names on PyPI are empty."""
    import importlib.metadata  # takes longer than all the others, and is not for compiling

    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    if importlib.util.find_spec("nki") is None or importlib.util.find_spec("nki.language") is None:
        print(f"error: {sys.executable} has no nki of the Neuron SDK", file=sys.stderr)
        return UNAVAILABLE
    print(json.dumps(found))
    return 0


def _copied(source: Path, target: Path) -> bool:
    """Copy a NEFF and its description; return whether they were there, all of them."""
    try:
        for name in MADE:
            shutil.copyfile(source / name, target / name)
    except OSError:
        return False
    return True


def _keep(folder: Path, kept: Path) -> None:
    """Keep a NEFF for other runs, if there is room; forget the oldest of too many."""
    part = kept.with_name(f"{kept.name}.{os.getpid()}.part")
    try:
        part.mkdir()
        if _copied(folder, part):
            part.rename(kept)
        entries = sorted(kept.parent.iterdir(), key=lambda each: each.stat().st_mtime)
        for oldest in entries[:-KEPT]:
            shutil.rmtree(oldest, ignore_errors=True)
    except OSError:
        pass  # another process was first, or the disk is full: it can be compiled again
    shutil.rmtree(part, ignore_errors=True)


def _attempted(folder: Path) -> tuple[int, str]:
    """Compile in a process of its own; pass on what it prints; return its exit code, and all of that."""
    shutil.rmtree(folder / "artifacts", ignore_errors=True)
    command = [sys.executable, "-I", "-B", __file__, "--inner", *sys.argv[1:]]
    said = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            said.append(line)
    return process.returncode, "".join(said)


def _is_internal(code: int, said: str) -> bool:
    """Return whether a failure says nothing against the kernel."""
    if _EXPLAINED.search(said):
        return False
    return code < 0 or code == INTERNAL or bool(_INTERNAL.search(said))


def _inner(words: argparse.Namespace, folder: Path) -> int:
    """Compile here; the environment must be set before nki is imported."""
    artifacts = folder / "artifacts"
    artifacts.mkdir()
    os.environ.update(
        NKI_ARTIFACTS_DIR=str(artifacts),
        NEURON_PLATFORM_TARGET_OVERRIDE=words.target,
        NEURON_LOGICAL_NC_CONFIG=str(words.lnc),
        NEURON_RT_VISIBLE_CORES=NO_CORE,
        NEURON_CC_FLAGS=" ".join(words.option),  # never the user's own: they are not in the identity
        NEURON_COMPILE_CACHE_URL=str(artifacts / "cache"),  # one that is shared had a race (issue 742)
        PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    )
    source = _module(folder / "kernel.py")
    kernel = getattr(source, "KERNEL", None) or getattr(source, words.entry)
    keywords = getattr(source, "CONFIG", {})
    inputs = [_zeros(text) for text in words.input]
    with _UnlessMade(artifacts / "kernel.neff"):
        (kernel[words.lnc] if words.lnc > 1 else kernel)(*inputs, **keywords)
    (artifacts / "kernel.neff").replace(folder / "kernel.neff")
    shutil.rmtree(artifacts, ignore_errors=True)
    about = {"target": words.target, "lnc": words.lnc, "inputs": words.input, "options": words.option}
    (folder / "kernel.json").write_text(json.dumps(about), encoding="utf-8")
    return 0


class _UnlessMade:
    """Ignore an exception if the NEFF is there: then it is the execution that failed, for want of a core."""

    def __init__(self, neff: Path) -> None:
        self._neff = neff

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> bool:
        """Look for the NEFF."""
        if kind is None and not self._neff.exists():
            raise FileNotFoundError(f"the compiler ended without an error and without {self._neff.name}")
        return self._neff.exists() and kind is not None and issubclass(kind, Exception)


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("kernel", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules["kernel"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _zeros(text: str) -> Any:
    """Return an array of zeros, given its name, dtype and shape."""
    import numpy as np

    _name, dtype, shape = text.split(":")
    extents = tuple(int(extent) for extent in shape.split("x") if extent)
    try:
        return np.zeros(extents, dtype)
    except TypeError:
        import ml_dtypes

        return np.zeros(extents, getattr(ml_dtypes, dtype))


if __name__ == "__main__":
    sys.exit(main())
