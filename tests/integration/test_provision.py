"""`inv provision` and `inv init`: a host made ready, and a first configuration."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pexpect
import pytest

from tests import needs
from tests.integration.conftest import ROOT, Laptop


@pytest.fixture
def project(laptop: Laptop) -> Laptop:
    """Give a project that needs nothing from the network."""
    laptop.write("requirements.txt", "")
    with (laptop.root / ".remote_config").open("a") as file:
        file.write("REMOTE_VENV_PATH=~/venvs/project\n")
    return laptop


def test_a_host_is_made_ready_once_and_then_what_changed_is_told(project: Laptop) -> None:
    project.write("where.py", "import sys\nprint(sys.prefix)\n")
    project.env["INVOKE_REMOTE_CODE_PATH"] = "~/deep/er/project"
    venv = project.host.home / "venvs" / "project"

    made = project.inv("provision")
    assert (0, "") == (made.returncode, made.stderr.partition("provision:")[2])
    assert [f"ready: {venv}; changed: everything is new"] == made.stdout.splitlines()[-1:]
    assert f"{venv}\n" == project.inv("dev", "--", "where.py").stdout

    before = {path: path.lstat().st_mtime_ns for path in venv.rglob("*")}
    again = project.inv("provision")
    assert (0, f"nothing to do: {venv} is up to date") == (
        again.returncode,
        again.stdout.splitlines()[-1],
    )
    assert before == {path: path.lstat().st_mtime_ns for path in venv.rglob("*")}

    project.write("requirements.txt", "# nothing yet\n")
    changed = project.inv("provision")
    assert f"ready: {venv}; changed: requirements.txt" == changed.stdout.splitlines()[-1]


@needs.skip_without("uv")
def test_uv_is_used_where_the_host_has_it(project: Laptop) -> None:
    there = project.host.home / ".local" / "bin" / "uv"  # where its installer puts it, which is not in PATH
    there.parent.mkdir(parents=True)
    there.symlink_to(needs.find("uv") or "")

    made = project.inv("provision")

    steps = [line.split()[:3] for line in made.stdout.splitlines() if line.startswith("$ ")]
    assert (0, [["$", str(there), "venv"], ["$", str(there), "pip"]]) == (made.returncode, steps), made.stderr


def test_a_venv_that_cannot_be_made_leaves_nothing(project: Laptop) -> None:
    python = project.host.home / "half python"
    python.write_text(
        '#!/bin/sh\n[ "$1" = -m ] || { echo 3.11; exit; }\nmkdir -p "$4/bin"\necho no pip >&2\nexit 1\n'
    )
    python.chmod(0o700)

    done = project.inv("provision", INVOKE_REMOTE_PYTHON="~/half python")

    assert (69, True) == (done.returncode, "no pip\nprovision: " in done.stderr), done.stderr
    assert not (project.host.home / "venvs" / "project").exists()


BACKEND = """\
import os, zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(os.path.join(folder, "p-1-py3-none-any.whl"), "w") as wheel:
        wheel.writestr("p.pth", os.getcwd())
        wheel.writestr("p-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: p\\nVersion: 1\\n")
        wheel.writestr("p-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nGenerator: p\\nTag: py3-none-any\\n")
        wheel.writestr("p-1.dist-info/RECORD", "")
    return "p-1-py3-none-any.whl"
