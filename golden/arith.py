"""Exact integer arithmetic that the accelerator and its golden model share.

Everything here is on integers; floating point is used only as a fast way to compute integers that
it holds exactly, and only after the bound that makes it exact has been checked.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from golden.config import RESULT_BITS

Int64 = NDArray[np.int64]

GUARD_BITS = RESULT_BITS + 2
"""Width to which a scaled dot product saturates before the layer bias is added. Two bits more than
a result: a value beyond them saturates the result whatever the bias."""

EXACT_FLOAT64 = 1 << 53
"""Integers up to this magnitude are exact in float64."""


def saturate(value: Int64, bits: int) -> Int64:
    """Clamp to the two's-complement range of ``bits`` bits (at most 63)."""
    bound = 1 << (bits - 1)
    return np.minimum(np.maximum(value, -bound), bound - 1)


def shift_round_half_even(value: Int64, right: Int64 | int) -> Int64:
    """``value * 2**-right`` rounded to the nearest integer, ties to the even one.

    ``|value| < 2**62``; ``right`` is at least 0 and broadcasts. Rounding is round-half-even as in
    IEEE 754, on two's complement: half a unit is added, less one unless the quotient is odd.
    """
    amount = np.asarray(right, np.int64)
    if amount.size == 1 and (one := int(amount.reshape(()))) <= 62:
        if one == 0:
            return value + np.zeros_like(amount)
        return (value + (((1 << one) >> 1) - 1) + ((value >> one) & 1)) >> amount
    shift = np.minimum(amount, 62)
    shifts = (shift > 0).astype(np.int64)
    odd = (value >> shift) & shifts
    rounded = (value + ((np.int64(1) << shift) >> 1) - shifts + odd) >> shift
    return np.where(amount > 62, np.int64(0), rounded)


def rescale(dot: Int64, scale: Int64 | int, bias: Int64 | int = 0) -> Int64:
    """``round_half_even(dot * 2**scale) + bias``, or, where that is far out of the range of 32
    bits, another value out of it on the same side.

    Parameters
    ----------
    dot: exact dot products, |dot| < 2**62
    scale: exponent, any sign; broadcasts
    bias: int32 values in units of the result; broadcasts
    """
    exponent = np.asarray(scale, np.int64)
    small = saturate(shift_round_half_even(dot, np.maximum(-exponent, 0)), GUARD_BITS)
    if (exponent <= 0).all():
        return small + bias
    # small << 28 stays inside int64; whatever is not zero has left the range after GUARD_BITS more.
    left = np.clip(exponent, 0, GUARD_BITS)
    first = np.minimum(left, 28)
    scaled = saturate(small << first, GUARD_BITS)
    return saturate(scaled << (left - first), GUARD_BITS) + bias


def requantize(dot: Int64, scale: Int64 | int, bias: Int64 | int = 0) -> Int64:
    """``clamp32(round_half_even(dot * 2**scale) + bias)``; parameters as of `rescale`."""
    return saturate(rescale(dot, scale, bias), RESULT_BITS)
