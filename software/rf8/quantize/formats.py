"""Number formats that RF8 is compared with, as the values that weights take in them.

Each function maps weights float32 [N, K] to the nearest values of a format, float32 [N, K]; a row
has one scale unless said otherwise. Errors are ValueErrors of `golden.format` or none: the weights
come from a checked model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

GROUP = 64  # columns that share a scale in int4-group


def integer(weights: Tensor, bits: int, group: int | None = None) -> Tensor:
    """Symmetric integers of ``bits`` bits; one scale a row, or a row and ``group`` columns."""
    top = 2 ** (bits - 1) - 1
    width = weights.shape[1] if group is None else group
    result = torch.empty_like(weights)
    for first in range(0, weights.shape[1], width):
        part = weights[:, first : first + width]
        scale = part.abs().amax(dim=1, keepdim=True).clamp(min=1e-30) / top
        result[:, first : first + width] = (part / scale).round().clamp(-top, top) * scale
    return result


def float8(weights: Tensor, dtype: torch.dtype) -> Tensor:
    """An 8-bit float whose largest value is the row's."""
    scale = weights.abs().amax(dim=1, keepdim=True).clamp(min=1e-30) / torch.finfo(dtype).max
    return (weights / scale).to(dtype).float() * scale


def power_of_two(weights: Tensor) -> Tensor:
    """One signed power of two, or zero: 16 exponents down from that of the row's largest."""
    magnitude = weights.abs()
    fraction, exponent = torch.frexp(magnitude)  # fraction in [1/2, 1)
    exponent = exponent - (fraction < 0.75).int()  # to the nearer of 2^(e-1) and 2^e
    top = torch.where(magnitude > 0, exponent, -1000).amax(dim=1, keepdim=True)
    values = torch.ldexp(torch.ones_like(weights), exponent) * weights.sign()
    return torch.where((magnitude > 0) & (exponent > top - 16), values, 0.0)


@dataclass(frozen=True)
class Format:
    """``bits``: of a weight alone. ``scale_bits``: of a scale, one per ``group`` weights of a row,
    or one per row where None."""

    title: str
    bits: int
    scale_bits: int
    group: int | None
    values: Callable[[Tensor], Tensor]


FORMATS = {
    "int8": Format("INT8", 8, 16, None, lambda w: integer(w, 8)),
    "int4-group": Format(f"INT4, groups of {GROUP}", 4, 16, GROUP, lambda w: integer(w, 4, GROUP)),
    "int4": Format("INT4", 4, 16, None, lambda w: integer(w, 4)),
    "e4m3": Format("FP8 E4M3", 8, 16, None, lambda w: float8(w, torch.float8_e4m3fn)),
    "e5m2": Format("FP8 E5M2", 8, 16, None, lambda w: float8(w, torch.float8_e5m2)),
    "pot": Format("power of two", 5, 8, None, power_of_two),
}
