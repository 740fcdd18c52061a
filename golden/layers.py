"""The operations around the matrix products, on integers.

All vectors are two's-complement fixed point with ``RESULT_FRAC`` fraction bits ("Q16" below) in
int64 arrays whose values fit int32, unless a name says otherwise. T is tokens, P positions, D the
model's width, H heads, W the width of a head. Nothing here computes in floating point, but for
products of integers below the bound at which float64 is exact, and for tables made on import.

Divisions and square roots are floors of exact integers: hardware makes them one bit a cycle, once
for a vector.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from golden.arith import EXACT_FLOAT64, Int64, saturate, shift_round_half_even
from golden.config import RESULT_BITS, RESULT_FRAC
from golden.rf8 import INTEGERS

Activation = Literal["gelu", "gelu_tanh", "relu"]

NORM_BITS = 20
"""Bits of a centred value in LayerNorm, sign included: wide enough that small values beside one
very large one keep most of theirs."""


def bit_length(magnitude: Int64) -> Int64:
    """Bits of non-negative integers below 2**53, 0 for 0."""
    bits: Int64 = np.frexp(magnitude.astype(np.float64))[1].astype(np.int64)
    return bits


def shift_left_or_right(value: Int64, left: Int64 | int) -> Int64:
    """``value * 2**left``, rounded half to even where ``left`` is negative."""
    amount = np.asarray(left, np.int64)
    return shift_round_half_even(value << np.maximum(amount, 0), np.maximum(-amount, 0))


@dataclass(frozen=True)
class Block:
    """Block floating point: value = mantissa * 2**exponent, one exponent for the last axis.

    ``mantissa``: [..., K] int64 of ``act_bits`` bits; ``exponent``: [..., 1] int64.
    """

    mantissa: Int64
    exponent: Int64


def block_quantize(x: Int64, bits: int, frac: int = RESULT_FRAC) -> Block:
    """Vectors [..., K] with ``frac`` fraction bits to mantissas of ``bits`` bits.

    The exponent is the smallest, not below ``-frac``, for which the largest magnitude fits before
    rounding; a magnitude that rounding carries past the top saturates. Rounding is half to even.
    """
    largest = np.abs(x).max(axis=-1, keepdims=True, initial=0)
    drop = np.maximum(bit_length(largest) - (bits - 1), 0)
    return Block(saturate(shift_round_half_even(x, drop), bits), drop - frac)


def embed(codes: NDArray[np.uint8], bias: NDArray[np.int8]) -> Int64:
    """Rows of an RF8 embedding table, [T, D] codes and [T] row biases, as Q16."""
    exponent = bias.astype(np.int64)[:, None] - 4 + RESULT_FRAC
    # W has 21 bits: beyond 2**31 times that, whatever is not zero saturates.
    scaled = shift_left_or_right(INTEGERS[codes].astype(np.int64), np.minimum(exponent, 31))
    return saturate(scaled, RESULT_BITS)


def add(a: Int64, b: Int64) -> Int64:
    """Saturating sum of Q16 vectors: the residual stream."""
    return saturate(a + b, RESULT_BITS)


def divide_round_half_even(value: Int64, divisor: int) -> Int64:
    """Integer quotient, rounded to nearest, ties to even."""
    quotient, rest = np.divmod(value, divisor)
    twice = 2 * rest
    up: Int64 = quotient + ((twice > divisor) | ((twice == divisor) & (quotient & 1 == 1)))
    return up


def integer_sqrt(value: Int64) -> Int64:
    """Floor of the square root of non-negative integers below 2**62."""
    root: Int64 = np.sqrt(value.astype(np.float64)).astype(np.int64)
    root = root - (root * root > value)
    above: Int64 = root + ((root + 1) * (root + 1) <= value)
    return above


def layer_norm(x: Int64, gamma: Block, beta: Int64, epsilon: float) -> Int64:
    """LayerNorm over the last axis: [T, D] Q16 to [T, D] Q16.

    ``gamma``: [D] mantissas of 16 bits; ``beta``: [D] Q16. With d the centred values, aligned to
    ``NORM_BITS``, the variance is ``floor(sum(d*d) * 2**6 / D)``, its root the integer one, and
    the reciprocal ``floor(2**40 / root)``.
    """
    width = x.shape[-1]
    mean = divide_round_half_even(x.sum(axis=-1, keepdims=True), width)
    centred = x - mean
    drop = bit_length(np.abs(centred).max(axis=-1, keepdims=True)) - (NORM_BITS - 1)
    drop = np.maximum(drop, -8)  # so that epsilon, below 1, fits beside any variance
    d = saturate(shift_left_or_right(centred, -drop), NORM_BITS)
    variance = ((d * d).sum(axis=-1, keepdims=True) << 6) // width
    # epsilon in the units of `variance`: d is x * 2**(RESULT_FRAC - drop).
    power = 2 * (RESULT_FRAC - drop) + 6
    eps = math.frexp(epsilon)
    eps_mantissa = round(eps[0] * 2**20)
    variance = variance + shift_left_or_right(
        np.full_like(power, eps_mantissa), power + eps[1] - 20
    )
    root = np.maximum(integer_sqrt(variance), 1)  # standard deviation of d, 3 fraction bits
    inverse = (np.int64(1) << np.int64(40)) // root
    # d / deviation = d * inverse * 2**-37; keep 20 fraction bits, then scale.
    size = bit_length(inverse)
    short = shift_round_half_even(inverse, np.maximum(size - 24, 0))
    normal = shift_round_half_even(d * short, 17 - np.maximum(size - 24, 0))
    product = normal * gamma.mantissa
    scaled = shift_left_or_right(product, gamma.exponent + (RESULT_FRAC - 20))
    return saturate(saturate(scaled, RESULT_BITS) + beta, RESULT_BITS)


@dataclass(frozen=True)
class Table:
    """A function on [0, end) by linear interpolation between equally spaced, rounded values.

    ``index_bits`` and ``step_bits``: an argument of ``index_bits + step_bits`` bits splits into the
    interval and the position in it. ``values``: one more than intervals, ``frac`` fraction bits.
    """

    values: Int64
    index_bits: int
    step_bits: int
    frac: int

    def __call__(self, argument: Int64) -> Int64:
        index = argument >> self.step_bits
        rest = argument & ((1 << self.step_bits) - 1)
        low, high = self.values[index], self.values[index + 1]
        value: Int64 = low + shift_round_half_even((high - low) * rest, self.step_bits)
        return value


def make_table(
    function: Callable[[float], float], *, end: float, index_bits: int, arg_bits: int, frac: int
) -> Table:
    """Tabulate ``function`` at ``2**index_bits + 1`` points of [0, end]."""
    points = 1 << index_bits
    values = [round(function(end * i / points) * 2**frac) for i in range(points + 1)]
    return Table(np.array(values, np.int64), index_bits, arg_bits - index_bits, frac)


EXP_FRAC = 24
EXP2 = make_table(lambda u: 2.0**-u, end=1.0, index_bits=9, arg_bits=RESULT_FRAC, frac=EXP_FRAC)
"""2**-u for u in [0, 1), u with 16 fraction bits."""

GELU_END = 8
_GELU_ARG = RESULT_FRAC + 3


def _gelu_rest(phi: Callable[[float], float]) -> Table:
    # gelu(x) - relu(x) is even: -|x| * phi(-|x|).
    return make_table(
        lambda a: -a * phi(-a), end=GELU_END, index_bits=11, arg_bits=_GELU_ARG, frac=RESULT_FRAC
    )


GELU_REST = {
    "gelu": _gelu_rest(lambda x: 0.5 * math.erfc(-x / math.sqrt(2))),
    "gelu_tanh": _gelu_rest(
        lambda x: 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    ),
}
"""What is between GELU and ReLU, on the magnitude of x below 8; beyond it is 0."""


def activate(x: Int64, kind: Activation) -> Int64:
    """GELU (exact or tanh form) or ReLU of Q16 values."""
    relu = np.maximum(x, 0)
    if kind == "relu":
        return relu
    magnitude = np.abs(x)
    inside = magnitude < GELU_END << RESULT_FRAC
    return relu + np.where(inside, GELU_REST[kind](np.where(inside, magnitude, 0)), 0)


@dataclass
class KVCache:
    """Keys and values of one layer, as blocks: mantissas [P, H, W], exponents [P, H, 1]."""

    keys: Block
    values: Block

    @classmethod
    def empty(cls, heads: int, width: int) -> KVCache:
        """A cache of no positions."""
        nothing = Block(np.zeros((0, heads, width), np.int64), np.zeros((0, heads, 1), np.int64))
        return cls(nothing, nothing)

    def append(self, keys: Block, values: Block) -> None:
        """Add positions at the end."""
        self.keys, self.values = _joined(self.keys, keys), _joined(self.values, values)


def _joined(a: Block, b: Block) -> Block:
    return Block(np.concatenate([a.mantissa, b.mantissa]), np.concatenate([a.exponent, b.exponent]))


SCALE_BITS = 20


def _exact_product(a: Int64, b: Int64, bound: int) -> Int64:
    if bound >= EXACT_FLOAT64:
        raise OverflowError(f"a sum of magnitude {bound} is not exact in float64 (limit 2**53)")
    product: Int64 = np.matmul(a.astype(np.float64), b.astype(np.float64)).astype(np.int64)
    return product


def attention(q: Int64, k: Int64, v: Int64, cache: KVCache, bits: int) -> Int64:
    """Causal self-attention of T new tokens: q, k, v [T, H, W] Q16 to [T, H, W] Q16.

    Appends the new keys and values to ``cache``. Queries, keys and values are blocks of ``bits``
    bits, one exponent for each token and head. Scores are exact sums, scaled by log2(e)/sqrt(W) to
    Q16; probabilities are ``2**(score - max)`` with ``EXP_FRAC`` fraction bits; each takes its
    value's exponent on, and they become one block, whose product with the values is exact.
    """
    tokens, _, width = q.shape
    cache.append(block_quantize(k, bits), block_quantize(v, bits))
    keys, values = cache.keys, cache.values
    positions = len(keys.mantissa)
    query = block_quantize(q, bits)
    largest = 1 << (bits - 1)

    dots = _exact_product(  # [H, T, P]
        query.mantissa.transpose(1, 0, 2),
        keys.mantissa.transpose(1, 2, 0),
        width * largest * largest,
    )
    exponent = query.exponent.transpose(1, 0, 2) + keys.exponent.transpose(1, 2, 0)
    factor = round(math.log2(math.e) / math.sqrt(width) * 2**SCALE_BITS)
    # Q16, up to 2**23 in magnitude: far beyond what any softmax tells apart from one-hot.
    bounded = saturate(dots, 40)
    score = saturate(shift_left_or_right(bounded, np.minimum(exponent + RESULT_FRAC, 22)), 40)
    score = score * factor >> SCALE_BITS

    first = positions - tokens
    seen = np.arange(positions)[None, :] <= first + np.arange(tokens)[:, None]  # [T, P]
    score = np.where(seen, score, np.int64(-1) << np.int64(44))
    below = score.max(axis=-1, keepdims=True) - score
    whole = np.minimum(below >> RESULT_FRAC, EXP_FRAC + 1)
    weight = EXP2(below & ((1 << RESULT_FRAC) - 1)) >> whole
    weight = np.where(seen, weight, 0)  # [H, T, P]
    total = weight.sum(axis=-1, keepdims=True)

    # Exponents of values are -RESULT_FRAC and above: 0 to 16 more bits.
    lifted = weight << (values.exponent.transpose(1, 2, 0) + RESULT_FRAC)
    share = block_quantize(lifted, 16, frac=0)
    context = _exact_product(
        share.mantissa, values.mantissa.transpose(1, 0, 2), positions * 32768 * largest
    )
    # context * 2**(share.exponent) / total, in Q16: the reciprocal has 24 fraction bits.
    inverse = (np.int64(1) << np.int64(2 * EXP_FRAC - 1)) // total
    size = np.maximum(bit_length(np.abs(context)) - 36, 0)
    product = shift_round_half_even(context, size) * inverse
    scaled = shift_left_or_right(product, share.exponent + size - (2 * EXP_FRAC - 1))
    return saturate(scaled, RESULT_BITS).transpose(1, 0, 2)
