"""Who waits for whom in a trace: by the bytes that instructions share, and by the room they need.

Both follow from program order alone: they are found once and priced under every profile. An engine works in
order: of all the instructions of one engine that another waits for, only the last one matters.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

from autotune.nki.trace import HBM, PSUM, SBUF, Region, Trace

Waits = tuple[int, ...]
"""Numbers of instructions."""
Box = tuple[int, int, int, int, int]
"""A region without its tensor: begin, end, low, high, pitch."""


@dataclass
class Room:
    """Say what the tensors of a trace need of SBUF and PSUM, in bytes of one partition.

    Args:
        peak: most bytes alive at once: from a tensor's first use to its last.
        fits: whether that is at most what the core has.
        reused: for an instruction that is the first to use a tensor, the tensors whose place it takes.
    """

    peak: dict[str, int] = field(default_factory=dict)
    fits: bool = True
    reused: dict[int, list[int]] = field(default_factory=dict)


def waits(trace: Trace, engines: Sequence[int], room: Room) -> list[Waits]:
    """Return, for each instruction, the earlier instructions that must be done before it starts.

    A read waits for whoever wrote the bytes (read after write). A write waits for the other engines' earlier
    reads and writes of them (write after read, write after write); the own engine works in order anyway. The
    first use of a tensor waits for the last uses of those whose place it takes. What an engine has waited for
    once is not named again.

    Args:
        engines: for each piece of work of the trace, the engine that does it.
    """
    others = overlaps(trace)
    parts = _parts(trace) if room.reused else []
    writer = [-1] * len(trace.regions)
    writing = [0] * len(trace.regions)
    readers: list[dict[int, int]] = [{} for _ in trace.regions]
    known = [[-1] * (max(engines, default=0) + 1) for _ in range(max(engines, default=0) + 1)]
    found: list[Waits] = []
    for number, (work, reads, writes, _) in enumerate(trace.instructions):
        engine = engines[work]
        mine = known[engine]
        waiting: Waits = ()
        for region in reads:
            group = others[region]
            for other in group:
                before = writer[other]
                if before > mine[writing[other]]:
                    mine[writing[other]] = before
                    waiting += (before,)
            if group:
                readers[region][engine] = number
        for region in writes:
            for other in others[region]:
                before = writer[other]
                if writing[other] != engine and before > mine[writing[other]]:
                    mine[writing[other]] = before
                    waiting += (before,)
                for its, before in readers[other].items():
                    if its != engine and before > mine[its]:
                        mine[its] = before
                        waiting += (before,)
        if number in room.reused:
            for tensor in room.reused[number]:
                for region in parts[tensor]:
                    for its, before in (*readers[region].items(), (writing[region], writer[region])):
                        if its != engine and before > mine[its]:
                            mine[its] = before
                            waiting += (before,)
        for region in writes:
            if others[region]:
                writer[region] = number
                writing[region] = engine
                if readers[region]:
                    readers[region].clear()
        found.append(waiting)
    return found


def _parts(trace: Trace) -> list[list[int]]:
    """Return the regions of each tensor."""
    parts: list[list[int]] = [[] for _ in trace.tensors]
    for number, region in enumerate(trace.regions):
        parts[region.tensor].append(number)
    return parts


def overlaps(trace: Trace) -> list[tuple[int, ...]]:
    """Return, for each region, the regions that share a byte with it, itself among them.

    A region of a tensor in HBM that is only read, or only written, makes nobody wait: it gets none.
    """
    read = {trace.regions[region].tensor for _, reads, _, _ in trace.instructions for region in reads}
    written = {trace.regions[region].tensor for _, _, writes, _ in trace.instructions for region in writes}
    found: list[tuple[int, ...]] = [()] * len(trace.regions)
    patterns: dict[tuple[Box, ...], list[tuple[int, ...]]] = {}
    for tensor, numbers in enumerate(_parts(trace)):
        if trace.tensors[tensor].memory == HBM and not (tensor in read and tensor in written):
            continue
        if len(numbers) == 1:
            found[numbers[0]] = (numbers[0],)
            continue
        alike = tuple([_box(trace.regions[each]) for each in numbers])
        if alike not in patterns:
            patterns[alike] = _sweep(alike)
        for number, pattern in zip(numbers, patterns[alike], strict=True):
            found[number] = tuple([numbers[each] for each in pattern])
    return found


def _box(region: Region) -> Box:
    return region.begin, region.end, region.low, region.high, region.pitch


def _sweep(boxes: Sequence[Box]) -> list[tuple[int, ...]]:
    """Return, for each region of one tensor, the places of those that share a byte with it."""
    places = range(len(boxes))
    if len({pitch for _, _, _, _, pitch in boxes}) > 1:
        return [tuple(each for each in places if share(box, boxes[each])) for box in boxes]
    rows = len({begin for begin, *_ in boxes}) >= len({low for _, _, low, _, _ in boxes})
    start, stop = (0, 1) if rows else (2, 3)  # along the axis that tells most of them apart
    together = [[each] for each in places]
    active: list[int] = []
    for each in sorted(places, key=lambda place: boxes[place][start]):
        active = [other for other in active if boxes[other][stop] > boxes[each][start]]
        for other in active:
            if share(boxes[each], boxes[other]):
                together[each].append(other)
                together[other].append(each)
        active.append(each)
    return [tuple(each) for each in together]


def share(one: Box, other: Box) -> bool:
    """Tell whether two regions of one tensor share a byte; of two pitches, by the whole rows they span."""
    begin, end, low, high, pitch = one
    its_begin, its_end, its_low, its_high, its_pitch = other
    if pitch != its_pitch:
        return begin * pitch < its_end * its_pitch and its_begin * its_pitch < end * pitch
    return begin < its_end and its_begin < end and low < its_high and its_low < high


def place(trace: Trace, capacity: dict[str, int]) -> Room:
    """Give every tensor room in SBUF and PSUM as the compiler may: the place that has been dead for longest.

    The addresses are the compiler's business and are not known; this is how they would be used in turn.
    """
    first, last = _lives(trace)
    room = Room()
    for memory in (SBUF, PSUM):
        tensors = [
            number
            for number, each in enumerate(trace.tensors)
            if each.memory == memory and first[number] >= 0
        ]
        tensors.sort(key=first.__getitem__)
        _peak(trace, tensors, first, last, room, memory, capacity[memory])
        if sum(trace.tensors[each].partition_bytes for each in tensors) > capacity[memory]:
            _reuse(trace, tensors, first, last, room, capacity[memory])
        _share_addresses(trace, tensors, first, last, room)
    return room


def _lives(trace: Trace) -> tuple[list[int], list[int]]:
    """Return the first and the last instruction that uses each tensor, -1 for none."""
    first = [-1] * len(trace.regions)
    last = [-1] * len(trace.regions)
    for number, (_, reads, writes, _) in enumerate(trace.instructions):
        for region in reads + writes:
            last[region] = number
            if first[region] < 0:
                first[region] = number
    begins, ends = [-1] * len(trace.tensors), [-1] * len(trace.tensors)
    for number, (tensor, *_) in enumerate(trace.regions):
        if first[number] >= 0:
            begins[tensor] = first[number] if begins[tensor] < 0 else min(begins[tensor], first[number])
            ends[tensor] = max(ends[tensor], last[number])
    return begins, ends


def _peak(
    trace: Trace, tensors: list[int], first: list[int], last: list[int], room: Room, memory: str, limit: int
) -> None:
    """Find the most bytes of a partition that are alive at once."""
    alive, peak = 0, 0
    ending: list[tuple[int, int]] = []
    for number in tensors:
        size = trace.tensors[number].partition_bytes
        while ending and ending[0][0] < first[number]:
            alive -= heapq.heappop(ending)[1]
        alive += size
        peak = max(peak, alive)
        heapq.heappush(ending, (last[number], size))
    room.peak[memory] = peak
    room.fits = room.fits and peak <= limit


def _reuse(
    trace: Trace, tensors: list[int], first: list[int], last: list[int], room: Room, limit: int
) -> None:
    """Say whose place each tensor takes, once the memory was full for the first time."""
    free = limit
    placed: list[tuple[int, int]] = []
    for number in tensors:
        if trace.tensors[number].start >= 0:
            continue
        free -= trace.tensors[number].partition_bytes
        while free < 0 and placed and placed[0][0] < first[number]:
            _, dead = heapq.heappop(placed)
            free += trace.tensors[dead].partition_bytes
            room.reused.setdefault(first[number], []).append(dead)
        heapq.heappush(placed, (last[number], number))


def _share_addresses(trace: Trace, tensors: list[int], first: list[int], last: list[int], room: Room) -> None:
    """Say whose place each tensor takes that the kernel itself put somewhere."""
    placed: list[int] = []
    for number in tensors:
        tensor = trace.tensors[number]
        if tensor.start < 0:
            continue
        for other in placed:
            before = trace.tensors[other]
            if (
                before.start < tensor.start + tensor.partition_bytes
                and tensor.start < before.start + before.partition_bytes
                and last[other] < first[number]
            ):
                room.reused.setdefault(first[number], []).append(other)
        placed.append(number)
