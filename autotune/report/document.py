"""The frame of every page: one HTML file that contains all it needs and loads nothing."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

from autotune.report.markup import Markup, element
from autotune.report.palette import stylesheet

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Even a fault in the escaping could load and run nothing (https://www.w3.org/TR/CSP3/)."""


def document(title: str, *body: str, script: str = "", style: str = "") -> str:
    """Return an HTML document; text in `body` that is not `Markup` is escaped.

    Args:
        script: the one script that the page may run, by its hash; none by default.
        style: more CSS.
    """
    css = files("autotune.report").joinpath("page.css").read_text(encoding="utf-8") + style
    policy = _POLICY
    if script:
        digest = b64encode(sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
        body = (*body, element("script", Markup(script)))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(stylesheet() + css)),
    )
    return "<!doctype html>\n" + element("html", head, element("body", *body), lang="en") + "\n"


def heading(text: str, numeric: bool) -> Markup:
    """Return the head of a column."""
    return element("th", text, class_="n" if numeric else "", scope="col")


def cell(heading: str, content: str, kind: str) -> Markup:
    """Return a cell; a narrow page shows its heading beside it."""
    return element("td", element("span", content), class_=kind, data_heading=heading)
