"""What comes from elsewhere, and what rights our own automation has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from remote_tools.settings.config_files import yaml
from tests import needs

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def jobs(path: Path) -> tuple[dict[Any, Any], dict[str, dict[str, Any]]]:
    workflow = yaml.safe_load(path.read_text())
    return workflow, workflow["jobs"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_read_and_nothing_else(path: Path) -> None:
    workflow, its = jobs(path)
    assert {"contents": "read"} == workflow["permissions"]
    more = {name: job["permissions"] for name, job in its.items() if "permissions" in job}
    # PyPI believes a token that the job gets for itself, and no other job gets one.
    assert ({"publish": {"id-token": "write"}} if path.name == "publish.yml" else {}) == more


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_keeps_no_credentials_and_runs_no_strangers_code_with_rights(path: Path) -> None:
    workflow, its = jobs(path)
    events = workflow[True]  # YAML 1.1 reads `on` as true
    assert not {"pull_request_target", "workflow_run", "issue_comment"} & set(events)
    text = path.read_text()
    assert ("secrets." in text, "secrets: inherit" in text) == (False, False)
    steps = [step for job in its.values() for step in job.get("steps", [])]
    checkouts = [step for step in steps if step.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)
    # What a stranger names, such as a branch, is data: it is in the environment, and never in a script.
    scripts = [step["run"] for step in steps if "run" in step]
    assert not [script for script in scripts if "${{" in script]


def test_every_package_of_the_lock_has_a_hash() -> None:
    lock = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    packages = [line for line in lock.splitlines() if line[:1].isalnum()]
    assert len(packages) > 20
    assert [] == [line.split()[0] for line in packages if "--hash=sha256:" not in line]


# ./inv: services are held back while packages are installed ------------------------------------------------


def inv(tmp_path: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script with the functions of ./inv that hold services back, in a place of the test's."""
    text = (ROOT / "inv").read_text()
    names = "(?:say|has|become_root|hold_services|release_services|release_left)"
    body = r"(?:\{[^\n]*\}|\{\n.*?^\})"
    functions = re.findall(rf"^{names}\(\) {body}$", text, re.MULTILINE | re.DOTALL)
    assert 6 == len(functions)
    head = f"set -u\npolicy={tmp_path}/policy-rc.d\nlog=/dev/null\nas_root=\n"
    (tmp_path / "inv").write_text("\n".join([head, *functions, script, ""]))
    return subprocess.run(["sh", tmp_path / "inv"], capture_output=True, text=True, check=False)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc, as on Debian")
@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_what_a_killed_setup_left_is_removed_by_the_next(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    killed = inv(tmp_path, "hold_services; kill -KILL $$")
    assert (-9, True) == (killed.returncode, policy.exists())
    assert 101 == subprocess.run([policy], check=False).returncode
    assert needs.is_left(policy.read_text())
    assert 0 == inv(tmp_path, "release_left").returncode
    assert not policy.exists()


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc, as on Debian")
def test_a_policy_of_a_setup_that_still_runs_or_of_anothers_stays(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    held = inv(
        tmp_path, "hold_services; release_left; [ -e $policy ] && release_services && [ ! -e $policy ]"
    )
    assert 0 == held.returncode, held.stderr
    for text in ("#!/bin/sh\nexit 101\n", f"#!/bin/sh\n# made by ./inv, process {os.getpid()} of mine\n"):
        policy.write_text(text)
        inv(tmp_path, "release_left; hold_services; release_services")
        assert (text, False) == (policy.read_text(), needs.is_left(text))


def test_the_proof_of_the_tests_above_is_one() -> None:
    words = [sys.executable, "-c", "print(flush=True); input()", "inv"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert not needs.is_left(f"# made by ./inv, process {process.pid}\n")
        process.communicate(b"\n")
    assert needs.is_left(f"# made by ./inv, process {process.pid}\n")
