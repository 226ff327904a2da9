"""This machine: its CPU and compiler, our programs that are kept for it, and its roofline."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import resource
import shlex
import shutil
import stat
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from autotune.machine.limits import lower_limit
from autotune.model.errors import UnavailableError
from autotune.model.roofline import Roofline

_COMPILERS = ("cc", "gcc", "clang")
_ROOFLINE = Path(__file__).with_name("roofline.c")
_TIMEOUT_S = 120
_FIRST_LEVEL = 16 << 10  # bytes; each further one that roofline.c measures is four times as large
_ALL_USERS = [b"0", b"0", b"4294967295"]
_UNMAPPED_USER = 65534
_THREADS = ("OMP_", "GOMP_", "KMP_", "OPENBLAS_", "MKL_", "BLIS_", "GOTO_")


@functools.lru_cache
def cpu_name() -> str:
    """Return the CPU's model as Linux names it, with family, stepping and a digest of its instruction sets.

    The model alone is not enough: hypervisors hide instruction sets, and microcode turns them off.
    """
    wanted = ("model name", "cpu family", "model", "stepping", "CPU implementer", "CPU part", "CPU variant")
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    flags = " ".join(sorted((facts.get("flags") or facts.get("Features") or "").split()))
    known = hashlib.sha256(flags.encode()).hexdigest()[:8]
    return " ".join([platform.machine(), *(facts[key] for key in wanted if key in facts), f"isa:{known}"])


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_calm() -> bool:
    """Return whether other programs have left the machine nearly idle for the last minute."""
    return os.getloadavg()[0] <= usable_cores() / 4


def machine_facts() -> dict[str, str]:
    """Return what decides speed beside the compiler: CPU, cores that may be used, settings of threads."""
    settings = {name: value for name, value in os.environ.items() if name.startswith(_THREADS)}
    return {
        "cpu": cpu_name(),
        "usable_cores": str(usable_cores()),
        "thread_settings": " ".join(f"{name}={value}" for name, value in sorted(settings.items())),
    }


@functools.lru_cache
def find_compiler(wanted: str = "") -> tuple[str, ...]:
    """Return the command of the wanted C compiler, or of the first known one if none is wanted.

    Args:
        wanted: a command with its arguments, as $CC may be: `ccache gcc`, `gcc -m64`.

    Raises:
        UnavailableError: it is not installed.
    """
    commands = [shlex.split(wanted)] if wanted.strip() else [[name] for name in _COMPILERS]
    for name, *arguments in commands:
        if path := shutil.which(name):
            return (path, *arguments)
    looked = ", ".join(name for name, *_ in commands)
    raise UnavailableError(
        f"no C compiler: looked for {looked} on PATH. Install one (Debian: apt install gcc) or set CC."
    )


@functools.lru_cache
def compiler_version(compiler: tuple[str, ...]) -> str:
    """Return the first line that `compiler --version` prints."""
    try:
        done = subprocess.run(
            [*compiler, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        command = shlex.join(compiler)
        raise UnavailableError(f"the C compiler does not work: {command} --version: {error}") from None
    return done.stdout.partition("\n")[0].strip()


@functools.lru_cache
def accepts(compiler: tuple[str, ...], flag: str) -> bool:
    """Return whether a compiler accepts a flag; the test may use 1 GiB of memory and 10 s."""
    command = [*compiler, "-Werror", flag, "-c", "-x", "c", "-o", os.devnull, os.devnull]

    def limit() -> None:
        lower_limit(resource.RLIMIT_AS, 1 << 30)

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
    return (Path(base) if base.startswith("/") else Path("~/.cache").expanduser()) / "autotune-programs"


def built_program(source: Path, compiler: tuple[str, ...], flags: tuple[str, ...]) -> Path:
    """Return the path of a program of ours; it is compiled for this machine once, and kept.

    Raises:
        UnavailableError: the compiler does not work, or no folder for the program is writable.
    """
    text = source.read_text(encoding="utf-8")
    parts = (text, *compiler, compiler_version(compiler), *flags, cpu_name())
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    refused = ""
    for folder in (program_folder(), Path(tempfile.gettempdir()) / f"autotune-{os.getuid()}"):
        target = folder / f"{source.stem}-{key}"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if why := not_private(folder):
                refused = refused or f"; {why}"
                continue
            if _is_ours(target):
                return target
            part = folder / f"{target.name}.{os.getpid()}.part"
            command = [*compiler, *flags, "-o", str(part), str(source), "-ldl"]
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, errors="replace"
            )
            if done.returncode:
                raise UnavailableError(f"the C compiler does not work: {' '.join(command)}\n{done.stderr}")
            part.chmod(0o700)
            part.replace(target)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if _is_ours(target):
            return target
    raise UnavailableError(
        f"nowhere to keep {source.stem}: make {program_folder()} writable, or set XDG_CACHE_HOME{refused}"
    )


def not_private(folder: Path) -> str:
    """Return why another user could have put a file into a folder, or could replace it; empty if none could.

    The folder must be a real one of this user's. No other user but root may write into it, nor into those
    above it, except that in a sticky one, such as /tmp, nobody can replace what is another's.

    Raises:
        OSError: it cannot be examined.
    """
    info = folder.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        return f"{folder} is a link, or another user's: remove it"
    real = folder.resolve()
    for each in (real, *real.parents):
        info = each.stat()
        sticky = each != real and info.st_mode & stat.S_ISVTX
        if info.st_uid not in _trusted_users() or (info.st_mode & 0o022 and not sticky):
            return f"other users can write to {each}: chmod go-w {each}"
    return ""


@functools.lru_cache
def _trusted_users() -> set[int]:
    """Return this user and root, who has no id in a user namespace of which it is not."""
    try:
        mapped = Path("/proc/self/uid_map").read_bytes().split()
    except OSError:
        mapped = _ALL_USERS
    return {0, os.getuid(), *([] if mapped == _ALL_USERS else [_UNMAPPED_USER])}


def _is_ours(program: Path) -> bool:
    """Return whether a program is a plain file of this user's, which nobody else can write to."""
    try:
        info = program.lstat()
    except OSError:
        return False
    return stat.S_ISREG(info.st_mode) and info.st_uid == os.getuid() and not info.st_mode & 0o022


