"""Match paths against the patterns of gitignore(5)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

EDITORS = re.compile(
    rb"(?:^|/)(?:\.#[^/]*|#[^/]+#|\.[^/]*\.sw[a-z]|[^/]+~|4913|\.DS_Store|\.flycheck_[^/]*)$"
)
"""Files that editors keep beside the one that is edited: swap files, locks, backups."""


class Rules:
    """Decide by path what is left out; decisions about folders are cached."""

    def __init__(self, exclude: Sequence[str], include: Sequence[str], never: Sequence[str]) -> None:
        """Compile the patterns."""
        self._exclude, self._include, self._never = map(compile_patterns, (exclude, include, never))
        self.including = bool(include)
        self._folders: dict[bytes, tuple[bool, bool, bool]] = {b"": (False, False, False)}

    def folder(self, path: bytes) -> tuple[bool, bool, bool]:
        """Return (never sent, included, excluded) for a folder; each is inherited from its parents."""
        known = self._folders.get(path)
        if known is None:
            never, include, exclude = self.folder(path.rpartition(b"/")[0])
            known = self._folders[path] = (
                never or self._never(path, True),
                include or self._include(path, True),
                exclude or self._exclude(path, True),
            )
        return known

    def drops(self, path: bytes) -> bool:
        """Return whether a file is left out."""
        never, include, exclude = self.folder(path.rpartition(b"/")[0])
        if never or self._never(path, False):
            return True
        if self.including and (include or self._include(path, False)):
            return False
        return exclude or self._exclude(path, False)

    def adds(self, path: bytes) -> bool:
        """Return whether a file is sent although git ignores it."""
        never, include, _ = self.folder(path.rpartition(b"/")[0])
        return not never and not self._never(path, False) and (include or self._include(path, False))

    def prunes(self, folder: bytes) -> bool:
        """Return whether nothing below a folder can be sent."""
        never, _, exclude = self.folder(folder)
        return never or (exclude and not self.including)


def literal(path: Path) -> str:
    """Return the pattern that matches only this path below the root."""
    return "/" + str(path).translate({ord(letter): f"[{letter}]" for letter in "*?[\\"})


def compile_patterns(patterns: Sequence[str]) -> Callable[[bytes, bool], bool]:
    """Return a function of (path, is a folder) that is true if any pattern matches the path itself."""
    sources: dict[tuple[bool, bool], list[str]] = {}
    for pattern in patterns:
        body = pattern.rstrip("/")
        if body:
            kind = ("/" in body, pattern.endswith("/"))
            sources.setdefault(kind, []).append(_regex(body.lstrip("/")))
    by_path, by_name = _any_of(sources.get((True, False))), _any_of(sources.get((False, False)))
    folder_by_path, folder_by_name = _any_of(sources.get((True, True))), _any_of(sources.get((False, True)))

    def matches(path: bytes, is_folder: bool) -> bool:
        name = path.rpartition(b"/")[2]
        if by_name(name) or by_path(path):
            return True
        return is_folder and bool(folder_by_name(name) or folder_by_path(path))

    return matches


def _any_of(sources: Sequence[str] | None) -> Callable[[bytes], object]:
    if not sources:
        return lambda _: None
    return re.compile(os.fsencode("|".join(f"(?:{source})" for source in sources)), re.DOTALL).fullmatch


def _regex(pattern: str) -> str:
    """Translate a glob of gitignore(5) to a regular expression."""
    out, i = "", 0
    while i < len(pattern):
        rest = pattern[i:]
        bracket = re.match(r"\[([!^]?)(\]?[^\]]*)\]", rest, re.DOTALL)
        if rest.startswith("**/"):
            out, i = out + "(?:.*/)?", i + 3
        elif rest.startswith("**"):
            out, i = out + ".*", i + 2
        elif rest[0] in "*?":
            out, i = out + ("[^/]*" if rest[0] == "*" else "[^/]"), i + 1
        elif bracket:
            inside = bracket[2].replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")
            out, i = out + _set(f"[{'^' if bracket[1] else ''}{inside}]"), i + len(bracket[0])
        elif rest[0] == "\\" and len(rest) > 1:
            out, i = out + re.escape(rest[1]), i + 2
        else:
            out, i = out + re.escape(rest[0]), i + 1
    return out


def _set(regex: str) -> str:
    """Return the set, or for git too nothing if it is none, such as `[z-a]`."""
    try:
        re.compile(regex)
    except re.error:
        return "(?!)"
    return regex
