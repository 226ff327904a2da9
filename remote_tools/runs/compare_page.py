"""The comparison as one HTML file: no script, nothing loaded, every text from a host escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from remote_tools.runs.compare import Ratio, Row, Side, closing
from remote_tools.runs.summaries import Best

WIDTH, HEIGHT = 160, 18
"""Of an interval's drawing, in CSS pixels."""

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --faster: #1a7f37; --slower: #cf222e; --same: #888; }
@media (prefers-color-scheme: dark) { :root { --faster: #3fb950; --slower: #ff7b72; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 78rem; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .8rem; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
small, .same { color: var(--same); } .faster { color: var(--faster); } .slower { color: var(--slower); }
svg { vertical-align: middle; } svg .faster { stroke: var(--faster); fill: var(--faster); }
svg .slower { stroke: var(--slower); fill: var(--slower); }
svg .same { stroke: var(--same); fill: var(--same); }
"""
_NOTE = (
    "A ratio is the first one's time divided by the other's: above 1 the other is faster. Its 95 % interval "
    "joins those of both medians; where it holds 1 the two are the same. It knows the noise within a "
    "measurement, and nothing of what changed on a machine between two."
)


def page(sides: Sequence[Side], rows: Sequence[Row], made_at: str) -> str:
    """Write the page.

    Args:
        sides: what is compared, the first being what the others are compared with.
        rows: the workloads.
        made_at: when, in words.
    """
    title = escape(" / ".join(each.name for each in sides))
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    reach = max(
        (abs(math.log(bound)) for row in rows for one in row.ratios if one for bound in (one.low, one.high)),
        default=1,
    )
    head = "".join(f"<th>{escape(each.name)}</th>" for each in sides)
    head += "".join(
        f"<th colspan=2>{escape(each.name)} to {escape(sides[0].name)}</th>" for each in sides[1:]
    )
    body = "\n".join(_row(row, max(reach, 0.01)) for row in rows)
    about = "".join(f"<dt><b>{escape(each.name)}</b></dt><dd>{escape(each.about)}</dd>" for each in sides)
    lines = "".join(f"<li>{escape(line)}</li>" for line in closing(sides, rows))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<style>{_STYLE}</style></head>
<body><h1>{title}</h1><p><small>{escape(made_at)}</small></p>
<dl>{about}</dl><ul>{lines}</ul>
<div class="wide"><table><thead><tr><th>kernel</th><th>shapes</th>{head}</tr></thead><tbody>
{body}
</tbody></table></div><p><small>{_NOTE}</small></p></body></html>
"""


def _row(row: Row, reach: float) -> str:
    cells = "".join(f"<td>{_best(best)}</td>" for best in row.best)
    cells += "".join(_ratio(one, reach) for one in row.ratios)
    return f"<tr><td>{escape(row.kernel)}</td><td>{escape(row.shapes)}</td>{cells}</tr>"


def _best(best: Best | None) -> str:
    if best is None:
        return "<small>none</small>"
    rate = f" <small>{best.gflops:.4g} GFLOP/s</small>" if best.gflops else ""
    return f'<span title="{escape(best.config)}">{best.median_ms:.4g} ms{rate}</span>'


def _ratio(one: Ratio | None, reach: float) -> str:
    if one is None:
        return "<td></td><td></td>"
    return f'<td class="{one.verdict}">{escape(str(one))} {one.verdict}</td><td>{_drawing(one, reach)}</td>'


def _drawing(one: Ratio, reach: float) -> str:
    """Draw an interval on a logarithmic axis with 1 in its middle; `reach` is its half width."""
    low, value, high = (WIDTH / 2 * (1 + 0.95 * math.log(x) / reach) for x in (one.low, one.value, one.high))
    middle = HEIGHT / 2
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{one.verdict}">'
        f'<line x1="{WIDTH / 2}" x2="{WIDTH / 2}" y1="0" y2="{HEIGHT}" stroke="currentColor" opacity=".3"/>'
        f'<g class="{one.verdict}"><line x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"'
        f' stroke-width="3"/><circle cx="{value:.1f}" cy="{middle}" r="4"/></g></svg>'
    )
