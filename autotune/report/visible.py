"""Make text from another machine safe to show: nothing in it can move a cursor, recolour a line or hide."""

from __future__ import annotations

_ASCII_STAND_INS = str.maketrans(
    {"×": "x", "·": "-", "…": "...", "–": "-", "µ": "u", "≥": ">=", "⚠": "!", "★": "*"}
)


def visible(text: str, keep: str = "") -> str:
    r"""Replace every character that is not printable by its escape (`\x1b`, `\u202e`, `\ud800`).

    `str.isprintable` refuses what drives terminals (C0 and C1 controls), what reorders text (bidirectional
    overrides), what cannot be encoded (lone surrogates) and what cannot be seen (zero-width characters).

    Args:
        text: from a cache, a log or a compiler.
        keep: characters to leave as they are, such as a log's newlines.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def encodable(text: str, encoding: str) -> str:
    """Replace what `encoding` has no character for: our own signs by look-alikes, the rest by escapes."""
    if encoding.lower().replace("-", "").startswith("utf"):
        return text
    return text.translate(_ASCII_STAND_INS).encode(encoding, "backslashreplace").decode(encoding)
