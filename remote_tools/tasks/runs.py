"""Tasks on runs: list, show, log, attach, kill, fetch, rerun."""

from __future__ import annotations

import itertools
import signal as signals
import sys
import time
from typing import TYPE_CHECKING, Any

from invoke import Argument, Context, Task
from invoke.tasks import task

from remote_tools.tasks._context import (
    HOST,
    JSON,
    LOCAL_DIR,
    end,
    new_display,
    print_json,
    print_table,
    settings_for,
)

if TYPE_CHECKING:
    from remote_tools.host.messages import RunRecord
    from remote_tools.sync.open_host import OpenHost

ID = "the run: its id, a unique part of it, or last (the default)"


class RunTask(Task[Any]):
    """A task on a run, with the id as an optional positional parameter.

    Invoke has no such parameters: one with a default is never positional (parser.py:
    missing_positional_args), and one without is required.
    """

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """Return the parameters for Invoke's parser; the id is positional if a word follows the name."""
        words = itertools.pairwise([*sys.argv, "-"])
        typed = any(word.endswith(f".{self.name}") and not after.startswith("-") for word, after in words)
        self.positional = ["id"] if typed else []
        return super().get_arguments(ignore_unknown_help)


def _resolve(opened: OpenHost, wanted: str | None) -> str:
    """Return the id of a run that was started from here, or that the host knows."""
    from remote_tools.runs import client
    from remote_tools.runs.records import Records, match

    records = Records(opened.settings.root)
    if wanted is None or wanted == "last":
        return records.last(opened.settings.host)
    known = records.ids()
    if wanted in known:
        return wanted
    there = client.list_runs(opened.link, newest=0)["runs"]
    return match(wanted, sorted({*known, *(record["id"] for record in there)}))


def _clock(moment: float | None) -> str:
    return time.strftime("%m-%d %H:%M:%S", time.localtime(moment)) if moment else ""


def _lasted(record: RunRecord) -> str:
    """Return a run's duration; empty until it ends, because the host's clock may differ from ours."""
    if not record.get("ended"):
        return ""
    seconds = record["ended"] - record["started"]
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.1f} min"


@task(name="list", help={"host": HOST, "json": JSON, "all": "all runs, not only the newest 200"})
def list_(c: Context, host: str | None = None, json: bool = False, all: bool = False) -> None:
    """List the workspace's runs on the host, oldest first."""
    from remote_tools.runs import client
    from remote_tools.sync.open_host import open_host

    with open_host(settings_for(c, host=host), new_display()) as opened:
        reply = client.list_runs(opened.link, 0 if all else client.NEWEST)
    found = reply["runs"]
    if reply.get("older"):
        new_display().say(f"runs: {reply['older']:,} older ones are not listed; inv runs.list --all")
    if json:
        print_json(found)
        return
    rows = [
        (
            record["id"],
            record["state"],
            str(record.get("exit", "")),
            _clock(record["started"]),
            _lasted(record),
            client.words_of(record),
        )
        for record in found
    ]
    print_table("run", "state", "exit", "started", "took", "command", rows=rows)


@task(klass=RunTask, help={"id": ID, "host": HOST, "json": JSON})
def show(c: Context, id: str | None = None, host: str | None = None, json: bool = False) -> None:
    """Show the details of a run: command, host, commit and diff, exit code, files."""
    from remote_tools.escape import escaped
    from remote_tools.runs import client
    from remote_tools.runs.records import Records
    from remote_tools.sync.open_host import open_host

    settings = settings_for(c, host=host)
    records = Records(settings.root)
    with open_host(settings, new_display()) as opened:
        run_id = _resolve(opened, id)
        records_there = client.list_runs(opened.link, newest=0)["runs"]
        there = next((record for record in records_there if record["id"] == run_id), None)
    diff = records.diff(run_id)
    record: dict[str, object] = {**records.read(run_id), "diff": diff, "there": there or {}}
    if json:
        print_json(record)
        return
    flat = {
        **{name: value for name, value in record.items() if name not in ("there", "diff")},
        **(there or {}),
    }
    print_table(
        "", run_id, rows=[(name, _plain(name, value)) for name, value in flat.items() if value is not None]
    )
    if diff:
        print(escaped(diff) if sys.stdout.isatty() else diff, end="")


