"""A real sshd for the tests, one a session, and more for those that break theirs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from remote_tools.setup import sandbox as servers
from remote_tools.setup.sandbox import Sandbox

ROOT = Path(__file__).parents[2]
collect_ignore = ["vector_machine"]  # a repository of its own, which test_foreign_backend.py installs
AliasMaker = Callable[..., Path]
SandboxMaker = Callable[..., Sandbox]


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Give the session's server; tests share it, so they neither stop it nor rely on its home being empty."""
    root = tmp_path_factory.mktemp("host")
    yield servers.up(root)
    servers.down(root)


@pytest.fixture
def make_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxMaker]:
    """Make servers for one test, which may do with them as it likes: `make_sandbox("MaxSessions 1")`."""
    roots = []

    def make(*server_lines: str, port: int = 0) -> Sandbox:
        roots.append(tmp_path_factory.mktemp("host"))
        return servers.up(roots[-1], server_lines, port)

    yield make
    for root in roots:
        servers.down(root)


@pytest.fixture
def ssh_config(tmp_path: Path) -> AliasMaker:
    """Write client configurations: `ssh_config(sandbox, trn1={"Port": 2222, "ProxyJump": "sandbox"})`.

    Each keyword is an alias that leads to the sandbox, with options that replace its own (ssh_config(5)).
    The alias `sandbox` is always there.
    """

    def write(server: Sandbox, **aliases: dict[str, object]) -> Path:
        own = server.ssh_config.read_text()
        options = own.partition("\n")[2]
        blocks = [own]
        for alias, given in aliases.items():
            first = "".join(f"    {name} {value}\n" for name, value in given.items())
            blocks.append(f"Host {alias}\n{first}{options}")
        path = tmp_path / "ssh_config"
        path.write_text("\n".join(blocks))
        return path

    return write


@dataclass(frozen=True)
class Laptop:
    """A project's folder whose host is a sandbox, and the `inv` and `fab` that one types there.

    Args:
        root: the project.
        host: the server that it talks to.
        env: what every command is run with; HOME is an empty folder.
    """

    root: Path
    host: Sandbox
    env: dict[str, str]

    @property
    def there(self) -> Path:
        """The code path, seen from here."""
        return self.host.home / "project"

    def write(self, name: str, text: str) -> Path:
        """Write a file of the project."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def run(self, program: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run `inv` or `fab` with words, as typed, and wait for its end."""
        return subprocess.run(
            self.command(program, *words),
            cwd=self.root,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def command(self, program: str, *words: str) -> list[str]:
        """Return the words that start `inv` or `fab` of this Python."""
        return [sys.executable, "-m", {"inv": "invoke", "fab": "fabric"}[program], *words]

    def inv(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run `inv`."""
        return self.run("inv", *words, **env)


@pytest.fixture(scope="module")
def make_laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Sandbox], Laptop]]:
    """Make project folders for servers, with control sockets of their own, closed at the end."""
    folders = ExitStack()

    def make(host: Sandbox) -> Laptop:
        root = tmp_path_factory.mktemp("laptop") / "project"
        root.mkdir()
        # A control socket's path must be short: not below tmp_path. A master whose server is gone removes its
        # socket at any moment; TemporaryDirectory ignores a file that vanishes while it is removed.
        sockets = folders.enter_context(tempfile.TemporaryDirectory(prefix="rt-"))
        folders.callback(close_masters, Path(sockets))
        (root / "tasks.py").write_text("from remote_tools import ns\n\n__all__ = ['ns']\n")
        (root / ".remote_config").write_text(
            f"REMOTE_HOST={host.host_alias}\n"
            "REMOTE_CODE_PATH=~/project\n"
            f"SSH_OPTIONS=\"-F '{host.ssh_config}'\"\n"
        )
        home = tmp_path_factory.mktemp("laptop-home")
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
        return Laptop(root, host, {**kept, "HOME": str(home), "XDG_RUNTIME_DIR": sockets})

    with folders:
        yield make


def close_masters(folder: Path) -> None:
    """Ask the masters whose sockets are below a folder to exit, and wait for those that will."""
    for path in folder.glob("*/*"):
        if path.is_socket():
            done = subprocess.run(["ssh", "-S", str(path), "-O", "exit", "host"], capture_output=True)
            while done.returncode == 0 and path.exists():
                time.sleep(0.01)


@pytest.fixture
def laptop(make_laptop: Callable[[Sandbox], Laptop], make_sandbox: SandboxMaker) -> Laptop:
    """Give a project folder with a server of its own."""
    return make_laptop(make_sandbox())


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the bin folder of an empty venv that has only the wheel, and what this venv has besides it."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv/bin/python"
    pip = [str(python), "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    # The libraries are those of this venv, as found by name: all but our own project, which is editable here.
    theirs = subprocess.run(
        [str(python), "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True
    ).stdout.strip()
    ours = Path(pytest.__file__).parents[1]
    for library in ours.iterdir():
        target = Path(theirs) / library.name
        project = "remote_autotune" in library.name or library.suffix == ".pth"
        if not target.exists() and not project:
            target.symlink_to(library)
    return folder / "venv/bin"
