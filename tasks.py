"""The tasks of this checkout: those of remote_tools, the benchmarks, and tasks for developers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from invoke import Collection, Context, Exit
from invoke.tasks import task

# Invoke turns .pyc files off, and then every command would compile all modules again.
sys.dont_write_bytecode = False

from remote_tools import ns as remote
from remote_tools.runs.target import words_after_dashes
from remote_tools.tasks.bench_task import bench_collection, bench_task

ROOT = Path(__file__).parent
GENERATED_PAGES = {
    "docs/settings.md": ("-m", "remote_tools.settings.reference"),
    "docs/tasks.md": ("docs/task_reference.py",),
}
"""Page -> arguments of the Python that prints it; a test compares the page with that output."""


@task(
    help={
        "long": "run the long form of the suites that have one",
        "all": "first install the Debian packages that some tests need, so that fewer are skipped",
    }
)
def test(_c: Context, long: bool = False, all: bool = False) -> None:
    """Run all tests, also the integration tests; words after `--` are passed to pytest."""
    if all:
        from tests import needs  # imports pytest, which only this task needs

        needs.install()
    chosen = [] if long else ["-m", "not long"]
    # A third of the time, a test waits for other processes. The tests of a file share fixtures. In the order
    # of their names the long files come first and the many short ones last, so that all cores end together.
    workers = (os.cpu_count() or 1) * 3 // 2
    words = ["-n", str(workers), "--dist", "loadfile", "--no-loadscope-reorder", *chosen]
    _run("pytest", *words, *words_after_dashes(sys.argv))


@task
def check(_c: Context) -> None:
    """Run ruff and mypy, check the order of imports, build the documentation."""
    _run("ruff", "check")
    _run("ruff", "format", "--check")
    _run("mypy")
    _run("pytest", "-q", "tests/unit/test_imports.py")
    _build_docs()


@task
def docs(_c: Context) -> None:
    """Regenerate the generated pages of docs/, and build the site into build/docs."""
    for page, command in GENERATED_PAGES.items():
        written = subprocess.run([sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE)
        if written.returncode:
            raise Exit(f"docs: {page} was not written", written.returncode)
        (ROOT / page).write_bytes(written.stdout)
    _run("remote_tools.ssh.protocol_page")  # writes only the tables of its page
    _build_docs()
    print(f"Open {ROOT / 'build/docs/index.html'}")


def _build_docs() -> None:
    """Build the site; fail on a broken link or an unknown name."""
    _run("sphinx", "--quiet", "--fresh-env", "--fail-on-warning", "--keep-going", "docs", "build/docs")


def _run(module: str, *words: str) -> None:
    """Run a Python module at the root; exit with its exit code if it fails."""
    command = [sys.executable, "-m", module, *words]
    code = subprocess.run(command, cwd=ROOT).returncode
    if code:
        raise Exit(code=code)


bench = bench_collection(
    bench_task("gemm", "examples/gemm.py", ["--mode", "both"]),
    bench_task("softmax", "examples/softmax.py"),
    bench_task("transpose", "examples/transpose.py"),
    bench_task("rmsnorm_linear", "examples/rmsnorm_linear.py"),
)
ns = Collection(*remote.tasks.values(), *remote.collections.values(), bench, test, check, docs)
ns.configure(remote.configuration())
