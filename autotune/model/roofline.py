"""Roofline: the limits of a device, and the times that they rule out."""

from __future__ import annotations

from dataclasses import dataclass

_SLACK = 1.25  # above the measured limits: clocks vary, and so does what the loops that measure them reach


@dataclass(frozen=True)
class Roofline:
    """The limits of a device, with all of its parts busy: measured, or of its data sheet if nobody can.

    Args:
        peak_gflops: of arithmetic on registers, in GFLOP/s.
        bandwidth_gbytes_per_s: of memory, in GB/s; data in the caches can be faster.
        levels: (bytes, GB/s) of arrays that fit into the caches, small ones first; without them no time is
            too short for the bytes that are moved.
        dtype: the element type whose peak it is; no time is too short for arithmetic on others.
        sheet_gflops: the data sheet's dense peak of the outputs' type, of which MFU is a fraction; None if it
            is not known.
    """

    peak_gflops: float
    bandwidth_gbytes_per_s: float
    levels: tuple[tuple[int, float], ...] = ()
    dtype: str = ""
    sheet_gflops: float | None = None

    @property
    def ridge(self) -> float:
        """The FLOP/byte above which arithmetic is the limit, and below which memory is."""
        return self.peak_gflops / self.bandwidth_gbytes_per_s

    def attainable_gflops(self, intensity: float) -> float:
        """Return the most that a kernel of `intensity` FLOP/byte can do."""
        return min(self.peak_gflops, self.bandwidth_gbytes_per_s * intensity)

    def rules_out(self, dtype: str, flops: float | None, bytes_moved: float, median_ms: float) -> str:
        """Return why no kernel on this device can be so fast; empty if one can, or if nobody knows.

        Args:
            dtype: of the outputs.
            flops: of one call, as the kernel says; None if it does not.
            bytes_moved: by one call, as the kernel says.
            median_ms: milliseconds of one call.
        """
        gflops, gbytes_per_s = (flops or 0) / median_ms / 1e6, bytes_moved / median_ms / 1e6
        if dtype == self.dtype and gflops > _SLACK * self.peak_gflops:
            return (
                f"{gflops:.3g} GFLOP/s, and this machine can do {self.peak_gflops:.3g}: either the kernel's "
                "`flops` is wrong, or the work is not done in every call"
            )
        fitting = [rate for size, rate in self.levels if size <= bytes_moved] or [
            each for _, each in self.levels[:1]
        ]
        fastest = max([*fitting[-1:], self.bandwidth_gbytes_per_s])
        if self.levels and gbytes_per_s > _SLACK * fastest:
            return (
                f"{gbytes_per_s:.3g} GB/s, and this machine can move {fastest:.3g} for data of this size: "
                "either the kernel's `bytes_moved` is wrong, or the work is not done in every call"
            )
        return ""
