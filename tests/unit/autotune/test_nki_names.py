"""Every documented name of nki.isa and nki.language is there, with its parameters."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from autotune.nki import isa, language
from autotune.nki.activate import _modules

NAMES = json.loads((Path(__file__).parent / "nki_names.json").read_text())
SPACES = {"isa": isa, "language": language}


def parameters(function: Any) -> list[str]:
    """List the parameters of a function, marked as the table marks them."""
    return [
        each.name + ("" if each.default is each.empty else "=")
        for each in inspect.signature(function).parameters.values()
        if each.name != "self"
    ]


@pytest.mark.parametrize("space", SPACES)
def test_functions_have_the_documented_parameters(space: str) -> None:
    module = SPACES[space]
    expected = NAMES[space]["functions"]
    assert expected == {name: parameters(getattr(module, name)) for name in expected}


@pytest.mark.parametrize("space", SPACES)
def test_constants_and_classes_are_there(space: str) -> None:
    module = SPACES[space]
    wanted = {*NAMES[space]["names"], *NAMES[space]["classes"]} - {"DType"}
    assert set() == {name for name in wanted if not hasattr(module, name)}


@pytest.mark.parametrize("space", SPACES)
def test_classes_have_the_documented_members(space: str) -> None:
    for name, members in NAMES[space]["classes"].items():
        found = getattr(SPACES[space], name)
        for attribute in members.get("attributes", ()):
            assert hasattr(found, attribute) or attribute in inspect.get_annotations(found), (name, attribute)
        methods = members.get("methods", {})
        assert methods == {each: parameters(getattr(found, each)) for each in methods}


@pytest.mark.parametrize("space", SPACES)
def test_documented_functions_say_what_they_do(space: str) -> None:
    module = SPACES[space]
    assert [] == [name for name in NAMES[space]["functions"] if not getattr(module, name).__doc__]


def test_the_page_of_functions_names_each_of_them() -> None:
    page = (Path(__file__).parents[3] / "docs/nki-functions.md").read_text()
    assert [] == [name for space in SPACES for name in NAMES[space]["functions"] if f"`{name}`" not in page]
    assert all(f"all {len(NAMES[space]['functions'])}" in page.lower() for space in SPACES)


def test_collectives_say_that_they_are_not_here() -> None:
    collectives = _modules()["nki.collectives"]
    with pytest.raises(Exception, match=r"nki\.collectives\.all_reduce is not in this interpreter.*https://"):
        collectives.all_reduce(srcs=[], dsts=[])


def test_removed_names_are_said_to_be_removed() -> None:
    with pytest.raises(AttributeError, match="NKI removed it before"):
        _ = language.mgrid
