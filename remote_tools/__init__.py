"""Edit on the laptop, run on the accelerator host, fetch exactly the files that the run wrote.

Another repository's tasks.py needs two lines:

    from remote_tools import ns as remote
    ns = Collection(remote)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from invoke import Collection

    from remote_tools.tasks.namespace import ns

__all__ = ["ns"]


def __getattr__(name: str) -> Collection:
    """Load the tasks on first access, so that other imports do not read the working directory.

    Raises:
        ConfigError: invoke.yaml or an INVOKE_REMOTE_* variable is invalid; Invoke would print a traceback.
    """
    if name != "ns":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from remote_tools.settings.core_flags import start_folder
    from remote_tools.settings.settings import check_early, find_root
    from remote_tools.tasks.namespace import ns

    check_early(find_root(start_folder()))
    globals()["ns"] = ns
    return ns
