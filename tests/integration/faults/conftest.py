"""A laptop whose network breaks on demand, and a table of what it survived."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest

from benchmarks.proxy import Proxy
from remote_tools.setup.sandbox import Sandbox
from tests.integration.conftest import Laptop

TIMEOUT_S = 3
"""How long the connection may be silent here; a user's is longer."""


@dataclass(frozen=True)
class Cable:
    """A laptop, and the network between it and its host."""

    laptop: Laptop
    network: Proxy

    def inv(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        """Run `inv` on the laptop; output is bytes."""
        return subprocess.run(
            self.laptop.command("inv", *words),
            cwd=self.laptop.root,
            env=self.laptop.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
        )

    def inv_disturbed(
        self, words: Sequence[str], seen: bytes, disturb: Callable[[], object]
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `inv`, and disturb it once it has printed something."""
        out, err = (self.laptop.root.parent / name for name in ("stdout", "stderr"))
        command = self.laptop.command("inv", *words)
        with (
            out.open("wb") as stdout,
            err.open("wb") as stderr,
            subprocess.Popen(
                command,
                cwd=self.laptop.root,
                env=self.laptop.env,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            ) as process,
        ):
            try:
                while seen not in out.read_bytes() + err.read_bytes():
                    assert process.poll() is None, err.read_text()
                    time.sleep(0.01)
                disturb()
                code = process.wait()
            finally:
                process.kill()  # if the event never came
        return subprocess.CompletedProcess(command, code, out.read_bytes(), err.read_bytes())


@pytest.fixture(scope="module")
def plug(make_laptop: Callable[[Sandbox], Laptop]) -> Iterator[Callable[[Sandbox], Cable]]:
    """Connect new laptops to servers, each over a network of its own."""
    networks = []

    def connect(host: Sandbox) -> Cable:
        laptop = make_laptop(host)
        network = Proxy(host.port)
        network.__enter__()
        networks.append(network)
        lines = host.ssh_config.read_text().replace(f"Port {host.port}", f"Port {network.port}")
        (laptop.root.parent / "ssh_config").write_text(f"{lines}    HostKeyAlias [127.0.0.1]:{host.port}\n")
        laptop.write(
            ".remote_config",
            f"REMOTE_HOST={host.host_alias}\n"
            f"REMOTE_CODE_PATH=~/{laptop.root.parent.name}\n"
            f"REMOTE_CACHE_DIR=~/{laptop.root.parent.name}-cache\n"
            f"SSH_OPTIONS=\"-F '{laptop.root.parent / 'ssh_config'}'\"\n",
        )
        laptop.write("invoke.yaml", f"remote: {{timeout_s: {TIMEOUT_S}, connect_timeout_s: {TIMEOUT_S}}}\n")
        return Cable(laptop, network)

    yield connect
    for network in networks:
        network.__exit__(None, None, None)


@pytest.fixture
def cable(plug: Callable[[Sandbox], Cable], sandbox: Sandbox) -> Cable:
    """Give a laptop whose host is the session's server."""
    return plug(sandbox)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print which faults were survived how often: the line in docs/figures.md."""
    counts: dict[str, list[int]] = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            found = re.search(r"faults/\w+\.py::(?:Test\w+::)?test_(\w+)(?:\[([a-z]+)-)?", report.nodeid)
            if report.when == "call" and found:
                title = found[1].replace("_", " ") + (f": {found[2]}" if found[2] else "")
                counts.setdefault(title, [0, 0])[outcome == "failed"] += 1
    if counts:
        terminalreporter.section("faults")
        terminalreporter.write_line("| fault | times | survived |\n|---|---|---|")
        for title, (passed, failed) in counts.items():
            terminalreporter.write_line(f"| {title} | {passed + failed} | {passed} |")
