"""What `inv provision` decides on the host, before it does anything."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from remote_tools.host import provisioner

PYPROJECT = """\
[project]
name = "it"
[project.optional-dependencies]
cuda = ["cupy"]
neuron = [
    "nki",
]
test = ["pytest"]
[tool.other]
plain = 1
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a code path, and a PATH of its own."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)


def test_extras_are_read_without_a_toml_parser() -> None:
    assert ["cuda", "neuron", "test"] == provisioner.known_extras(PYPROJECT)


@pytest.mark.skipif(Path("/dev/neuron0").exists(), reason="this is a Neuron host")
@pytest.mark.parametrize(("code", "kind"), [(0, "cuda"), (9, "plain")])
def test_a_host_is_cuda_where_its_driver_answers(host: Path, code: int, kind: str) -> None:
    assert "plain" == provisioner.accelerator()
    program(host / "bin" / "nvidia-smi", f"exit {code}")

    assert kind == provisioner.accelerator()


def test_the_accelerators_extra_is_named_beside_those_of_the_settings(
    host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (host / "pyproject.toml").write_text(PYPROJECT)
    program(host / "bin" / "nvidia-smi", "exit 0")

    wanted = provisioner.wanted({"extras": ["test"], "python": sys.executable})

    assert {
        "accelerator": "cuda",
        "extras": ["cuda", "test"],
        "files": {"pyproject.toml": hashlib.sha256(PYPROJECT.encode()).hexdigest()},
        "project": str(host),
        "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
    } == wanted
    assert "cuda host; extras: cuda, test\n" == capsys.readouterr().out


def test_uv_is_found_where_its_installer_puts_it(host: Path) -> None:
    assert None is provisioner.find_uv()
    program(host / ".local" / "bin" / "uv", "exit 0")

    assert str(host / ".local" / "bin" / "uv") == provisioner.find_uv()


def test_changes_are_told_by_name() -> None:
    before = {"extras": [], "files": {"gone": "1", "same": "1", "edited": "1"}, "python": "3.10"}
    goal = {"extras": ["test"], "files": {"new": "1", "same": "1", "edited": "2"}, "python": "3.11"}

    assert ["extras none -> test", "edited", "gone", "new", "python 3.10 -> 3.11"] == provisioner.changes(
        before, goal
    )


def test_an_interpreter_that_does_not_start_is_named(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        provisioner.version_of(str(host / "python9"))

    assert (69, True) == (raised.value.code, f"{host}/python9 does not start" in capsys.readouterr().err)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (["setuptools"], "setuptools.build_meta")),
        ("[project]\nrequires = ['x']\n", (["setuptools"], "setuptools.build_meta")),
        (
            '[build-system]\nrequires = ["hatchling>=1.26"]\nbuild-backend = "hatchling.build"\n[project]\n',
            (["hatchling"], "hatchling.build"),
        ),
        (
            "[project]\nname = 'p'\n[build-system]\nbuild-backend = 'a.b'\n# requires = ['no']\n"
            "requires = [\n    'a[x]~=1',\n    \"b.c @ https://x/[1]\", # it\n"
            "    'd; python_version < \"3\"',\n]\n",
            (["a", "b.c"], "a.b"),
        ),
        ("[build-system]\nrequires = []\nbuild-backend = 'own'\nbackend-path = ['.']\n", ([], "")),
    ],
)
def test_what_builds_a_project_is_read_without_a_toml_parser(
    text: str, expected: tuple[list[str], str]
) -> None:
    assert expected == provisioner.build_system(text)
