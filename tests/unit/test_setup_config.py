"""The first `.remote_config`: what is offered, asked and written."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from remote_tools.errors import TransferError, UsageError
from remote_tools.settings import first_config

NOTHING: dict[str, str | None] = {"host": None, "code_path": None, "venv_path": None}


def test_aliases_are_hosts_without_patterns_in_order(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        'host=first\n  HostName x\nHost second "third" *.in !no web?\nMatch host y\nHost first\n#Host no\n'
    )

    assert ["first", "second", "third"] == first_config.aliases(config)


def test_aliases_of_included_files_stand_where_they_are_included(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh" / "d").mkdir(parents=True)
    (tmp_path / ".ssh" / "config").write_text("Host a\nInclude d/* ~/.ssh/config\nHost z\n")
    (tmp_path / ".ssh" / "d" / "one").write_text("Host b\n")

    assert ["a", "b", "z"] == first_config.aliases(tmp_path / ".ssh" / "config")


def test_no_configuration_offers_nothing(tmp_path: Path) -> None:
    assert [] == first_config.aliases(tmp_path / "config")


def test_what_a_flag_says_is_not_asked() -> None:
    asked: list[str] = []

    answers = first_config.ask_for(
        {**NOTHING, "host": "trn1"}, ["trn1", "trn2"], "kernels", lambda text: asked.append(text) or ""
    )

    assert {"host": "trn1", "code_path": "~/kernels", "venv_path": ""} == answers
    assert [
        "Folder on the host for the code [~/kernels]: ",
        "Virtual environment on the host (empty: none): ",
    ] == asked


def test_the_only_alias_is_the_default_where_nobody_can_be_asked() -> None:
    assert "trn1" == first_config.ask_for(NOTHING, ["trn1"], "kernels", None)["host"]
    with pytest.raises(UsageError, match="inv init --host NAME"):
        first_config.ask_for(NOTHING, ["trn1", "trn2"], "kernels", None)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_a_value_is_read_back_as_it_was_written(value: str) -> None:
    line = f"NAME={first_config._quoted(value)}\n"

    assert {"NAME": value} == dotenv_values(stream=StringIO(line), interpolate=False)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="cannot write"):
        first_config.write(tmp_path / "missing" / ".remote_config", {"host": "trn1"})
