"""How `fab` runs our tasks: `fab -H trn1 dev -- script.py` gives the words to the task, as `inv` does.

Several hosts of `-H` are for Fabric one call after the other, and the first failure ends the rest. A task of
ours that takes `--hosts` is given all of them and runs them at once; every other task stays as Fabric has it.
"""

from __future__ import annotations

from typing import Any

from fabric.executor import Executor as FabricExecutor
from fabric.tasks import ConnectionCall
from invoke import Call

from remote_tools.errors import UsageError
from remote_tools.ssh.connection import Connection
from remote_tools.tasks._fleet import HostsTask


class OpenSshCall(ConnectionCall):
    """A call whose context is our Connection."""

    def make_context(self, config: Any) -> Connection:
        """Make the Connection that the task is given; nothing is opened."""
        return Connection(**{**self.init_kwargs, "config": config})


class Executor(FabricExecutor):
    """Fabric's executor, less its reading of the words after `--` as a command of their own.

    Fabric runs them after the tasks on every host (executor.py: expand_calls), and looks for hosts while it
    expands pre-tasks, where there are none: NothingToDo. Here they belong to the task.
    """

    def expand_calls(self, calls: list[Any], apply_hosts: bool = True) -> list[Any]:
        """Give each task one call for each host, and one for all of them to a task that takes `--hosts`."""
        core, words = self.core, self.core.remainder
        core.remainder = ""
        try:
            found: list[Any] = []
            for call in calls:
                together = self._together(call) if apply_hosts else None
                found += [together] if together else super().expand_calls([call], apply_hosts)
            return found
        finally:
            core.remainder = words

    def _together(self, call: Any) -> Any:
        """Return the call of a task of ours for several hosts of `-H` at once; None for any other."""
        hosts = self.core[0].args.hosts.value or ""
        if not isinstance(call, Call) or not isinstance(call.task, HostsTask) or "," not in hosts:
            return None
        if call.kwargs.get("hosts") is not None:
            raise UsageError("hosts", "fab -H and --hosts name hosts both", "leave one away")
        return call.clone(with_={"kwargs": {**call.kwargs, "hosts": hosts}})

    def parameterize(self, call: Any, connection_init_kwargs: dict[str, Any]) -> Any:
        """Bind a call to a host."""
        return call.clone(into=OpenSshCall, with_={"init_kwargs": connection_init_kwargs})
