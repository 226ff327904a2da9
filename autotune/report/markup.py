"""Build HTML and SVG: text that is not `Markup` is escaped, so it cannot become markup."""

from __future__ import annotations

from html import escape

from autotune.report.visible import visible

VOID = frozenset({"meta", "br", "hr", "link"})


class Markup(str):
    """Text that is markup already; only `element`, `joined` and literals in this package make it."""

    __slots__ = ()


def element(tag: str, *children: str, **attributes: str | float) -> Markup:
    """Return `<tag attributes>children</tag>`.

    Args:
        tag: the element's name.
        children: `Markup` is kept as it is; other text is escaped, and control characters become visible.
        attributes: values are escaped; `class_` means `class`, and other underscores are dashes.
    """
    opening = "".join(f' {_attribute(name)}="{_escaped(str(value))}"' for name, value in attributes.items())
    if tag in VOID:
        return Markup(f"<{tag}{opening}>")
    return Markup(f"<{tag}{opening}>{joined(*children)}</{tag}>")


def joined(*parts: str) -> Markup:
    """Return the parts one after the other, escaped as `element` does."""
    return Markup("".join(part if isinstance(part, Markup) else _escaped(part) for part in parts))


def _attribute(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _escaped(text: str) -> str:
    return escape(visible(text, keep="\n\t"), quote=True)
