"""A keeper, run as a program or forked, and the two sockets to it."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from autotune.sites.keeper import Keeper
from autotune.sites.messages import Settings
from autotune.sites.runner import Loader, be_candidate
from autotune.sites.wire import send


def _reaped(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # SIGCHLD may be ignored, and children vanish
        os.waitpid(pid, 0)


class Peer:
    """A keeper and the two sockets to it.

    Args:
        settings: its first message.
        load: None to run the keeper as a program, which is small and forks fast. A loader is a Python
            function, which cannot be sent to a program: the keeper is then a fork of this process.
    """

    def __init__(self, settings: Settings, load: Loader | None) -> None:
        self.control, control = socket.socketpair()
        self.stage, stage = socket.socketpair()
        with control, stage:
            if load is None:
                self._wait = self._run(control, stage, settings)
            else:
                self._wait = self._fork(control, stage, settings, load)

    def __enter__(self) -> Peer:
        """Return itself."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close the sockets: the keeper then kills all that it has started, and ends."""
        for sock in (self.control, self.stage):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self._wait()

    def _run(self, control: socket.socket, stage: socket.socket, settings: Settings) -> Callable[[], object]:
        path = [str(Path(each).absolute()) for each in sys.path if each]  # the keeper changes its directory
        code = f"import sys, types; sys.path[:] = {path!r}; "
        if settings.runner or (settings.backend.is_ours and not settings.imports):
            # An empty package instead of autotune/__init__.py, which would import NumPy into each fork.
            code += (
                "package = sys.modules['autotune'] = types.ModuleType('autotune'); "
                f"package.__path__ = [{str(Path(__file__).parents[1])!r}]; "
            )
        code += "import autotune.sites.keeper; autotune.sites.keeper.main()"
        descriptors = (control.fileno(), stage.fileno())
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code, *map(str, descriptors)],
            stdin=subprocess.DEVNULL,
            pass_fds=(*descriptors, settings.segment),
            start_new_session=True,  # Ctrl-C reaches the tuner alone, which then closes the keeper
        )
        send(self.control, settings)
        return process.wait

    def _fork(
        self,
        control: socket.socket,
        stage: socket.socket,
        settings: Settings,
        load: Loader,
    ) -> Callable[[], object]:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()  # else the child would print the buffered text again
        with warnings.catch_warnings():
            # The other thread only waits in recv. It holds no lock that the child needs.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid:
            return lambda: _reaped(pid)
        try:
            os.setsid()
            self.control.close()
            self.stage.close()
            Keeper(control, stage, settings, functools.partial(be_candidate, load)).serve()
        finally:
            os._exit(0)
