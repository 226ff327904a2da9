"""Edit here, run on the accelerator host, get exactly what the run produced.

Another repository's tasks.py needs two lines:

    from remote_tools import ns as remote
    ns = Collection(remote)
"""

from remote_tools.tasks.namespace import ns

__all__ = ["ns"]
