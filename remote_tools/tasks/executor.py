"""Run tasks under `fab`: `fab -H trn1 dev -- script.py` passes the words to the task, as `inv` does.

For several hosts of `-H` Fabric calls a task in turn and stops at the first failure. Our tasks with `--hosts`
get all hosts in one call instead and run on them at once; all other tasks run as in Fabric.
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
    """A call with our Connection as its context."""

    def make_context(self, config: Any) -> Connection:
        """Make the Connection for the task without opening it."""
        return Connection(**{**self.init_kwargs, "config": config})


class Executor(FabricExecutor):
    """Fabric's executor, but the words after `--` belong to the task and are not a command.

    Fabric runs them as a command on every host after the tasks (executor.py: expand_calls). It does so for
    pre-tasks too, which have no hosts, and then raises NothingToDo.
    """

    def expand_calls(self, calls: list[Any], apply_hosts: bool = True) -> list[Any]:
        """Make one call for each host, or for a task with `--hosts` one call for all hosts."""
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
        """Return one call for all hosts of `-H`; None for one host, or for a task without `--hosts`."""
        hosts = self.core[0].args.hosts.value or ""
        if not isinstance(call, Call) or not isinstance(call.task, HostsTask) or "," not in hosts:
            return None
        if call.kwargs.get("hosts") is not None:
            raise UsageError("hosts", "fab -H and --hosts cannot be used together", "leave out one of them")
        return call.clone(with_={"kwargs": {**call.kwargs, "hosts": hosts}})

    def parameterize(self, call: Any, connection_init_kwargs: dict[str, Any]) -> Any:
        """Return the call for one host."""
        return call.clone(into=OpenSshCall, with_={"init_kwargs": connection_init_kwargs})