"""


@pytest.fixture
def index() -> Iterator[tuple[str, list[str]]]:
    """Give the address of a package index that has nothing, and the paths that it was asked for."""
    asked: list[str] = []

    class Nothing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Nothing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/simple", asked
        server.shutdown()
        thread.join()


def test_nothing_comes_without_a_hash_where_there_is_a_lock(
    tmp_path: Path, index: tuple[str, list[str]]
) -> None:
    address, asked = index
    (tmp_path / "own.py").write_text(BACKEND)
    pyproject, project = tmp_path / "pyproject.toml", "[project]\nname = 'p'\nversion = '1'\n"
    lock = tmp_path / "requirements.lock"
    lock.write_text("# nothing\n")

    def provision(build_system: str) -> subprocess.CompletedProcess[str]:
        pyproject.write_text(f"[build-system]\n{build_system}{project}")
        program = ROOT / "remote_tools" / "host" / "provisioner.py"
        orders = json.dumps({"venv": "venv", "extras": [], "python": None})
        return subprocess.run(
            [sys.executable, "-I", program, orders],
            cwd=tmp_path,
            env={
                "HOME": str(tmp_path),
                "PATH": "/usr/bin:/bin",
                "PIP_INDEX_URL": address,
                "PIP_RETRIES": "0",
                "PIP_CONFIG_FILE": "/dev/null",
            },
            capture_output=True,
            text=True,
        )

    needs_hatchling = "requires = ['hatchling>=1.26']\nbuild-backend = 'hatchling.build'\n"
    lacking = provision(needs_hatchling)
    assert 78 == lacking.returncode, lacking.stderr
    assert "requirements.lock lacks what builds the project: hatchling" in lacking.stderr
    assert "echo hatchling | uv pip compile --generate-hashes" in lacking.stderr
    whole = provision("requires = []\nbuild-backend = 'own'\nbackend-path = ['.']\n")
    assert (0, []) == (whole.returncode, asked), whole.stderr
    there = subprocess.run([tmp_path / "venv/bin/python", "-c", "import own"], cwd="/", check=False)
    assert 0 == there.returncode

    lock.unlink()  # so the proof is one: without a lock pip asks
    lacking = provision(needs_hatchling)
    assert (69, True) == (lacking.returncode, "/simple/hatchling/" in asked), lacking.stderr


def test_an_extra_that_the_project_lacks_is_named(project: Laptop) -> None:
    project.write("pyproject.toml", "[project.optional-dependencies]\ncuda = []\n")

    done = project.inv("provision", INVOKE_REMOTE_EXTRAS="cuba")

    assert (78, True) == (done.returncode, "no extra cuba in pyproject.toml; it has: cuda" in done.stderr)


def test_init_writes_what_flags_say(laptop: Laptop) -> None:
    (laptop.root / ".remote_config").unlink()

    done = laptop.inv("init", "--no-check", "--host", "trn1", "--code-path", "~/my code")

    assert 0 == done.returncode
    assert "REMOTE_HOST=trn1\nREMOTE_CODE_PATH='~/my code'\n" == (laptop.root / ".remote_config").read_text()
    assert "~/my code" in laptop.inv("config").stdout


def test_init_asks_and_offers_the_aliases(laptop: Laptop) -> None:
    (laptop.root / ".remote_config").unlink()
    ssh = Path(laptop.env["HOME"]) / ".ssh"
    (ssh / "more").mkdir(parents=True)
    (ssh / "config").write_text("Include more/*\nHost *.internal !x\nHost gpu\n  User me\n")
    (ssh / "more" / "trn").write_text("Host trn1 trn2\n")

    child = pexpect.spawn(
        " ".join(laptop.command("inv", "init", "--no-check")),
        cwd=laptop.root,
        env=laptop.env,
        encoding="utf-8",
    )
    child.expect_exact("Host (trn1, trn2, gpu): ")
    child.sendline("trn2")
    child.expect_exact("Folder on the host for the code [~/project]: ")
    child.sendline("")
    child.expect("Virtual environment on the host.*: ")
    child.sendline("~/venv")
    child.expect(pexpect.EOF)

    assert (
        "REMOTE_HOST=trn2\nREMOTE_CODE_PATH=~/project\nREMOTE_VENV_PATH=~/venv\n"
        == (laptop.root / ".remote_config").read_text()
    )


def test_init_overwrites_nothing_unless_told_and_keeps_the_old_one(laptop: Laptop) -> None:
    before = (laptop.root / ".remote_config").read_text()

    refused = laptop.inv("init", "--host", "other")
    unchanged = (laptop.root / ".remote_config").read_text()
    forced = laptop.inv("init", "--no-check", "--host", "other", "--force")

    (kept,) = laptop.root.glob(".remote_config.*")
    assert (64, 0, before, before) == (refused.returncode, forced.returncode, unchanged, kept.read_text())


def test_init_has_the_doctor_look_at_the_host(laptop: Laptop) -> None:
    (laptop.root / ".remote_config").unlink()
    env = {"INVOKE_REMOTE_SSH_OPTIONS": f"-F {laptop.host.ssh_config}"}

    well = laptop.inv("init", "--host", "sandbox", **env)
    unwell = laptop.inv("init", "--host", "nowhere.invalid", "--force", **env)

    assert (0, True) == (well.returncode, well.stdout.endswith("failures: 0; ready to run\n"))
    assert (68, True) == (unwell.returncode, unwell.stdout.endswith("a run would end with 68: name\n"))
