"""What every test stands on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what we compile for ourselves out of the developer's ~/.cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("COLUMNS", raising=False)  # pytest-xdist sets it, and tables would fit it
        yield


def pytest_unconfigure(config: pytest.Config) -> None:
    """Print the names of failed tests below pytest's last line: they are what one looks for."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is None or hasattr(config, "workerinput"):
        return
    reports = [report for kind in ("failed", "error") for report in terminal.stats.get(kind, [])]
    for name in dict.fromkeys(report.nodeid for report in reports):
        terminal.write_line(f"failed: {name}", red=True)
