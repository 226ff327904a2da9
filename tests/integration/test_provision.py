"""`inv provision` and `inv init`: a host made ready, and a first configuration."""

from __future__ import annotations

from pathlib import Path

import pexpect
import pytest

from tests.integration.conftest import Laptop


@pytest.fixture
def project(laptop: Laptop) -> Laptop:
    """Give a project that needs nothing from the network."""
    laptop.write("requirements.txt", "")
    with (laptop.root / ".remote_config").open("a") as file:
        file.write("REMOTE_VENV_PATH=~/venvs/project\n")
    return laptop


def test_provision_makes_the_code_path_and_a_venv_to_run_in(project: Laptop) -> None:
    project.write("where.py", "import sys\nprint(sys.prefix)\n")

    made = project.inv("provision", INVOKE_REMOTE_CODE_PATH="~/deep/er/project")
    ran = project.inv("dev", "--", "where.py", INVOKE_REMOTE_CODE_PATH="~/deep/er/project")

    assert (0, 0) == (made.returncode, ran.returncode), made.stderr
    assert f"{project.host.home}/venvs/project\n" == ran.stdout


def test_a_second_provision_changes_nothing_and_says_so(project: Laptop) -> None:
    assert 0 == project.inv("provision").returncode
    before = {path: path.lstat().st_mtime_ns for path in (project.host.home / "venvs").rglob("*")}

    again = project.inv("provision")

    assert 0 == again.returncode
    assert f"nothing to do: {project.host.home}/venvs/project is as it should be" in again.stdout
    assert before == {path: path.lstat().st_mtime_ns for path in (project.host.home / "venvs").rglob("*")}


def test_provision_says_what_changed(project: Laptop) -> None:
    assert 0 == project.inv("provision").returncode
    project.write("requirements.txt", "# nothing yet\n")

    assert "changed: files" in project.inv("provision").stdout


def test_an_extra_that_the_project_lacks_is_named(project: Laptop) -> None:
    project.write("pyproject.toml", "[project.optional-dependencies]\ncuda = []\n")

    done = project.inv("provision", INVOKE_REMOTE_EXTRAS="cuba")

    assert (78, True) == (done.returncode, "no extra cuba in pyproject.toml; it has: cuda" in done.stderr)


def test_init_writes_what_flags_say(laptop: Laptop) -> None:
    (laptop.root / ".remote_config").unlink()

    done = laptop.inv("init", "--host", "trn1", "--code-path", "~/my code")

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
        " ".join(laptop.command("inv", "init")), cwd=laptop.root, env=laptop.env, encoding="utf-8"
    )
    child.expect_exact("Host (trn1, trn2, gpu): ")
    child.sendline("trn2")
    child.expect_exact("Folder there for the code [~/project]: ")
    child.sendline("")
    child.expect("Virtual environment there.*: ")
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
    forced = laptop.inv("init", "--host", "other", "--force")

    (kept,) = laptop.root.glob(".remote_config.*")
    assert (64, 0, before, before) == (refused.returncode, forced.returncode, unchanged, kept.read_text())
