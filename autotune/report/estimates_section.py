"""The estimates of a cache as a section of the page, apart from what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autotune.estimating.store import Kept
from autotune.nki.timing.estimates import DISCLAIMER
from autotune.report.document import cell, heading
from autotune.report.markup import Markup, element
from autotune.report.model_error import model_error
from autotune.report.ranking_table import HEADINGS, NUMBERS, endings, fastest, row
from autotune.store.summary import Summary


def estimates_section(every: Sequence[Kept], workloads: Sequence[Summary]) -> Iterator[Markup]:
    """Yield a heading, and a table for each workload; nothing if there are no estimates.

    Args:
        every: the estimates of each workload.
        workloads: what was measured: beside it stands how far the model was off.
    """
    if not every:
        return
    yield element("h2", "Estimates")
    yield element(
        "p", f"Estimated by a model, not measured: {DISCLAIMER}. No ranking mixes them with measurements."
    )
    for kept in every:
        yield element("h3", f"{kept.kernel} · {kept.shapes} · {kept.target}")
        yield element("p", f"{kept.model}; {len(kept.estimates)} configs", class_="note")
        head = element("thead", element("tr", *(heading(name, name in NUMBERS) for name in HEADINGS)))
        rows = [
            element(
                "tr",
                *(
                    cell(name, text, "n" if name in NUMBERS else "")
                    for name, text in zip(HEADINGS, row(each, kept.best), strict=True)
                ),
            )
            for each in fastest(kept)
        ]
        told = (element("p", line, class_="note") for line in endings(kept.estimates))
        yield element(
            "div", element("table", head, element("tbody", *rows), class_="stacked"), *told, class_="card"
        )
        yield from model_error(kept, [each for each in workloads if each.folder == kept.folder])
