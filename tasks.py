"""What `inv` offers in this checkout: the tasks that any repository can import, and a few for developers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from invoke import Collection, Context, Exit
from invoke.tasks import task

# Invoke forbids .pyc files; in a checkout that would compile every module again at every command.
sys.dont_write_bytecode = False

from remote_tools import ns as remote
from remote_tools.runs.target import words_after_dashes
from remote_tools.tasks.bench_task import bench_collection, bench_task

ROOT = Path(__file__).parent
GENERATED_PAGES = {
    "docs/settings.md": ("-m", "remote_tools.settings.reference"),
    "docs/tasks.md": ("docs/task_reference.py",),
}
"""Page -> what Python runs to print it; a test compares each page with that."""


@task(
    help={
        "long": "the long form of the suites that are shortened otherwise",
        "all": "first install what some tests need (Debian packages), so that fewer skip",
    }
)
def test(_c: Context, long: bool = False, all: bool = False) -> None:
    """Run the tests, integration included; words after `--` go to pytest."""
    if all:
        from tests import needs  # it needs pytest, which no other task does

        needs.install()
    chosen = [] if long else ["-m", "not long"]
    # Most of a test here is waiting for another process; a file's tests share what they set up.
    _run("pytest", "-n", "logical", "--dist", "loadfile", *chosen, *words_after_dashes(sys.argv))


@task
def check(_c: Context) -> None:
    """Run ruff and mypy, test the direction of imports, build the documentation."""
    _run("ruff", "check")
    _run("ruff", "format", "--check")
    _run("mypy")
    _run("pytest", "-q", "tests/unit/test_imports.py")
    _build_docs()


@task
def docs(_c: Context) -> None:
    """Write the generated pages of docs/ anew and build the site into build/docs."""
    for page, command in GENERATED_PAGES.items():
        written = subprocess.run([sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE)
        if written.returncode:
            raise Exit(f"docs: {page} was not written", written.returncode)
        (ROOT / page).write_bytes(written.stdout)
    _run("remote_tools.ssh.protocol_page")  # it writes the tables of a page that is otherwise prose
    _build_docs()
    print(f"Open {ROOT / 'build/docs/index.html'}")


def _build_docs() -> None:
    """Build the site; a broken link or an unknown name is an error."""
    _run("sphinx", "--quiet", "--fresh-env", "--fail-on-warning", "--keep-going", "docs", "build/docs")


def _run(module: str, *words: str) -> None:
    """Run a tool of this Python's at the root, on our own terminal; its failure is ours."""
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
