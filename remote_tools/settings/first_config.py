"""Write a first `.remote_config`: the questions and defaults of `inv init`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from glob import glob
from pathlib import Path

from remote_tools.errors import TransferError, UsageError
from remote_tools.settings.whole_file import FOR_ALL, write_whole

NAMES = {"host": "REMOTE_HOST", "code_path": "REMOTE_CODE_PATH", "venv_path": "REMOTE_VENV_PATH"}
Ask = Callable[[str], str]


def aliases(config: Path) -> list[str]:
    """Return the hosts of an ssh_config and the files that it includes, without patterns."""
    found = dict.fromkeys(_aliases(config, depth=0))
    return list(found)


def _aliases(config: Path, depth: int) -> Iterator[str]:
    try:
        lines = config.read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        keyword, _, rest = line.strip().replace("=", " ", 1).partition(" ")
        words = rest.replace('"', "").split()
        if keyword.lower() == "host":
            yield from (word for word in words if not set(word) & set("*?!"))
        elif keyword.lower() == "include" and depth < 16:  # readconf.c: READCONF_MAX_DEPTH
            for word in words:
                # Relative paths are below ~/.ssh, whichever file includes them (ssh_config(5), Include).
                pattern = os.path.join(Path.home() / ".ssh", os.path.expanduser(word))  # noqa: PTH111,PTH118
                for path in sorted(glob(pattern)):  # noqa: PTH207
                    yield from _aliases(Path(path), depth + 1)


def ask_for(given: dict[str, str | None], known: list[str], project: str, ask: Ask | None) -> dict[str, str]:
    """Return host, code path and venv path: from flags, else from the user, else the defaults.

    Args:
        given: the flags' values.
        known: aliases to offer.
        project: the folder's name, for the default code path.
        ask: asks the user a question; None if there is no terminal.

    Raises:
        UsageError: no host was given.
    """
    defaults = {"host": known[0] if len(known) == 1 else "", "code_path": f"~/{project}", "venv_path": ""}
    questions = {
        "host": "Host" + (f" ({', '.join(known)})" if known else ""),
        "code_path": "Folder on the host for the code",
        "venv_path": "Virtual environment on the host (empty: none)",
    }
    answers = {}
    for name, question in questions.items():
        answer = given[name]
        if answer is None and ask is not None:
            default = f" [{defaults[name]}]" if defaults[name] else ""
            answer = ask(f"{question}{default}: ").strip()
        answers[name] = answer or defaults[name]
    if not answers["host"]:
        raise UsageError("init", "no host", "inv init --host NAME")
    return answers


def write(path: Path, answers: dict[str, str]) -> str:
    """Write the file, and rename an existing one; return a message.

    Raises:
        TransferError: the file cannot be written.
    """
    text = "".join(f"{NAMES[name]}={_quoted(value)}\n" for name, value in answers.items() if value)
    kept = ""
    try:
        if path.exists():
            beside = path.with_name(f"{path.name}.{time.strftime('%Y%m%d-%H%M%S')}")
            path.rename(beside)
            kept = f"; the old file is now {beside.name}"
        write_whole(path, text.encode(), FOR_ALL)
    except OSError as error:
        raise TransferError("init", f"cannot write {path}: {error.strerror}") from error
    return f"wrote {path}{kept}"


def _quoted(value: str) -> str:
    plain = all(letter.isalnum() or letter in "~/._-@:+" for letter in value)
    return value if plain else "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
