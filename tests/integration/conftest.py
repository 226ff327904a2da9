"""A real sshd for the tests, one a session, and more for those that break theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remote_tools import sandbox as servers
from remote_tools.sandbox import Sandbox

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
