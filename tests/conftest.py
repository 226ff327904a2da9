"""What every test stands on."""

from __future__ import annotations

import gc
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# A shell's job in the background ignores SIGINT, and would hand that on to what the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what we compile for ourselves out of the developer's ~/.cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("COLUMNS", raising=False)  # pytest-xdist sets it, and tables would fit it
        yield


def pytest_collection_finish() -> None:
    """Keep the collector from walking through thousands of tests again and again, and after each fork."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def bounded_memory() -> Iterator[None]:
    """Let what reads an endless file fail by a MemoryError, before the system ends other programs."""
    about = Path("/proc/self/statm")
    if not about.exists():
        pytest.skip("only Linux limits the memory of a process")
    pages = int(about.read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (2 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Print the names of failed tests below pytest's last line: they are what one looks for."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is None or hasattr(config, "workerinput"):
        return
    reports = [report for kind in ("failed", "error") for report in terminal.stats.get(kind, [])]
    for name in dict.fromkeys(report.nodeid for report in reports):
        terminal.write_line(f"failed: {name}", red=True)
