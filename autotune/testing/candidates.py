"""Candidates for c = a + b: a right one, and one for each way to go wrong, in C and in Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autotune.backends import Backend
from autotune.model.kernel import Inputs, Kernel, TensorSpec
from autotune.model.space import SearchSpace
from autotune.model.timing import Timing
from autotune.model.trial import Status

LENGTH = 1000
INPUTS = Inputs((TensorSpec("a", (LENGTH,)), TensorSpec("b", (LENGTH,))))
BRIEF = Timing(warmup_s=0, min_repeats=6, max_repeats=6, min_sample_ns=1)
"""The shortest timing: these tests are about what is believed, not about speed."""


@dataclass(frozen=True)
class Candidates:
    """A backend with its candidates.

    Args:
        backend: the backend.
        sources: name of a way in `WAYS` -> a source that defines `add(a, b, out)` and goes that way; `right`
            and the names in `REQUIRED` at the least.
        fault: a source whose device fails while it runs, and not the candidate; empty if the backend never
            raises a `DeviceFault`.
    """

    backend: Backend
    sources: Mapping[str, str]
    fault: str = ""

    def kernel(self) -> Kernel:
        """Return the kernel whose configs are these candidates: `{"source": name}`."""
        return Kernel(
            name="add",
            entry="add",
            generators={self.backend.name: lambda config, _ins, _outs: self.sources[str(config["source"])]},
            outputs=lambda _specs: (TensorSpec("out", (LENGTH,)),),
            golden=lambda a, b: (a + b,),
            flops=lambda _specs: LENGTH,
            bytes_moved=lambda _specs: 12 * LENGTH,
            space=lambda _specs: SearchSpace({"source": tuple(self.sources)}),
        )


@dataclass(frozen=True)
class Way:
    """A way to go wrong.

    Args:
        name: the candidate's.
        what: what it does.
        ends: the statuses that it may end with.
    """

    name: str
    what: str
    ends: tuple[Status, ...]


_WRONG = (Status.WRONG_OUTPUT,)
_OK, _CRASH, _ERROR = (Status.OK,), (Status.CRASH,), (Status.ERROR,)
WAYS = (
    Way("compile_error", "is no source", (Status.COMPILE_ERROR,)),
    Way("no_entry", "does not define `add`", _ERROR),
    Way("exception", "raises an exception", _ERROR),
    Way("recursion", "recurses without end", (Status.ERROR, Status.CRASH)),
    Way("interrupt", "raises KeyboardInterrupt", _ERROR),
    Way("crash", "writes to address 0", _CRASH),
    Way("abort", "aborts its process", _CRASH),
    Way("kill", "kills its process", _CRASH),
    Way("stop", "stops its process", _CRASH),
    Way("watcher", "kills the process that watches it", _CRASH),
    Way("exit", "exits as if all were well", _ERROR),
    Way("exit_code", "exits with an error", _ERROR),
    Way("quick_exit", "exits without cleaning up", _ERROR),
    Way("hang", "computes without end", (Status.TIMEOUT,)),
    Way("sleep", "waits without end", (Status.TIMEOUT,)),
    Way("memory", "takes all memory", (Status.OUT_OF_MEMORY,)),
    Way("output", "prints without end", _ERROR),
    Way("wrong", "computes something else", _WRONG),
    Way("nan", "computes NaN", _WRONG),
    Way("unwritten", "writes nothing", _WRONG),
    Way("tail", "leaves out the last elements", _WRONG),
    Way("first_call", "works in the first call only", _WRONG),
    Way("later", "is wrong from the fourth call on", _WRONG),
    Way("outside", "writes behind the output", _WRONG),
    Way("far_outside", "writes a page behind the output", (Status.CRASH, Status.WRONG_OUTPUT, Status.ERROR)),
    Way("input", "changes an input", (Status.CRASH, Status.WRONG_OUTPUT, Status.ERROR)),
    Way("clock", "slows the clock down", (Status.IMPLAUSIBLE,)),
    Way("thread", "leaves a thread that spoils the output", (Status.OK, Status.WRONG_OUTPUT)),
    Way("closes", "closes all descriptors", (Status.OK, Status.ERROR, Status.CRASH)),
    Way("child", "leaves a process, and prints its id", _OK),
    Way("files", "leaves files, and prints where", _OK),
    Way("directory", "changes the current directory", _OK),
    Way("prints", "prints `tile 4`", _OK),
)
"""What a tuner must survive, and say; each is followed by a right candidate, which must end ok."""
REQUIRED = frozenset({"right", "compile_error", "crash", "hang", "wrong", "unwritten"})

_INCLUDES = "".join(
    f"#include <{name}.h>\n"
    for name in ("math", "pthread", "signal", "stdio", "stdlib", "string", "sys/stat", "unistd")
)
_ADD = f"for (int i = 0; i < {LENGTH}; i++) out[i] = a[i] + b[i];"


def _c(body: str) -> str:
    return f"{_INCLUDES}void add(const float *a, const float *b, float *out) {{ {body} }}\n"


C_SOURCES: Mapping[str, str] = {
    "right": _c(_ADD),
    "compile_error": "void add( {",
    "no_entry": "void other(void) {}",
    "recursion": _c("again:; volatile char deep[1 << 23]; deep[0] = 1; out[0] = deep[0]; goto again;"),
    "crash": _c("*(volatile int *)0 = 1;"),
    "abort": _c("abort();"),
    "kill": _c("raise(SIGKILL);"),
    "stop": _c("raise(SIGSTOP);"),
    "watcher": _c("kill(getppid(), SIGKILL); pause();"),
    "exit": _c("exit(0);"),
    "exit_code": _c("exit(9);"),
    "quick_exit": _c("_exit(0);"),
    "hang": _c("for (volatile int on = 1; on;) ;"),
    "sleep": _c("for (;;) pause();"),
    "memory": _c("for (;;) { char *p = malloc(1 << 20); memset(p, 1, 1 << 20); }"),
    "output": _c('for (;;) puts("0123456789");'),
    "wrong": _c(f"for (int i = 0; i < {LENGTH}; i++) out[i] = a[i];"),
    "nan": _c(f"for (int i = 0; i < {LENGTH}; i++) out[i] = NAN;"),
    "unwritten": _c(""),
    "tail": _c(f"for (int i = 0; i < {LENGTH} - 8; i++) out[i] = a[i] + b[i];"),
    "first_call": _c(f"static int n; if (!n++) {_ADD}"),
    "later": _c(f"static int n; {_ADD} if (++n > 3) out[0] += 1;"),
    "outside": _c(f"{_ADD} out[{LENGTH}] = 1;"),
    "far_outside": _c(f"{_ADD} out[2500] = 1;"),
    "input": _c(f"{_ADD} ((float *)a)[0] = 1;"),
    "thread": "static float *OUT;\nvoid *spoil(void *_) { for (;;) OUT[0] = 7; }\n"
    + _c(f"static pthread_t id; OUT = out; if (!id) pthread_create(&id, 0, spoil, 0); {_ADD}"),
    "closes": _c(f"for (int i = 0; i < 64; i++) close(i); {_ADD}"),
    "child": _c(
        "static int n; if (!n++) { pid_t pid = fork(); if (!pid) { setsid(); for (;;) pause(); } "
        f'printf("%d\\n", pid); }} {_ADD}'
    ),
    "files": _c(
        'static int n; if (!n++) { mkdir("left", 0700); fclose(fopen("left/over", "w")); '
        f"char here[4096]; puts(getcwd(here, 4096)); }} {_ADD}"
    ),
    "directory": _c(f'if (chdir("/")) abort(); {_ADD}'),
    "prints": _c(f'static int n; if (!n++) puts("tile 4"); {_ADD}'),
}
C_SOURCES = {**C_SOURCES, "thread": _INCLUDES + C_SOURCES["thread"]}


def _python(body: str) -> str:
    return (
        "import ctypes, os, signal, subprocess, sys, threading, time\nimport numpy as np\ncalls = []\n\n"
        f"def add(a, b, out):\n    calls.append(1)\n    {body}\n"
    )


PYTHON_SOURCES: Mapping[str, str] = {
    "right": _python("np.add(a, b, out=out)"),
    "compile_error": "def add(:\n",
    "no_entry": "def other(a, b, out): pass\n",
    "exception": _python("1 / 0"),
    "recursion": _python("add(a, b, out)"),
    "interrupt": _python("raise KeyboardInterrupt"),
    "crash": _python("ctypes.string_at(0)"),
    "abort": _python("os.abort()"),
    "kill": _python("os.kill(os.getpid(), signal.SIGKILL)"),
    "stop": _python("os.kill(os.getpid(), signal.SIGSTOP)"),
    "watcher": _python("os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)"),
    "exit": _python("raise SystemExit"),
    "exit_code": _python("raise SystemExit(9)"),
    "quick_exit": _python("os._exit(0)"),
    "hang": _python("while True: pass"),
    "sleep": _python("time.sleep(600)"),
    "memory": _python("taken = [bytearray(1 << 20) for _ in range(10**6)]"),
    "output": _python("while True: print('0123456789')"),
    "wrong": _python("out[...] = a"),
    "nan": _python("out[...] = np.nan"),
    "unwritten": _python("pass"),
    "tail": _python("out[:-8] = a[:-8] + b[:-8]"),
    "first_call": _python("if len(calls) == 1: np.add(a, b, out=out)"),
    "later": _python("np.add(a, b, out=out); out[0] += len(calls) > 3"),
    "outside": _python("np.add(a, b, out=out); ctypes.memset(out.ctypes.data + out.nbytes, 0, 4)"),
    "far_outside": _python("np.add(a, b, out=out); ctypes.memset(out.ctypes.data + 10000, 0, 4)"),
    "input": _python("np.add(a, b, out=out); ctypes.memset(a.ctypes.data, 0, 4)"),
    "clock": "import time\nimport numpy as np\nimport autotune.backends.numpy as timer\n"
    "timer.timed.__defaults__ = (lambda: time.perf_counter_ns() // 100,)\n\n"
    "def add(a, b, out):\n    for _ in range(4000): np.add(a, b, out=out)\n",
    "thread": "import threading\nimport numpy as np\nplace = []\n\n"
    "def spoil():\n    while True: place[0][0] = 7\n\n"
    "def add(a, b, out):\n    if not place:\n        place.append(out)\n"
    "        threading.Thread(target=spoil, daemon=True).start()\n    np.add(a, b, out=out)\n",
    "closes": _python("os.closerange(0, 64); np.add(a, b, out=out)"),
    "child": _python(
        "len(calls) > 1 or print(subprocess.Popen(['sleep', '600'], start_new_session=True).pid); "
        "np.add(a, b, out=out)"
    ),
    "files": _python(
        "len(calls) > 1 or (os.mkdir('left'), open('left/over', 'w').close(), print(os.getcwd())); "
        "np.add(a, b, out=out)"
    ),
    "directory": _python("os.chdir('/'); np.add(a, b, out=out)"),
    "prints": _python("len(calls) > 1 or print('tile 4'); np.add(a, b, out=out)"),
}
