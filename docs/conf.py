"""How Sphinx builds the site: `inv docs`."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref

import autotune

project = "remote-autotune"
author = "the authors of remote-autotune"
copyright = f"2026, {author}"
version = release = autotune.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
nitpicky = True  # an unknown name is an error, as a broken link is
default_role = "code"  # docstrings write `name`, as Markdown does
smartquotes = False  # would turn -- into a dash
highlight_language = "text"
pygments_style = "friendly"
pygments_dark_style = "github-dark"

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
python_maximum_signature_line_length = 88
toc_object_entries = False  # the page's own headings are enough

myst_heading_anchors = 3

html_theme = "furo"
html_title = f"remote-autotune {release}"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_use_index = html_domain_indices = False  # the Python API is one page
html_show_sourcelink = False


def qualify(app: Any, doctree: Any) -> None:
    """Give types and exceptions the full name that their package has them under on this page.

    A module may take a name from another module, and both packages have a `UsageError`.
    """
    known = app.env.get_domain("py").objects
    for node in doctree.findall(pending_xref):
        package, name = (node.get("py:module") or "").partition(".")[0], node["reftarget"].rpartition(".")[2]
        here = [each for each in known if each.startswith(f"{package}.") and each.endswith(f".{name}")]
        if here and node["reftype"] in ("class", "exc"):
            node["reftarget"], node["refspecific"] = here[0], False


def allow_types(_app: Any, _env: Any, node: Any, text: Any) -> Any:
    """Leave a type that is not on the site as plain text; any other unknown name is an error."""
    return text if node.get("reftype") == "class" else None


def edit_docstring(_app: Any, what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """Leave out what a module says of itself, which the page says, and keep a property's first line whole."""
    if what == "module":
        lines.clear()
    elif what == "property" and lines:  # Napoleon would read `words: more words` as its type
        lines[:1] = lines[0].replace(": ", ":\n").split("\n")


def edit_signature(_app: Any, _what: str, _name: str, obj: Any, _options: Any, *_: Any) -> Any:
    """Show no arguments for a protocol: it is implemented, not called."""
    return ("", "") if getattr(obj, "_is_protocol", False) else None


def edit_dashes(_app: Any, doctree: Any, _page: str) -> None:
    """Put a dash between a parameter and its description, where Sphinx writes --."""
    for field in doctree.findall(nodes.field_body):
        for text in list(field.findall(nodes.Text)):
            if text.astext() == " -- ":
                text.parent.replace(text, nodes.Text(" – "))


def setup(app: Any) -> None:
    """Register the functions above with Sphinx."""
    app.connect("doctree-read", qualify)
    app.connect("missing-reference", allow_types)
    app.connect("autodoc-process-docstring", edit_docstring, priority=100)
    app.connect("autodoc-process-signature", edit_signature)
    app.connect("doctree-resolved", edit_dashes)
