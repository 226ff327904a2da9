"""The namespace of all tasks, and nothing else."""

from __future__ import annotations

from pathlib import Path

from invoke import Collection

from remote_tools.settings.settings import check_early, find_root
from remote_tools.tasks import loop, runs, sandbox, setup

# Invoke would end in a traceback over a broken invoke.yaml or variable, so look before it does.
check_early(find_root(Path.cwd()))

ns = Collection(
    "remote",
    loop.dev,
    loop.sync,
    loop.exec_,
    loop.fetch,
    loop.config,
    setup.init,
    setup.provision,
    setup.doctor,
    sandbox.demo,
)
ns.add_collection(
    Collection("runs", runs.list_, runs.show, runs.log, runs.attach, runs.kill, runs.fetch, runs.rerun)
)
ns.add_collection(Collection("sandbox", sandbox.up, sandbox.down, sandbox.status))
