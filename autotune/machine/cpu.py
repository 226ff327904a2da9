"""This machine: its CPU and compiler, our programs that are kept for it, and its roofline."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import resource
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from autotune.model.errors import UnavailableError

_COMPILERS = ("cc", "gcc", "clang")
_ROOFLINE = Path(__file__).with_name("roofline.c")
_TIMEOUT_S = 120


@dataclass(frozen=True)
class Roofline:
    """The measured limits of a machine or of some of its cores, with all of them busy.

    Args:
        peak_gflops: of fused multiply-adds on registers, in GFLOP/s.
        bandwidth_gbytes_per_s: of memory, in GB/s; data in the caches can be faster.
    """

    peak_gflops: float
    bandwidth_gbytes_per_s: float

    @property
    def ridge(self) -> float:
        """The FLOP/byte above which arithmetic is the limit, and below which memory is."""
        return self.peak_gflops / self.bandwidth_gbytes_per_s

    def attainable_gflops(self, intensity: float) -> float:
        """Return the most that a kernel of `intensity` FLOP/byte can do."""
        return min(self.peak_gflops, self.bandwidth_gbytes_per_s * intensity)


@functools.lru_cache
def cpu_name() -> str:
    """Return the CPU's model as Linux names it, with its family and stepping."""
    wanted = ("model name", "cpu family", "model", "stepping", "CPU implementer", "CPU part", "CPU variant")
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    return " ".join([platform.machine(), *(facts[key] for key in wanted if key in facts)])


@functools.lru_cache
def find_compiler(wanted: str = "") -> str:
    """Return the path of the wanted C compiler, or of the first known one if none is wanted.

    Raises:
        UnavailableError: it is not installed.
    """
    for name in [wanted] if wanted else _COMPILERS:
        if path := shutil.which(name):
            return path
    looked = wanted or ", ".join(_COMPILERS)
    raise UnavailableError(
        f"no C compiler: looked for {looked} on PATH. Install one (Debian: apt install gcc) or set CC."
    )


@functools.lru_cache
def compiler_version(compiler: str) -> str:
    """Return the first line that `compiler --version` prints."""
    try:
        done = subprocess.run(
            [compiler, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"the C compiler does not work: {compiler} --version: {error}") from None
    return done.stdout.partition("\n")[0].strip()


@functools.lru_cache
def accepts(compiler: str, flag: str) -> bool:
    """Return whether a compiler accepts a flag; the test may use 1 GiB of memory and 10 s."""
    command = [compiler, "-Werror", flag, "-c", "-x", "c", "-o", os.devnull, os.devnull]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

    try:
        done = subprocess.run(command, capture_output=True, timeout=10, check=False, preexec_fn=limit)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def program_folder() -> Path:
    """Return the folder of our own programs: $XDG_CACHE_HOME/autotune-programs, by default in ~/.cache.

    It is not in the cache of results, because a remote run fetches all of that.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")  # the specification says to ignore a relative path
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "autotune-programs"


def built_program(source: Path, compiler: str, flags: tuple[str, ...]) -> Path:
    """Return the path of a program of ours; it is compiled for this machine once, and kept.

    Raises:
        UnavailableError: the compiler does not work, or no folder for the program is writable.
    """
    text = source.read_text(encoding="utf-8")
    parts = (text, compiler, compiler_version(compiler), *flags, cpu_name())
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    for folder in (program_folder(), Path(tempfile.gettempdir()) / f"autotune-{os.getuid()}"):
        target = folder / f"{source.stem}-{key}"
        if _is_ours(target):
            return target
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            part = folder / f"{target.name}.{os.getpid()}.part"
            command = [compiler, *flags, "-o", str(part), str(source), "-ldl"]
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, errors="replace"
            )
            if done.returncode:
                raise UnavailableError(f"the C compiler does not work: {' '.join(command)}\n{done.stderr}")
            part.replace(target)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if _is_ours(target):
            return target
    raise UnavailableError(
        f"nowhere to keep {source.stem}: make {program_folder()} writable, or set XDG_CACHE_HOME"
    )


def _is_ours(program: Path) -> bool:
    """Return whether this program is ours: another user may have put one into /tmp."""
    return program.is_file() and program.stat().st_uid == program.parent.stat().st_uid == os.getuid()


def roofline(dtype: str = "float32", cores: int | None = None) -> Roofline | None:
    """Return the measured limits; they are measured once for each machine (about a second) and kept.

    Args:
        dtype: float64 has a peak of its own; all others use the peak of float32.
        cores: how many cores; None for all.

    Returns:
        None if there is no compiler.
    """
    try:
        program = built_program(_ROOFLINE, find_compiler(os.environ.get("CC", "")), ("-O3", "-march=native"))
        single, double, bandwidth = _measured(program, cores or os.cpu_count() or 1)
    except (UnavailableError, OSError, ValueError, subprocess.SubprocessError):
        return None
    return Roofline(double if dtype == "float64" else single, bandwidth)


def _output(program: Path) -> list[str]:
    done = subprocess.run([program], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    return done.stdout.split()


def _measured(program: Path, cores: int) -> tuple[float, ...]:
    """Return the sums of what `cores` programs printed, run at once on this host now or earlier."""
    kept = program.with_name(f"{program.name}.{platform.node()}.{cores}.txt")
    if not kept.exists():
        with ThreadPoolExecutor(cores) as pool:
            printed = list(pool.map(_output, [program] * cores))
        sums = [sum(map(float, column)) for column in zip(*printed, strict=True)]
        part = kept.with_name(f"{kept.name}.{os.getpid()}.part")
        part.write_text(" ".join(f"{total:.3f}" for total in sums), encoding="ascii")
        part.replace(kept)
    single, double, bandwidth = map(float, kept.read_text(encoding="ascii").split())
    return single, double, bandwidth
