"""Show text that is not ours: a host's, a file's, another user's.

A terminal obeys control characters: they move the cursor, set its title, write to the clipboard. Here they
become text, where a line is printed and where an error is made. A run's own output stays as it is.
"""

from __future__ import annotations


def escaped(text: str) -> str:
    """Return text whose unprintable characters are written as in Python (`\\x1b`); newlines stay."""
    return text if text.isprintable() else "\n".join(map(one_line, text.split("\n")))


def one_line(text: str) -> str:
    """Return text as one printable line: newlines are written as `\\n`."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
