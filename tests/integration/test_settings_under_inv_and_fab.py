"""Settings in another repo: the same under `inv` and `fab`, read by the real programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
TASKS = """\
import json
from pathlib import Path
from invoke import Collection, task
from remote_tools.settings.settings import check_early, find_root, load, rows

root = find_root(Path.cwd())
check_early(root)

@task
def show(c, host=None):
    settings = load(c.config, root, flags={"host": host}, fab_host=getattr(c, "host", None))
    said = [row for row in rows(settings) if row[2] != "default"]
    print(json.dumps({name: [value, source] for name, value, source in said}))

ns = Collection(show)
ns.configure({"remote": {"code_path": "~/ns", "python": "ns"}})
"""


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    root = tmp_path / "other"
    (root / "sub").mkdir(parents=True)
    (root / "tasks.py").write_text(TASKS)
    (root / "fabfile.py").write_text("from tasks import ns\n")
    (root / "invoke.yaml").write_text("remote:\n  host: project\n  python: project\n  timeout_s: 5\n")
    (root / "other.yaml").write_text("remote:\n  timeout_s: 7\n")
    return root


def run(*words: str, cwd: Path, **environ: str) -> tuple[int, str, str]:
    env = {**os.environ, "PYTHONPATH": str(REPO), "HOME": str(cwd), **environ}
    program = [sys.executable, "-m", {"inv": "invoke"}.get(words[0], "fabric")]
    result = subprocess.run(
        [*program, *words[1:]], cwd=cwd, env=env, capture_output=True, text=True, timeout=60
    )
    return result.returncode, result.stdout, result.stderr


def settings(*words: str, cwd: Path, **environ: str) -> dict[str, list[str]]:
    code, output, errors = run(*words, cwd=cwd, **environ)
    assert (0, "") == (code, errors)
    found: dict[str, list[str]] = json.loads(output)
    return found


@pytest.mark.parametrize("program", ["inv", "fab"])
def test_both_programs_find_the_same(repo: Path, program: str) -> None:
    expected = {
        "host": ["project", "invoke.yaml:2"],
        "code_path": ["~/ns", "ns.configure"],
        "python": ["environ", "INVOKE_REMOTE_PYTHON"],
        "timeout_s": ["7", "other.yaml:2"],
    }
    words = [program, "-f", "other.yaml", "show"]
    assert expected == settings(*words, cwd=repo, INVOKE_REMOTE_PYTHON="environ", INVOKE_REMOTE_TIMEOUT_S="6")


def test_settings_are_the_same_from_a_folder_below(repo: Path) -> None:
    assert ["project", "invoke.yaml:2"] == settings("inv", "show", cwd=repo / "sub")["host"]


def test_fab_h_wins_for_the_host(repo: Path) -> None:
    assert ["trn1", "fab -H"] == settings("fab", "-H", "trn1", "show", "--host", "flag", cwd=repo)["host"]


@pytest.mark.parametrize("program", ["inv", "fab"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("remote:\n  host: a\n   bad: b\n", "invoke.yaml:3: mapping values are not allowed here"),
        ("- a\n", "settings: invoke.yaml: not a mapping of settings"),
        ("remote:\n  hsot: a\n", "settings: invoke.yaml:2: hsot: unknown key"),
    ],
)
def test_a_broken_file_ends_in_one_message(repo: Path, program: str, text: str, expected: str) -> None:
    (repo / "invoke.yaml").write_text(text)
    code, output, errors = run(program, "show", cwd=repo)
    assert (78, "") == (code, output)
    assert expected in errors
    assert "Traceback" not in errors


def test_a_variable_over_a_list_ends_in_one_message(repo: Path) -> None:
    (repo / "invoke.yaml").write_text("remote:\n  host: a\n  exclude: [a]\n")
    code, output, errors = run("inv", "show", cwd=repo, INVOKE_REMOTE_EXCLUDE="b")
    assert (78, "") == (code, output)
    assert "settings: INVOKE_REMOTE_EXCLUDE cannot override the list at invoke.yaml:3\n" in errors
