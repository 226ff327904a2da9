"""The tasks of this repository: the loop under a name of its own, a benchmark, and runs made from Python."""

from __future__ import annotations

from pathlib import Path

from invoke import Collection, Context, Exit
from invoke.tasks import task

from remote_tools import ns as remote
from remote_tools.tasks.bench_task import bench_collection, bench_task

SIZES = (256, 4096)


@task(help={"host": "ssh's name for the host, instead of the setting's"})
def sweep(c: Context, host: str | None = None) -> None:
    """Run the benchmark at several sizes, one run each."""
    from remote_tools.loop import steps
    from remote_tools.settings.settings import find_root, load
    from remote_tools.sync.progress import Display

    settings = load(c.config, find_root(Path.cwd()), flags={"host": host})
    codes = []
    for size in SIZES:
        words = ["bench/cubic.py", "--elements", str(size), "--budget", "2"]
        outcome = steps.dev(settings, words, steps.How(auto_fetch=True), Display())
        print(f"{size}: {outcome.run_id} ended with {outcome.exit_code}, {len(outcome.fetched)} files")
        codes.append(outcome.exit_code)
    if any(codes):
        raise Exit(code=max(codes))


ns = Collection(sweep, bench_collection(bench_task("cubic", "bench/cubic.py", ["--elements", "65536"])))
ns.add_collection(remote, name="trn")
# What this repository has as its defaults; invoke.yaml, .remote_config and flags stand above them.
ns.configure({"remote": {"code_path": "~/other-repo", "local_dir": "results", "keep_runs": 5}})
