"""Processes that answer for candidates; one that crashes or hangs is replaced, and its candidate told so."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Generic, TypeVar

from autotune.estimating.candidate import Candidates, Reply, Task
from autotune.model.trial import Status

Tag = TypeVar("Tag")


@dataclass
class _Member(Generic[Tag]):
    process: BaseProcess
    connection: Connection
    tag: Tag | None = None
    since: float = 0.0


def _work(connection: Connection, task: Task) -> None:
    """Answer until there is nothing more to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    candidates = Candidates(task)
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            connection.send(candidates.reply(connection.recv()))


class Crew(AbstractContextManager["Crew[Tag]"], Generic[Tag]):
    """Give candidates to as many processes as there are cores, and yield what they reply.

    They are forks, so that they have what this process has and start at once.
    """

    def __init__(self, task: Task, count: int, run_s: float) -> None:
        """Start the processes.

        Args:
            run_s: seconds after which a candidate is ended.
        """
        self._task = task
        self._run_s = run_s
        self._context = multiprocessing.get_context("fork")
        self._members: list[_Member[Tag]] = [self._member() for _ in range(count)]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes."""
        for member in self._members:
            _end(member)

    @property
    def idle(self) -> int:
        """Return how many processes have nothing to do."""
        return sum(member.tag is None for member in self._members)

    def give(self, tag: Tag, text: str) -> None:
        """Give a candidate's text to an idle process; its reply comes with the tag."""
        member = next(member for member in self._members if member.tag is None)
        member.tag, member.since = tag, time.monotonic()
        with suppress(OSError):  # a process that is gone is noticed when its reply is waited for
            member.connection.send(text)

    def replies(self) -> Iterator[tuple[Tag, Reply]]:
        """Wait for at least one reply, and yield those that are there; none if nobody is at work."""
        busy = [member for member in self._members if member.tag is not None]
        if not busy:
            return
        first = min(member.since for member in busy) + self._run_s
        ready = wait([member.connection for member in busy], max(0.0, first - time.monotonic()))
        for member in busy:
            tag = member.tag
            assert tag is not None
            if member.connection in ready:
                member.tag = None
                yield tag, self._received(member)
            elif time.monotonic() - member.since >= self._run_s:
                self._replace(member)
                yield tag, (Status.TIMEOUT, f"no reply within {self._run_s:g} s", {})

    def _received(self, member: _Member[Tag]) -> Reply:
        try:
            reply: Reply = member.connection.recv()
        except (EOFError, OSError):
            member.process.join(1)
            code = member.process.exitcode
            self._replace(member)
            how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            return Status.CRASH, f"the process that interpreted it ended with {how}", {}
        return reply

    def _replace(self, member: _Member[Tag]) -> None:
        _end(member)
        self._members[self._members.index(member)] = self._member()

    def _member(self) -> _Member[Tag]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._task), daemon=True)
        process.start()
        theirs.close()
        return _Member(process, ours)


def _end(member: _Member[Tag]) -> None:
    member.connection.close()
    if member.process.pid is not None and member.process.is_alive():
        with suppress(ProcessLookupError):
            os.kill(member.process.pid, signal.SIGKILL)
    member.process.join()
