"""What `inv --list`, `--help` and completion show of the tasks."""

from __future__ import annotations

import copy
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from invoke import Collection

from remote_tools.errors import UsageError
from remote_tools.loop.steps import How

ROOT = Path(__file__).parents[2]


def namespace() -> Collection:
    """Load this checkout's own tasks.py."""
    spec = importlib.util.spec_from_file_location("tasks_of_this_checkout", ROOT / "tasks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Collection = module.ns
    return found


NS = namespace()
NAMES = sorted(NS.task_names)
HELP = {name: dict(NS[name].help) for name in NAMES}  # Invoke empties a task's own as it is read


@pytest.mark.parametrize("name", NAMES)
def test_every_task_says_what_it_does_in_one_line(name: str) -> None:
    first = (NS[name].__doc__ or "").strip().splitlines()[0]

    assert (True, True) == (first.endswith((".", "ARGS.", "WORDS.")), len(first) <= 100)


@pytest.mark.parametrize("name", NAMES)
def test_every_flag_has_help(name: str) -> None:
    task = copy.copy(NS[name])
    task.help = dict(HELP[name])
    silent = [argument.name for argument in task.get_arguments() if not argument.help]

    assert [] == silent


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("bench.compare", ["a", "b"]),
        ("bench.compare x y z --json", ["a", "b", "c"]),
        ("runs.show", []),
        ("runs.show --json", []),
        ("runs.show 20261122", ["id"]),
        ("bench.gemm", []),
    ],
)
def test_bare_words_are_taken_as_typed_now_and_not_at_import(
    words: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["inv", *words.split()])
    arguments = NS[words.split()[0]].get_arguments(ignore_unknown_help=True)

    assert expected == [argument.name for argument in arguments if argument.positional]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"on_disconnect": "maybe"}, "--on-disconnect must be keep or kill, got maybe"),
        ({"lease_s": 5}, "--lease-s has no effect without --on-disconnect kill"),
    ],
)
def test_a_run_rejects_flags_that_do_nothing(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        How(**given)

    assert ("exec", message) == (error.value.stage, error.value.reason)


def inv(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "invoke", *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("inv ru", "runs.attach"),
        ("inv ru", "runs.kill"),
        ("inv dev --", "--auto-fetch"),
        ("inv ben", "bench.gemm"),
    ],
)
def test_completion_offers_tasks_and_flags(typed: str, offered: str) -> None:
    assert offered in inv("--complete", "--", *typed.split()).split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_printed_for_each_shell(shell: str) -> None:
    assert "--complete" in inv("--print-completion-script", shell)
