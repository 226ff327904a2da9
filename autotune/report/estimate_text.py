"""An estimate in the terminal: how long, what to do next, where the time goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from autotune.nki.timing.advice import advice
from autotune.nki.timing.estimates import Estimate
from autotune.report.lane_names import NAMES

STEPS = 8
"""Lines of the critical path that are printed."""


def estimate_lines(estimate: Estimate) -> Iterator[str]:
    """Yield the lines that a terminal shows."""
    yield str(estimate)
    use = ", ".join(f"{NAMES[name]} {busy:.0%}" for name, busy in estimate.engines.items())
    yield f"busy: {use}, DMA {estimate.dma.busy:.0%}"
    yield (
        f"SBUF {estimate.peak_sbuf_bytes / 2**20:,.2f} of {estimate.sbuf_bytes / 2**20:,.0f} MiB, "
        f"PSUM {estimate.peak_psum_bytes / 2**20:,.2f} of {estimate.psum_bytes / 2**20:,.0f} MiB at the peak"
    )
    yield ""
    yield "what to do next:"
    for point in advice(estimate):
        about = f"{point.us:>10,.1f} us  " if point.us else "  "
        yield f"{about}{point.text}{f' ({_where(point.line)})' if point.line else ''}"
    yield ""
    yield "where the time goes:"
    for step in estimate.critical_path[:STEPS]:
        yield (
            f"{step.work_us:>10,.1f} us  {step.name} on {NAMES[step.lane]}, {step.times:,} times, "
            f"and {step.wait_us:,.1f} us until it is seen ({_where(step.line)})"
        )


def _where(line: tuple[str, int]) -> str:
    return f"{PurePath(line[0]).name}:{line[1]}"
