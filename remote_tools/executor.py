"""How `fab` runs our tasks: `fab -H trn1 dev -- script.py` gives the words to the task, as `inv` does."""

from __future__ import annotations

from typing import Any

from fabric.executor import Executor as FabricExecutor
from fabric.tasks import ConnectionCall

from remote_tools.connection import Connection


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
        """Give each task one call for each host."""
        core, words = self.core, self.core.remainder
        core.remainder = ""
        try:
            return list(super().expand_calls(calls, apply_hosts))
        finally:
            core.remainder = words

    def parameterize(self, call: Any, connection_init_kwargs: dict[str, Any]) -> Any:
        """Bind a call to a host."""
        return call.clone(into=OpenSshCall, with_={"init_kwargs": connection_init_kwargs})
