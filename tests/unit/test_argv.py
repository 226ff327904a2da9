"""What stands after `--`, and the command that a TARGET becomes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_tools.errors import UsageError
from remote_tools.runs.target import target_argv, words_after_dashes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("examples/gemm.py", "examples/softmax.py", "tests/gemm_test.py", ".venv/lib/gem.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@given(st.lists(st.text(st.characters(exclude_characters="\0"))))
def test_words_arrive_as_typed(words: list[str]) -> None:
    assert words == words_after_dashes(["inv", "dev", "--auto-fetch", "--", *words])


def test_without_dashes_there_are_no_words() -> None:
    assert [] == words_after_dashes(["inv", "dev", "x.py"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["examples/gemm.py", "--mode", "a b", ""], ["python", "examples/gemm.py", "--mode", "a b", ""]),
        (["./examples/../examples/gemm.py"], ["python", "./examples/../examples/gemm.py"]),
        (["-m", "pytest", "-k", "a and b"], ["python", "-m", "pytest", "-k", "a and b"]),
        (["python", "gone.py"], ["python", "gone.py"]),
        (["/opt/host/tool.py"], ["python", "/opt/host/tool.py"]),
        (["nvidia-smi"], ["nvidia-smi"]),
        ([""], [""]),
    ],
)
def test_a_target_becomes_a_command(root: Path, words: list[str], expected: list[str]) -> None:
    assert expected == target_argv(words, root)


@pytest.mark.parametrize(
    ("script", "hint"),
    [
        ("examples/gem.py", "the nearest: examples/gemm.py, examples/softmax.py, tests/gemm_test.py"),
        ("gemm.py", "the nearest: examples/gemm.py, tests/gemm_test.py"),
        ("example/softmax.py", "the nearest: examples/softmax.py"),
        ("qqqqqq.py", "scripts are searched for in {root}"),
    ],
)
def test_a_missing_script_stops_with_the_nearest_names(root: Path, script: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        target_argv([script], root)
    assert f"target: no {script} in {root}\n  next: {hint.format(root=root)}" == caught.value.message
    assert 64 == caught.value.code


def test_an_absolute_path_of_the_workspace_must_exist_too(root: Path) -> None:
    with pytest.raises(UsageError) as caught:
        target_argv([f"{root}/gemm.py"], root)
    assert "the nearest: examples/gemm.py, tests/gemm_test.py" == caught.value.hint


@pytest.mark.parametrize(("words", "expected"), [([], "nothing to run"), (["-m"], "-m needs a module")])
def test_too_few_words_say_what_to_type(root: Path, words: list[str], expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        target_argv(words, root)
    assert expected == caught.value.reason
    assert "inv dev -- " in caught.value.hint


@pytest.mark.parametrize("script", ["x" * 300 + ".py", "x/" * 3000 + "y.py"])
def test_a_name_that_no_file_can_have_is_missing_too(root: Path, script: str) -> None:
    with pytest.raises(UsageError, match="no x"):
        target_argv([script], root)
