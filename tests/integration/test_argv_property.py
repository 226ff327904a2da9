"""What is typed after `--` is what the script on the host receives, byte for byte, whatever it is."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from invoke import Collection, Program

from remote_tools import ns as remote
from remote_tools.setup.sandbox import Sandbox
from remote_tools.tasks.bench_task import bench_task
from tests import needs
from tests.integration.conftest import Laptop, SandboxMaker

# Each word as its bytes, behind its length.
RECEIVE = """\
import os, sys
with open("received", "wb") as file:
    for word in map(os.fsencode, sys.argv[1:]):
        file.write(b"%d:%s," % (len(word), word))
"""
TASKS = """\
from invoke import Collection
from remote_tools import ns as remote
from remote_tools.tasks.bench_task import bench_task
ns = Collection(*remote.tasks.values(), Collection("bench", bench_task("receive", "receive.py")))
"""
TYPED = {
    "dev": ["dev", "--", "receive.py"],
    "exec": ["exec", "--", "python", "receive.py"],
    "bench": ["bench.receive", "--"],
}
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
# Words that are no UTF-8 reach Python as lone surrogates (PEP 383).
BYTES = st.binary().map(lambda word: os.fsdecode(word.replace(b"\0", b"")))
SHELLS = st.text(" \t\n'\"\\$`!*?[]{}()<>|&;#~=%-^é,:")
WORDS = st.lists(
    st.one_of(TEXT, BYTES, SHELLS, st.sampled_from(["--", "-", "", "-x", "--host=x"])), max_size=8
)

often = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def framed(words: list[str]) -> bytes:
    """Return words as the script writes them down."""
    return b"".join(b"%d:%s," % (len(word), word) for word in map(os.fsencode, words))


@pytest.fixture(scope="module")
def laptop(make_laptop: Callable[[Sandbox], Laptop], sandbox: Sandbox) -> Laptop:
    """Give a project with the script, pushed."""
    return with_script(make_laptop(sandbox))


def with_script(laptop: Laptop) -> Laptop:
    laptop.env["INVOKE_REMOTE_CODE_PATH"] = f"~/{laptop.root.parent.name}"
    laptop.write("receive.py", RECEIVE)
    laptop.write("tasks.py", TASKS)
    done = laptop.inv("sync")
    assert 0 == done.returncode, done.stderr
    return laptop


def received(laptop: Laptop) -> bytes:
    """Return what the script wrote, once."""
    path = laptop.host.home / laptop.root.parent.name / "received"
    content = path.read_bytes()
    path.unlink()
    return content


Inv = Callable[[list[str]], None]


@pytest.fixture
def inv(laptop: Laptop) -> Iterator[Inv]:
    """Give `inv` in this process, which spares the start of one for each case."""
    namespace = Collection(*remote.tasks.values(), Collection("bench", bench_task("receive", "receive.py")))

    def run(typed: list[str]) -> None:
        with mock.patch.object(sys, "argv", ["inv", *typed]):
            Program(namespace=namespace, name="inv", binary="inv").run(exit=False)

    before = Path.cwd()
    os.chdir(laptop.root)
    with mock.patch.dict(os.environ, laptop.env):
        yield run
    os.chdir(before)


@pytest.mark.parametrize("task", TYPED)
@settings(often, max_examples=9)
@given(words=WORDS)
@example(words=["x" * 100_000, "\\", "'", "$(id)", "\r\n", "\x1b[0m", "\udcff\udcfe"])
def test_words_arrive_as_typed(task: str, words: list[str], laptop: Laptop, inv: Inv) -> None:
    inv([*TYPED[task], *words])

    assert framed(words) == received(laptop)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("task", TYPED)
@settings(often, max_examples=500)
@given(words=WORDS)
def test_words_arrive_as_typed_500_times(task: str, words: list[str], laptop: Laptop, inv: Inv) -> None:
    inv([*TYPED[task], *words])

    assert framed(words) == received(laptop)


ODD = [
    b"two words",
    b"'\"$HOME`id`$(id)\\!*?~#",
    b"",
    b"-x",
    b"--",
    b"new\nline\t",
    "é ∑ 🙂".encode(),
    b"\xff\xfe\xe9",
]


def typed_for_real(laptop: Laptop, program: str, before: list[str], words: list[bytes]) -> None:
    command = [*map(os.fsencode, laptop.command(program, *before)), *words]
    done = subprocess.run(
        command, cwd=laptop.root, env=laptop.env, stdin=subprocess.DEVNULL, capture_output=True
    )
    assert 0 == done.returncode, done.stderr.decode()


@pytest.mark.parametrize("task", TYPED)
@pytest.mark.parametrize("locale", ["C.UTF-8", "POSIX"])
def test_odd_words_arrive_from_a_real_command_line(laptop: Laptop, task: str, locale: str) -> None:
    laptop.env.update(LC_ALL=locale)

    typed_for_real(laptop, "inv", TYPED[task], ODD)

    assert framed([os.fsdecode(word) for word in ODD]) == received(laptop)


def test_odd_words_arrive_by_fab(laptop: Laptop) -> None:
    laptop.write("fabfile.py", TASKS)
    laptop.write("fabric.yaml", "tasks:\n  executor_class: remote_tools.tasks.executor.Executor\n")

    typed_for_real(laptop, "fab", ["-H", laptop.host.host_alias, *TYPED["dev"]], ODD)

    assert framed([os.fsdecode(word) for word in ODD]) == received(laptop)


@pytest.fixture(scope="module")
def old_locale() -> Iterator[str]:
    """Compile a locale whose encoding is not UTF-8; return what makes a shell use it."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", f"{folder}/en_US"]
        missing = needs.why_missing("localedef", needs.LOCALE_SOURCE)
        if missing or subprocess.run(words, capture_output=True).returncode:
            pytest.skip(missing or "localedef fails here")
        yield f"export LOCPATH={folder} LC_ALL=en_US"


def test_odd_words_arrive_where_the_host_does_not_speak_utf_8(
    make_laptop: Callable[[Sandbox], Laptop], make_sandbox: SandboxMaker, old_locale: str
) -> None:
    host = make_sandbox(f'ForceCommand {old_locale}; cd; exec $SHELL -c "$SSH_ORIGINAL_COMMAND"')
    laptop = with_script(make_laptop(host))

    typed_for_real(laptop, "inv", TYPED["dev"], ODD)

    assert framed([os.fsdecode(word) for word in ODD]) == received(laptop)