def _plain(name: str, value: Any) -> str:
    if name in ("started", "ended"):
        return _clock(value)
    if isinstance(value, dict):
        return "\n".join(f"{key}={text}" for key, text in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


@task(klass=RunTask, help={"id": ID, "follow": "print new output until the run ends", "host": HOST})
def log(c: Context, id: str | None = None, follow: bool = False, host: str | None = None) -> None:
    """Print the output of a run up to now."""
    from remote_tools.runs import client
    from remote_tools.sync.open_host import open_host

    settings = settings_for(c, host=host)
    with open_host(settings, new_display()) as opened:
        client.attach(opened.link, _resolve(opened, id), client.Console(), follow=follow)


@task(
    klass=RunTask,
    help={"id": ID, "host": HOST, "pty": "connect this terminal to that of the run"},
)
def attach(c: Context, id: str | None = None, host: str | None = None, pty: bool = False) -> None:
    """Attach to a run: show its output from the beginning, pass on Ctrl-C, exit with its exit code."""
    from remote_tools.loop import steps
    from remote_tools.sync.open_host import open_host

    settings = settings_for(c, host=host)
    with open_host(settings, new_display()) as opened:
        end(steps.attach(opened, _resolve(opened, id), pty=pty))


@task(
    klass=RunTask,
    help={"id": ID, "signal": "a name or number: TERM, INT, KILL, 9", "host": HOST},
)
def kill(c: Context, id: str | None = None, signal: str = "TERM", host: str | None = None) -> None:
    """Send a signal to the process group of a run."""
    from remote_tools.runs import client
    from remote_tools.sync.open_host import open_host

    number = _signal_number(signal)
    settings = settings_for(c, host=host)
    with open_host(settings, new_display()) as opened:
        run_id = _resolve(opened, id)
        sent = client.send_signal(opened.link, run_id, number)
    new_display().say(
        f"{signals.Signals(number).name} sent to {run_id}" if sent else f"no process of {run_id} is running"
    )


def _signal_number(name: str) -> int:
    from remote_tools.errors import UsageError

    word = name.upper().removeprefix("SIG")
    try:
        return int(signals.Signals(int(word)) if word.isdigit() else signals.Signals[f"SIG{word}"])
    except (KeyError, ValueError):
        raise UsageError("runs", f"no signal {name}", "TERM, INT, KILL, HUP, USR1, or a number") from None


@task(klass=RunTask, help={"id": ID, "local-dir": LOCAL_DIR, "host": HOST})
def fetch(c: Context, id: str | None = None, local_dir: str | None = None, host: str | None = None) -> None:
    """Fetch the files that a run wrote below the cache root, whatever its exit code."""
    from remote_tools.loop import steps
    from remote_tools.sync.open_host import open_host

    settings = settings_for(c, host=host, local_dir=local_dir)
    with open_host(settings, new_display()) as opened:
        steps.fetch_run(opened, _resolve(opened, id))


@task(klass=RunTask, help={"id": ID, "host": HOST})
def rerun(c: Context, id: str | None = None, host: str | None = None) -> None:
    """Push the workspace and run the same command again."""
    from remote_tools.errors import UsageError
    from remote_tools.loop import steps
    from remote_tools.runs.records import Records
    from remote_tools.sync.open_host import open_host

    settings = settings_for(c, host=host)
    with open_host(settings, new_display()) as opened:
        run_id = _resolve(opened, id)
        record = Records(settings.root).read(run_id)
        shell, words_ = record.get("shell"), record.get("words")
        if shell is None and not words_:
            raise UsageError("runs", f"{run_id} was not started from here", f"inv runs.show {run_id}")
        how = steps.How(auto_fetch=record.get("auto_fetch", False), pty=record.get("pty", False))
        if shell is not None:
            request = steps.RunRequest.of(settings, how, None, shell)
            outcome = steps.run_without_push(opened, request)
        else:
            outcome = steps.push_and_run(opened, steps.RunRequest.target(settings, words_ or [], how))
    end(outcome)
