"""Peaks of a NeuronCore, from AWS's architecture pages; a logical core has those of its physical cores."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.model.roofline import Roofline


@dataclass(frozen=True)
class _Chip:
    """One generation: dense TFLOP/s and GB/s of a physical core; HBM and cores of a chip.

    `fp8` of trn3 is for MX formats.
    """

    bf16: float
    fp32: float
    fp8: float
    dma_gbytes_per_s: float
    hbm_gbytes_per_s: float
    cores: int


_CHIPS = {
    "trn1": _Chip(92, 23, 92, 272, 820, 2),
    "trn2": _Chip(79, 20, 158, 368, 2900, 8),
    "trn3": _Chip(79, 20, 315, 528, 4700, 8),
}
TARGETS = tuple(_CHIPS)
_KINDS = {"bfloat16": "bf16", "float16": "bf16", "float32": "fp32"}


def roofline(target: str, logical: int, dtype: str) -> Roofline | None:
    """Return the limits of one logical core.

    The bandwidth is the least of its DMA engines' and its share of the chip's HBM. No time is ruled out by
    arithmetic: a kernel may compute in bfloat16 and write float32, whose peak is another.

    Args:
        target: trn1, trn2 or trn3.
        logical: physical cores of a logical one.
        dtype: of the outputs; None is returned for one without a peak.
    """
    kind = "fp8" if dtype.startswith("float8") else _KINDS.get(dtype)
    if kind is None:
        return None
    chip = _CHIPS[target]
    gflops = getattr(chip, kind) * 1000.0 * logical
    bandwidth = min(chip.dma_gbytes_per_s, chip.hbm_gbytes_per_s / chip.cores) * logical
    return Roofline(gflops, bandwidth, sheet_gflops=gflops)
