"""Make text from another machine safe to show: it cannot move the cursor, change colours or hide text."""

from __future__ import annotations

_ASCII_STAND_INS = str.maketrans(
    {"×": "x", "·": "-", "…": "...", "–": "-", "µ": "u", "≥": ">=", "⚠": "!", "★": "*"}
)


def visible(text: str, keep: str = "") -> str:
    r"""Replace every character that is not printable by its escape (`\x1b`, `\u202e`, `\ud800`).

    Among the characters that are not printable for `str.isprintable` are those that control terminals (C0 and
    C1), reorder text (bidirectional overrides), cannot be encoded (lone surrogates) or have no width.

    Args:
        text: from a cache, a log or a compiler.
        keep: characters to leave unchanged, such as a log's newlines.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def encodable(text: str, encoding: str) -> str:
    """Replace characters that `encoding` lacks: our own signs by similar ones, all others by escapes."""
    if encoding.lower().replace("-", "").startswith("utf"):
        return text
    return text.translate(_ASCII_STAND_INS).encode(encoding, "backslashreplace").decode(encoding)
