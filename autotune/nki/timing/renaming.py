"""Give a PSUM tile a new place each time the kernel clears it, as the compiler does if it is told to.

Kernels that are compiled with `enable-linear-scan-allocation=false` were measured as if a tile that is
cleared for the next sum need not wait for the last one to be drained (docs/nki-model.md). By default it
stays in place.
"""

from __future__ import annotations

from autotune.nki.trace import PSUM, Region, Trace


def renamed(trace: Trace) -> Trace:
    """Return the trace with every whole PSUM tile that a memset clears replaced by a tile of its own."""
    whole = _extents(trace)
    out = Trace(trace.target, trace.works, list(trace.tensors), list(trace.regions), trace.lines)
    started: set[int] = set()
    now: dict[int, dict[int, int]] = {}
    tensors: dict[int, int] = {}
    for work, reads, writes, line in trace.instructions:
        if trace.works[work].name == "memset" and trace.regions[writes[0]] in whole:
            tensor = trace.regions[writes[0]].tensor
            if tensor in started:
                tensors[tensor] = len(out.tensors)
                out.tensors.append(trace.tensors[tensor]._replace(first=len(out.instructions)))
                now[tensor] = {}
            started.add(tensor)

        def place(region: int) -> int:
            tensor = trace.regions[region].tensor
            if tensor not in tensors:
                return region
            if region not in now[tensor]:
                now[tensor][region] = len(out.regions)
                out.regions.append(trace.regions[region]._replace(tensor=tensors[tensor]))
            return now[tensor][region]

        out.instructions.append((work, tuple(map(place, reads)), tuple(map(place, writes)), line))
    return out


def _extents(trace: Trace) -> set[Region]:
    """Return, for each PSUM tensor, the region that covers all others of it."""
    found: dict[int, Region] = {}
    for region in trace.regions:
        if trace.tensors[region.tensor].memory == PSUM:
            other = found.get(region.tensor, region)
            found[region.tensor] = Region(
                region.tensor,
                min(region.begin, other.begin),
                max(region.end, other.end),
                min(region.low, other.low),
                max(region.high, other.high),
            )
    return set(found.values())
