"""Compose the namespace of all tasks."""

from __future__ import annotations

from invoke import Collection

from remote_tools.tasks import loop, runs, sandbox, setup

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
