"""`./inv` on a machine that has nothing yet, and on one that has it all."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import needs

ROOT = Path(__file__).parents[2]
SHELLS = [
    pytest.param(words, marks=needs.skip_without(words[0]))
    for words in (["sh"], ["dash"], ["bash"], ["busybox", "sh"])
]
STUB = """\
#!/bin/sh
printf '%s\\0' "$PWD" "$@"
exit 7
"""
WORDS = ["dev", "--", "two  words", "", "$HOME", "*", "it's", 'a "b"', "line\nbreak", "é", "--", "-x"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Lay down what a fresh clone has, as far as the script looks at it."""
    folder = tmp_path / "a checkout"
    folder.mkdir()
    for name in ("inv", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture
def ready(checkout: Path) -> Path:
    """Set the checkout up, with an `inv` that tells where it stands and what it was given."""
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/bin/inv").write_text(STUB)
    (checkout / ".venv/bin/inv").chmod(0o755)
    digest = ["cksum", "requirements.lock", "pyproject.toml"]
    sums = subprocess.run(digest, cwd=checkout, check=True, stdout=subprocess.PIPE, text=True).stdout
    (checkout / ".venv/stamp").write_text(f"{sums.rstrip()} {checkout}\n")
    return checkout


def run(*words: str | Path, cwd: Path, **environment: str) -> tuple[int, str, str]:
    done = subprocess.run(
        words,
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_every_word_and_the_exit_code_pass_as_they_are(ready: Path, shell: list[str]) -> None:
    assert (7, "\0".join([str(ready), *WORDS, ""]), "") == run(*shell, "./inv", *WORDS, cwd=ready)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_folder_of_the_checkout_stays_the_present_one(ready: Path, shell: list[str]) -> None:
    (ready / "docs").mkdir()
    assert (7, f"{ready}/docs\0", "") == run(*shell, "../inv", cwd=ready / "docs")


@pytest.mark.parametrize("shell", SHELLS)
def test_from_elsewhere_and_through_links_it_runs_at_the_root(
    ready: Path, tmp_path: Path, shell: list[str]
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/first").symlink_to(ready / "inv")
    (tmp_path / "second").symlink_to("bin/first")
    for path in (ready / "inv", tmp_path / "bin/first", "./second"):
        assert (7, f"{ready}\0", "") == run(*shell, path, cwd=tmp_path)


def test_it_is_found_on_the_path(ready: Path, tmp_path: Path) -> None:
    path = f"{ready}:{os.environ['PATH']}"
    assert (7, f"{ready}\0", "") == run("sh", "-c", "inv", cwd=tmp_path, PATH=path)


def test_without_python_and_package_manager_it_says_what_to_install(checkout: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bin"
    bare.mkdir()
    here = ("sh", "mkdir", "rm", "cksum", "date", "git", "rsync", "ssh", "ssh-keygen", "sshd", "cc")
    for name in here:
        (bare / name).symlink_to(shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") or "/bin/true")
    refusal = "inv: no package manager known here (apt-get, dnf, brew): please install python3\n"
    assert (69, "", refusal) == run("./inv", "--list", cwd=checkout, PATH=str(bare))


def test_where_it_may_not_write_it_says_so(checkout: Path) -> None:
    (checkout / ".venv").write_text("in the way")
    assert (77, "", f"inv: no rights: cannot write to {checkout}/.venv\n") == run("./inv", cwd=checkout)


def test_without_network_it_says_so_in_one_line_and_leaves_no_stamp(checkout: Path) -> None:
    nowhere = {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_RETRIES": "1",
        "PIP_NO_CACHE_DIR": "1",
    }
    code, output, messages = run("./inv", "--list", cwd=checkout, **nowhere)
    log = checkout / ".venv/setup.log"
    last = f"inv: pip could not install the locked packages: no network (details: {log})"
    assert (69, "", last) == (code, output, messages.splitlines()[-1])
    assert not (checkout / ".venv/stamp").exists()


@needs.skip_without("shellcheck")
def test_shellcheck_finds_nothing() -> None:
    scripts = ["inv", ".ci/run", ".ci/lock"]
    assert (0, "", "") == run("shellcheck", *scripts, cwd=ROOT)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_fresh_copy_sets_itself_up_and_mends_itself(tmp_path: Path) -> None:
    files = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(files, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    for name in filter(None, listed.split("\0")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)

    code, listing, messages = run("./inv", "--list", cwd=tmp_path)
    assert (0, True) == (code, "sandbox.up" in listing), messages
    assert (0, listing, "") == run("./inv", "--list", cwd=tmp_path)

    lock = tmp_path / "requirements.lock"
    lock.write_text(lock.read_text() + "# changed\n")
    code, again, messages = run("./inv", "--list", cwd=tmp_path)
    assert (0, listing, 2) == (code, again, len(messages.splitlines()))

    (tmp_path / ".venv/stamp").unlink()
    (tmp_path / ".venv/busy").write_text("999999999\n")  # as kill -9 leaves it
    code, again, messages = run("./inv", "--list", cwd=tmp_path)
    assert (0, listing, True) == (code, again, messages.startswith("inv: making .venv"))
