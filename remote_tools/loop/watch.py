"""Run again on every save; the session stays open, so that each run starts at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

from remote_tools.errors import RemoteError, UnavailableError
from remote_tools.loop import steps
from remote_tools.runs import client
from remote_tools.runs.terminal import Terminated
from remote_tools.settings.settings import Settings
from remote_tools.ssh.link import Link
from remote_tools.sync.open_host import OpenHost, open_host
from remote_tools.sync.patterns import EDITORS
from remote_tools.sync.progress import Display
from remote_tools.sync.workspace import Workspace

SETTLE_MS = 30
"""Time without changes that ends a save: editors write, rename and touch."""
STOP_S = 5.0
"""Time between SIGTERM and SIGKILL for a run that is restarted."""


class Saves:
    """Sets `changed` after a save below a folder; a scan then decides whether a sent file has changed."""

    def __init__(self, root: Path, ignored: Sequence[Path], say: Callable[[str], None]) -> None:
        """Take the folder, the folders below it to ignore, and a printer of messages."""
        self.root = root
        self._say = say
        self.ignored = tuple(f"{path}/" for path in ignored)
        self.changed = threading.Event()
        self._stop = threading.Event()

    def _counts(self, _change: object, path: str) -> bool:
        return not f"{path}/".startswith(self.ignored) and not EDITORS.search(os.fsencode(path))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch in a thread.

        Raises:
            UnavailableError: watchfiles is not installed.
        """
        try:
            import watchfiles
        except ImportError as error:
            hint = "pip install 'remote-autotune[watch]'"
            raise UnavailableError("watch", "watchfiles is not installed", hint) from error

        def watch_files(polling: bool | None = None) -> None:
            changes = watchfiles.watch(
                self.root,
                watch_filter=self._counts,
                step=SETTLE_MS,
                stop_event=self._stop,
                raise_interrupt=False,
                rust_timeout=500,
                force_polling=polling,
            )
            try:
                for _ in changes:
                    self.changed.set()
            except (OSError, RuntimeError) as error:
                if polling:
                    raise
                self._say(f"watch: {error}; comparing the files again and again instead")
                watch_files(polling=True)

        thread = threading.Thread(target=watch_files, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()


@dataclass(frozen=True)
class _Run:
    """One run of the watch.

    Args:
        saves: notices changes.
        settings: of the host.
        tree: what the run is started from.
    """

    saves: Saves
    settings: Settings
    tree: Workspace

    @contextmanager
    def calling(self, saved: Callable[[threading.Event], None]) -> Iterator[None]:
        """Call a function once a file that is sent was saved, with the event that the run is over."""
        over = threading.Event()

        def wait() -> None:
            while not over.is_set():
                if self.saves.changed.wait(0.1) and self._differs() and not over.is_set():
                    saved(over)
                    return

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _differs(self) -> bool:
        self.saves.changed.clear()
        try:
            return steps.workspace_of(self.settings).stamp != self.tree.stamp
        except RemoteError:  # git was in the middle of something; the scan after the run reports it
            return False


def _stop(link: Link, run_id: str, over: threading.Event) -> None:
    """Stop a run: SIGTERM to its processes, SIGKILL after `STOP_S`.

    The signals need a session of their own: the run's session belongs to the thread that follows it.
    """
    own = Link(link.master.destination, link.code_path, link.say)
    try:
        link.say(f"saved: stopping {run_id} to run it again")
        client.send_signal(own, run_id, signal.SIGTERM)
        if not over.wait(STOP_S):
            client.send_signal(own, run_id, signal.SIGKILL)
    except RemoteError as error:
        link.say(str(error.message))
    finally:
        own.close()


def watch(
    settings: Settings, words: Sequence[str], how: steps.How, display: Display, *, restart: bool = False
) -> NoReturn:
    """Run TARGET, and again after every save, until Ctrl-C while nothing runs.

    Args:
        settings: of the host.
        words: TARGET and its arguments.
        how: options of each run.
        display: prints messages and progress.
        restart: stop a run after a save, instead of waiting for its end.

    Raises:
        Interrupted: the user pressed Ctrl-C.
        UnavailableError: watchfiles is not installed.
    """
    ignored = [settings.root / ".git", settings.root / ".remote", settings.local_dir]
    saves = Saves(settings.root, ignored, display.say)
    with saves.watching(), open_host(settings, display) as host:
        tree = steps.workspace_of(settings)
        describe = partial(steps.RunRequest.target, settings, words, how)
        while True:
            saves.changed.clear()
            _run_once(host, describe, _Run(saves, settings, tree), restart)
            tree = _changed_tree(settings, tree, saves, display)


def _changed_tree(settings: Settings, tree: Workspace, saves: Saves, display: Display) -> Workspace:
    """Wait until the tree differs, and return it; at once if it changed during the run."""
    now = steps.workspace_of(settings)
    if now.stamp == tree.stamp:
        display.say("Waiting for a save; Ctrl-C ends", "👀")
    while now.stamp == tree.stamp:
        saves.changed.wait()
        saves.changed.clear()
        now = steps.workspace_of(settings)
    return now


def _run_once(host: OpenHost, describe: Callable[[], steps.RunRequest], run: _Run, restart: bool) -> None:
    """Run once and print the exit code; a RemoteError ends this run, not the watch."""
    try:
        request = describe()

        def saved(over: threading.Event) -> None:
            if restart:
                _stop(host.link, request.run_id, over)
            else:
                host.display.say("saved: it runs again when this run has ended")

        with run.calling(saved):
            outcome = steps.push_and_run(host, request, run.tree)
    except Terminated:
        raise
    except RemoteError as error:
        host.display.say(str(error.message))
    else:
        host.display.say(f"{request.run_id} ended with {outcome.exit_code}")
