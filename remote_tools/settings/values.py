"""Parse and check the value of a setting."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from remote_tools.settings.option_grammar import RSYNC, SSH, Grammar, refusal


@dataclass(frozen=True)
class Kind:
    """A type of values.

    Args:
        name: the type's name, for people.
        parse: returns the parsed value; raises ValueError with a message for the user.
    """

    name: str
    parse: Callable[[object], Any]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text; put it in quotes")  # noqa: TRY004  # one error for every wrong value
    if any(letter < " " or "\x7f" <= letter < "\xa0" for letter in value):
        raise ValueError(f"{value!r} holds a control character")
    return value


def _host(value: object) -> str:
    name = _text(value)
    # ssh would take -x for an option; a host's name is also the name of its folder of results.
    if name.startswith(("-", ".")) or "/" in name or " " in name:
        raise ValueError(f"{name!r} is not a host name, an alias or user@host")
    return name


def _path(value: object) -> str:
    path = _text(value)
    if path.startswith("$"):
        raise ValueError(f"{path!r}: variables are not expanded; write ~ for the home folder")
    return path


def _filled(value: object) -> str:
    if not (path := _path(value)):
        raise ValueError("is empty")
    return path


def _words(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError(f"{value!r} holds a control character")
        return tuple(shlex.split(value))
    if isinstance(value, (list, tuple)):
        return tuple(_text(word) for word in value)
    raise ValueError(f"{value!r} is neither a list nor words as a shell would split them")


def _options(value: object, grammar: Grammar) -> tuple[str, ...]:
    words = _words(value)
    if refused := refusal(words, grammar):
        raise ValueError(refused)
    return words


def _flag(value: object) -> bool:
    truth = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }
    if (word := str(value).lower()) not in truth:
        raise ValueError(f"{value!r} is neither true nor false")
    return truth[word]


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return math.nan
    try:
        return float(value)
    except ValueError:
        return math.nan


def _seconds(value: object) -> float:
    seconds = _number(value)
    if not 0 < seconds < math.inf:
        raise ValueError(f"{value!r} is not a number of seconds above 0")
    return seconds


def _count(value: object) -> int:
    number = _number(value)
    if not (1 <= number < math.inf and number.is_integer()):
        raise ValueError(f"{value!r} is not a whole number above 0")
    return int(number)


def _groups(value: object) -> Mapping[str, tuple[str, ...]]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{value!r} is not a mapping of hosts and groups")  # noqa: TRY004  # as above
    return {
        _host(name): (name,) if entry is None or isinstance(entry, Mapping) else _words(entry)
        for name, entry in value.items()
    }


TEXT = Kind("text", lambda value: _text(value) or None)
HOST = Kind("text", _host)
HOST_PATH = Kind("path on the host", _path)
OPTIONAL_HOST_PATH = Kind("path on the host", lambda value: _path(value) or None)
FILLED_HOST_PATH = Kind("path on the host", _filled)
LOCAL_PATH = Kind("path here", _filled)
PATTERNS = Kind("patterns", _words)
WORDS = Kind("words", _words)
RSYNC_WORDS = Kind("words", lambda value: _options(value, RSYNC))
SSH_WORDS = Kind("words", lambda value: _options(value, SSH))
SECONDS = Kind("seconds", _seconds)
WHOLE_SECONDS = Kind("whole seconds", _count)
COUNT = Kind("whole number", _count)
FLAG = Kind("true or false", _flag)
HOSTS = Kind("mapping", _groups)
