"""Tasks that prepare a host: init, provision, doctor."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from invoke import Context, Exit
from invoke.tasks import task

from remote_tools.tasks._context import HOST, JSON, end, new_display, print_json, root, settings_for

if TYPE_CHECKING:
    from remote_tools.setup.doctor import Finding


@task(
    help={
        "host": "the host, as ssh names it; asked for if not given",
        "code-path": "the folder on the host that the workspace is pushed to",
        "venv-path": "the virtual environment on the host",
        "force": "replace an existing .remote_config; a copy is kept beside it",
        "no-check": "do not run the doctor afterwards",
    }
)
def init(
    c: Context,
    host: str | None = None,
    code_path: str | None = None,
    venv_path: str | None = None,
    force: bool = False,
    no_check: bool = False,
) -> None:
    """Write .remote_config: ask for host and paths, offer the aliases of ~/.ssh/config; run doctor."""
    from pathlib import Path

    from remote_tools.errors import UsageError
    from remote_tools.settings import first_config

    path = root(c) / ".remote_config"
    if path.exists() and not force:
        raise UsageError(
            "init", f"{path} exists already", "inv config shows it; inv init --force replaces it"
        )
    given = {"host": host, "code_path": code_path, "venv_path": venv_path}
    known = first_config.aliases(Path.home() / ".ssh" / "config")
    ask = input if sys.stdin.isatty() else None
    print(first_config.write(path, first_config.ask_for(given, known, root(c).name, ask)))
    if not no_check:
        doctor(c)


@task(help={"host": HOST})
def provision(c: Context, host: str | None = None) -> None:
    """Prepare the host: code path, virtual environment, the project with its extras."""
    from remote_tools.setup.provision import provision as provision_

    end(provision_(settings_for(c, host=host), new_display()))


@task(help={"host": HOST, "json": JSON, "strict": "exit code 1 for warnings"})
def doctor(c: Context, host: str | None = None, json: bool = False, strict: bool = False) -> None:
    """Check everything that the loop needs, and print how to fix what is missing."""
    from remote_tools.setup import doctor as doctor_

    display = new_display()
    findings = []
    for finding in doctor_.examine(settings_for(c, host=host), display.say):
        findings.append(finding)
        if not json:
            _print_finding(finding)
    code = doctor_.exit_code(findings, strict)
    if json:
        print_json([finding.to_json() for finding in findings])
    else:
        print(_summary(findings))
    if code:
        raise Exit(code=code)


def _summary(findings: list[Finding]) -> str:
    """Return the counts of states, and whether a run would succeed."""
    from collections import Counter

    counts = Counter(finding.state for finding in findings)
    failed = next((finding for finding in findings if finding.state == "failure"), None)
    then = f"a run would end with {failed.code}: {failed.name}" if failed else "ready to run"
    return f"{counts['ok']} ok, warnings: {counts['warning']}, failures: {counts['failure']}; {then}"


def _print_finding(finding: Finding) -> None:
    """Print a finding, with a hint on a second line; text from a host is never interpreted as markup."""
    from rich.console import Console
    from rich.text import Text

    from remote_tools.errors import host_hint
    from remote_tools.escape import one_line

    colour = {"ok": "green", "warning": "yellow", "failure": "red"}[finding.state]
    name, seen = one_line(finding.name), one_line(finding.seen.replace("\n", "; "))
    line = Text.assemble(
        (f"{finding.state:8}", colour), f"{name:15}", f"{seen}  ", (f"{finding.seconds:.2f} s", "dim")
    )
    console = Console(soft_wrap=True, highlight=False)
    console.print(line)
    if finding.hint and finding.state != "ok":
        hint = host_hint(finding.by, finding.hint) if finding.by else one_line(finding.hint)
        console.print(Text(f"{'':8}{'':15}next: {hint}"))
