"""The host's half of the doctor: what cannot be had from a real broken host."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from remote_tools.host import probe
from remote_tools.host.software import install, install_on
from remote_tools.setup.doctor import Finding, exit_code

OK, WARNING = Finding("a", "ok", ""), Finding("b", "warning", "", "do it")
FAILURES = [Finding("c", "failure", "", "", code) for code in (77, 69)]


def subject(**given: object) -> dict[str, object]:
    """Make what a check looks at, where the settings name no Python."""
    return {"venv_path": None, "python": None, **given}


def trouble(check: object, params: dict[str, object]) -> tuple[str, str, int]:
    assert callable(check)
    with pytest.raises(probe.Trouble) as raised:
        check(params)
    return raised.value.seen, raised.value.hint, raised.value.code


def test_a_row_for_each_check_but_for_those_with_nothing_to_try() -> None:
    def fails(_subject: object) -> str:
        raise OSError(5, "Input/output error")

    checks = {"well": lambda _: "seen", "absent": lambda _: None, "broken": fails}
    rows = [{**row, "seconds": 0} for row in probe.examine(checks, None)]

    rest = {"hint": "", "seconds": 0}
    assert [
        {"name": "well", "ok": True, "seen": "seen", "code": 0, **rest},
        {"name": "broken", "ok": False, "seen": "[Errno 5] Input/output error", "code": 74, **rest},
    ] == rows


def test_only_a_clock_that_is_far_off_is_told() -> None:
    now = time.time()

    assert "+1.0 s" in probe.clock({"arrived": now + 1, "now": now})
    assert ("-60.0 s from this machine's", 0) == trouble(probe.clock, {"arrived": now - 60, "now": now})[::2]


def test_the_interpreter_is_found_as_a_run_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert sys.executable == probe.interpreter(subject())
    assert ("no python9", "correct python: inv config", 69) == trouble(
        probe.interpreter, subject(python="python9")
    )
    (tmp_path / "python").symlink_to(sys.executable)
    assert str(tmp_path / "python") == probe.interpreter(subject())


def test_a_python_that_does_not_start_fails(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\necho its library is gone >&2\nexit 1\n")
    python.chmod(0o700)

    seen = f"{python} failed with exit code 1: its library is gone"
    assert (seen, "inv provision", 69) == trouble(probe.python, subject(venv_path=str(tmp_path)))


def test_a_command_that_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "COMMAND_S", 0.05)

    with pytest.raises(probe.Trouble, match="sleep did not end within"):
        probe.output_of("sleep", "60")


def test_a_package_is_installed_by_what_the_host_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert "install rsync" == install("rsync")
    (tmp_path / "apk").touch(0o700)
    assert "sudo apk add rsync" == install("rsync")


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ("ubuntu debian", "sudo apt-get install rsync"),
        ("rocky rhel centos fedora", "sudo dnf install rsync"),
        ("macos", "brew install rsync"),
        ("plan9", "install rsync"),
        ("", "install rsync"),
    ],
)
def test_a_package_is_installed_by_what_a_system_has(system: str, expected: str) -> None:
    assert expected == install_on(system, "rsync")


@pytest.mark.parametrize(
    ("findings", "strict", "code"),
    [([OK], True, 0), ([OK, WARNING], False, 0), ([OK, WARNING], True, 1), ([WARNING, *FAILURES], True, 77)],
)
def test_the_first_failure_decides_the_exit_code(findings: list[Finding], strict: bool, code: int) -> None:
    assert code == exit_code(findings, strict)
