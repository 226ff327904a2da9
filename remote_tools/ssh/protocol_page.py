"""Generate the tables of docs/protocol.md from `messages`: python -m remote_tools.ssh.protocol_page."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, is_typeddict

from remote_tools.host import messages
from remote_tools.host.messages import FRAMES, Op

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"
_TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_KEY = re.compile(r"(\w+): (.*)")


def page(text: str) -> str:
    """Return the page with new tables."""
    tables = {"frames": _frames, "requests": _requests, "messages": _messages}
    return _TABLE.sub(lambda found: "\n".join([found[1], *tables[found[2]](), "", found[3]]), text)


def types() -> dict[str, Any]:
    """Return the message types by name, in the order of the source."""
    found = {name: each for name, each in vars(messages).items() if is_typeddict(each)}
    return {name: each for name, each in found.items() if not name.startswith("_")}


def ops() -> Iterator[tuple[Op[Any, Any], str, str]]:
    """Yield every operation with the type names of its parameters and its reply."""
    for name, kind in inspect.get_annotations(messages).items():
        found = re.fullmatch(r"Op\[(\w+), (\w+)\]", str(kind))
        if found:
            yield vars(messages)[name], found[1], found[2]


def members(name: str) -> list[str]:
    """Return the type names in a union, or the name itself."""
    union = getattr(vars(messages)[name], "__args__", ())
    return [each.__name__ for each in union] or [name]


def keys(kind: type) -> dict[str, str]:
    """Return the descriptions of a message's own keys, from its docstring."""
    found: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(kind.__doc__ or "").partition("\nArgs:\n")[2].splitlines():
        key = _KEY.fullmatch(line.removeprefix("    "))
        if key:
            name = key[1]
            found[name] = key[2]
        else:
            found[name] += " " + line.strip()
    return found


def bases() -> dict[str, list[str]]:
    """Return the base types of each message; a TypedDict does not keep them before Python 3.12."""
    classes = [each for each in ast.parse(inspect.getsource(messages)).body if isinstance(each, ast.ClassDef)]
    return {each.name: [base.id for base in each.bases if isinstance(base, ast.Name)] for each in classes}


def _frames() -> Iterator[str]:
    yield "| kind | name | to the | payload |"
    yield "|---|---|---|---|"
    for frame in FRAMES:
        yield f"| `{frame.kind.decode()}` | {frame.name} | {frame.to} | {frame.payload} |"


def _requests() -> Iterator[str]:
    yield "| op | params | reply | what it does |"
    yield "|---|---|---|---|"
    for op, params, reply in ops():
        links = [" or ".join(map(_link, members(name))) for name in (params, reply)]
        yield f"| `{op.name}` | {links[0]} | {links[1]} | {op.about} |"


def _messages() -> Iterator[str]:
    extended = bases()
    for name, kind in types().items():
        yield f"### {name}"
        yield ""
        more = [_link(base) for base in extended[name] if base in types()]
        yield kind.__doc__.splitlines()[0] + (f" Has the keys of {' and '.join(more)} too." if more else "")
        yield ""
        if not keys(kind):
            continue
        yield "| key | type | meaning |"
        yield "|---|---|---|"
        for key, about in keys(kind).items():
            holds = kind.__annotations__[key]
            text = getattr(holds, "__forward_arg__", None) or holds.__name__
            missing = "" if key in kind.__required_keys__ else ", may be missing"
            yield f"| `{key}` | `{text.replace('| None', 'or null')}`{missing} | {about.rstrip('.')} |"
        yield ""


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
