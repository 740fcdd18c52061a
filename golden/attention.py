"""Attention on RF8 keys and values, on integers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from golden import layers
from golden.arith import Int64, requantize, saturate, shift_round_half_even
from golden.config import MAX_SIGNIFICAND, RESULT_BITS, RESULT_FRAC
from golden.format import INTEGERS, VALUES, encode
from golden.layers import (
    CODE_FRAC,
    INVERSE_FRAC,
    QUERY_FRAC,
    bit_length,
    block_quantize,
    check_exact,
    exp2_below,
    query_factor,
    reciprocal,
    shared_bias,
    shift_left_or_right,
)


def encode_shared(
    x: Int64, codes: int, span: int = 16
) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    """Vectors [..., W] Q16 as sums of RF8 codes [..., codes, W] with one bias [...] a vector.

    The bias is the smallest at which the largest magnitude does not saturate, and counts ones, not
    steps of 2**-16: -31 to 0. Values are rounded to CODE_FRAC fraction bits below it, half to even,
    then to the nearest code; each further code is that of what the ones before it left.
    """
    bias = shared_bias(np.abs(x).max(axis=-1))
    rest = shift_left_or_right(x, CODE_FRAC - bias[..., None])
    found = []
    for _ in range(codes):
        found.append(encode(rest.astype(np.float64) * 2.0**-CODE_FRAC, span=span))
        rest = rest - (INTEGERS[found[-1]].astype(np.int64) << (CODE_FRAC - 4))
    return np.stack(found, axis=-2), (bias - RESULT_FRAC).astype(np.int8)


def decode_shared(codes: NDArray[np.uint8], bias: NDArray[np.int8]) -> NDArray[np.float64]:
    """The values of codes of `encode_shared`, in units of Q16: multiples of 2**-19, exact."""
    return VALUES[codes] * np.exp2(bias.astype(np.float64) + RESULT_FRAC)[..., None]


@dataclass
class KVCache:
    """Keys and values of one layer as RF8, with one bias for each position and head.

    ``keys``: [P, G, 2, W] codes: a key is the sum of two, the second being that of the first's
    rounding error at the same bias. The array reads both as one row of 2W weights. ``values``:
    [P, G, W] codes. ``key_bias``, ``value_bias``: [P, G].
    """

    keys: NDArray[np.uint8]
    key_bias: NDArray[np.int8]
    values: NDArray[np.uint8]
    value_bias: NDArray[np.int8]

    @classmethod
    def empty(cls, heads: int, width: int) -> KVCache:
        """A cache of no positions, for ``heads`` key-value heads."""
        return cls(
            np.zeros((0, heads, 2, width), np.uint8),
            np.zeros((0, heads), np.int8),
            np.zeros((0, heads, width), np.uint8),
            np.zeros((0, heads), np.int8),
        )

    @property
    def positions(self) -> int:
        """How many there are."""
        return len(self.keys)

    def append(self, k: Int64, v: Int64, span: int = 16) -> None:
        """Add keys and values [T, G, W] Q16 at the end, encoded with ``span`` exponents."""
        keys, bias = encode_shared(k, 2, span)
        values, value_bias = encode_shared(v, 1, span)
        self.keys = np.concatenate([self.keys, keys])
        self.key_bias = np.concatenate([self.key_bias, bias])
        self.values = np.concatenate([self.values, values[..., 0, :]])
        self.value_bias = np.concatenate([self.value_bias, value_bias])

    def truncate(self, positions: int) -> None:
        """Keep the first ``positions``."""
        self.keys, self.key_bias = self.keys[:positions], self.key_bias[:positions]
        self.values, self.value_bias = self.values[:positions], self.value_bias[:positions]


def _exact_product(a: Int64, b: NDArray[np.float64], bound: int) -> Int64:
    check_exact(bound)
    product: Int64 = np.matmul(a.astype(np.float64), b).astype(np.int64)
    return product


def exponentials(score: Int64, seen: NDArray[np.bool_]) -> Int64:
    """``2**(score - max)`` over the last axis: Q16 to ``EXP_FRAC`` fraction bits.

    0 where not ``seen`` (broadcasts), which the maximum does not count either.
    """
    masked = np.where(seen, score, np.int64(-1) << np.int64(RESULT_BITS))
    return np.where(seen, exp2_below(masked.max(axis=-1, keepdims=True) - masked), 0)


def score_cap(soft_cap: float) -> float:
    """A cap of attention's scores in the units in which they are computed, of log2(e)."""
    return soft_cap * math.log2(math.e)