def roofline(dtype: str = "float32", cores: int | None = None, *, again: bool = False) -> Roofline | None:
    """Return the measured limits; they are measured once for each machine (about a second) and kept.

    Args:
        dtype: float64 has a peak of its own; all others use the peak of float32.
        cores: how many cores; None for all that this process may use.
        again: measure once more, and keep the higher limits.

    Returns:
        None if there is no compiler.
    """
    try:
        program = built_program(_ROOFLINE, find_compiler(os.environ.get("CC", "")), ("-O3", "-march=native"))
        single, double, bandwidth, *levels = _measured(program, cores or usable_cores(), again=again)
    except (UnavailableError, OSError, ValueError, subprocess.SubprocessError):
        return None
    sizes = [_FIRST_LEVEL << (2 * place) for place in range(len(levels))]
    peak, of = (double, dtype) if dtype == "float64" else (single, "float32")
    return Roofline(peak, bandwidth, tuple(zip(sizes, levels, strict=True)), of)


def _output(program: Path) -> list[str]:
    done = subprocess.run([program], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    return done.stdout.split()


def _measured(program: Path, cores: int, *, again: bool) -> tuple[float, ...]:
    """Return the sums of what `cores` programs printed, run at once on this host now or earlier."""
    kept = program.with_name(f"{program.name}.{platform.node()}.{cores}.txt")
    earlier = tuple(map(float, kept.read_text(encoding="utf-8").split())) if kept.exists() else ()
    if again or not earlier:
        with ThreadPoolExecutor(cores) as pool:
            printed = list(pool.map(_output, [program] * cores))
        sums = [sum(map(float, column)) for column in zip(*printed, strict=True)]
        sums = [max(pair) for pair in zip(sums, earlier or sums, strict=True)]
        part = kept.with_name(f"{kept.name}.{os.getpid()}.part")
        part.write_text(" ".join(f"{total:.3f}" for total in sums), encoding="utf-8")
        part.replace(kept)
        earlier = tuple(sums)
    return earlier
