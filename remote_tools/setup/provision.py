"""Prepare a host: code path, virtual environment, project and its extras; idempotent."""

from __future__ import annotations

import json
from dataclasses import replace

from remote_tools.errors import UnavailableError
from remote_tools.host import messages
from remote_tools.host.messages import Orders
from remote_tools.loop import steps
from remote_tools.settings.settings import Settings, require
from remote_tools.ssh.connection import Connection, quote_path
from remote_tools.ssh.master import quote
from remote_tools.sync.open_host import open_host
from remote_tools.sync.plan import PushMode
from remote_tools.sync.progress import Display


def provision(settings: Settings, display: Display) -> steps.Outcome:
    """Create the code path, push, and run `host/provisioner.py` on the host, with live output.

    Raises:
        ConfigError: a setting is missing.
        RemoteError: the host cannot be reached, or its disk cannot be written.
    """
    require(settings, ("host", "code_path", "venv_path"))
    with open_host(settings, display) as host:
        _make_folder(Connection.over(host.link.master), settings.code_path)
        its = host.link.call(messages.HELLO({}))
    steps.sync(settings, PushMode(), display)
    orders: Orders = {
        "venv": settings.venv_path or "",
        "extras": list(settings.extras),
        "python": settings.python,
    }
    words = [its["python"], "-I", f"{its['program']}/host/provisioner.py", json.dumps(orders)]
    command = "exec " + " ".join(map(quote, words))
    # The run that creates the venv cannot use it yet.
    return steps.execute(replace(settings, venv_path=None), None, steps.How(), display, shell=command)


def _make_folder(connection: Connection, path: str) -> None:
    made = connection.run(f"mkdir -p -- {quote_path(path)}", hide=True, warn=True, in_stream=False)
    if not made.ok:
        reason = (made.stderr.strip().splitlines() or ["mkdir failed"])[-1]
        raise UnavailableError("provision", f"{connection.host}: {reason}", "correct code_path: inv config")