_AT_ONCE = 32  # query tokens: what they need of each position stays in a processor's cache


def attention(
    q: Int64,
    k: Int64,
    v: Int64,
    cache: KVCache,
    bits: int,
    span: int = 16,
    *,
    window: int | None = None,
    soft_cap: float | None = None,
    scale: float | None = None,
) -> Int64:
    """Causal self-attention of T new tokens: q [T, H, W], k, v [T, G, W] Q16 to [T, H, W] Q16.

    Appends the new keys and values to ``cache``; H/G query heads share a key-value head. Every
    product is one of the array: RF8 weights, a block of ``bits`` bits as activations, an exact
    sum, requantised to Q16. With ``window`` a token sees so many positions, the last of them its
    own, and no others.

    - Queries take `query_factor`, log2(e)/sqrt(W) or that of another ``scale``, QUERY_FRAC fraction
      bits, and become a block.
    - A position's score is the product with both codes of its key; with ``soft_cap`` it goes
      through `golden.layers.soft_cap`. Weights are its `exponentials`.
    - A weight takes the bias of its value on as a shift, and the weights become one block. Its
      exponent makes the total lie in [1/2, 1), so that the product with the values does not
      saturate.
    - The result takes the `reciprocal` of that total as a factor, rounded half to even.

    Raises
    ------
    ValueError
        For a window below 1, and what `query_factor` and `golden.layers.cap_factors` refuse.
    """
    if window is not None and window < 1:
        raise ValueError(f"window is {window}, must be 1 or more")
    tokens, heads, width = q.shape
    factor, fraction = query_factor(width, scale)
    cache.append(k, v, span)
    groups, largest = k.shape[1], (MAX_SIGNIFICAND << 15) << (bits - 1)
    scaled = shift_round_half_even(q * factor, fraction + RESULT_FRAC - QUERY_FRAC)
    query = block_quantize(saturate(scaled, RESULT_BITS), bits, QUERY_FRAC)
    keys = INTEGERS[cache.keys].sum(axis=2).astype(np.float64).transpose(1, 2, 0)  # [G, W, P]
    values = INTEGERS[cache.values].astype(np.float64).transpose(1, 0, 2)  # [G, P, W]
    key_bias = cache.key_bias.astype(np.int64).T[:, None]  # [G, 1, P]
    value_bias = cache.value_bias.astype(np.int64).T[:, None]

    def by_group(part: Int64) -> Int64:
        """[t, H, n] to [G, t * H/G, n]: the rows of one group meet the same keys."""
        turned = part.reshape(len(part), groups, heads // groups, -1).transpose(1, 0, 2, 3)
        return turned.reshape(groups, len(part) * (heads // groups), -1)

    result = np.empty_like(q)
    before = cache.positions - tokens
    for first in range(0, tokens, _AT_ONCE):
        part = np.s_[first : first + _AT_ONCE]
        count = len(q[part])
        p = before + first + count
        dots = _exact_product(by_group(query.mantissa[part]), keys[..., :p], 2 * width * largest)
        exponent = by_group(query.exponent[part]) + key_bias[..., :p]
        score = requantize(dots, exponent + _CODE_SHIFT)
        if soft_cap is not None:
            score = layers.soft_cap(score, score_cap(soft_cap))
        last = np.repeat(before + first + np.arange(count), heads // groups)
        places, last = np.arange(p), last[:, None]
        seen = places <= last
        if window is not None:
            seen &= places > last - window
        weight = exponentials(score, seen)
        inverse, size = reciprocal(weight.sum(axis=-1, keepdims=True))

        lifted = np.where(weight > 0, bit_length(weight) + value_bias[..., :p], -128)
        exponent = lifted.max(axis=-1, keepdims=True) - (bits - 1)
        share = saturate(shift_left_or_right(weight, value_bias[..., :p] - exponent), bits)
        dots = _exact_product(share, values[:, :p], p * largest)
        mean = requantize(dots, exponent - size + _CODE_SHIFT)
        context = saturate(shift_round_half_even(mean * inverse, INVERSE_FRAC), RESULT_BITS)
        turned = context.reshape(groups, count, heads // groups, width).transpose(1, 0, 2, 3)
        result[part] = turned.reshape(count, heads, width)
    return result


_CODE_SHIFT = RESULT_FRAC - 4
"""A code's integer is in units of 2**-4 of its row's bias; results have RESULT_FRAC bits."""
