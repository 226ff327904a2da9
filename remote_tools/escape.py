"""Show text that is not ours: a host's, a file's, another user's.

A terminal obeys control characters: they move the cursor, set its title, write to the clipboard. Here they
become text, where a line is printed and where an error is made. A run's own output stays as it is.
"""

from __future__ import annotations


def escaped(text: str, kept: str = "\n\t") -> str:
    """Return text whose unprintable characters are written as in Python (`\\x1b`).

    Args:
        text: the text.
        kept: characters that stay as they are.
    """
    if text.isprintable():
        return text
    plain = (each if each.isprintable() or each in kept else ascii(each)[1:-1] for each in text)
    return "".join(plain)


def one_line(text: str) -> str:
    """Return text as one printable line: newlines are written as `\\n`."""
    return escaped(text, kept="")
