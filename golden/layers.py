"""The operations around the matrix products, on integers.

All vectors are two's-complement fixed point with ``RESULT_FRAC`` fraction bits ("Q16" below) in
int64 arrays whose values fit int32, unless a name says otherwise. T is tokens, P positions, D the
model's width, H query heads, G key-value heads, W the width of a head. Nothing here computes in
floating point, but for integers below the bound at which float64 is exact, and for tables made on
import.

Divisions and square roots are floors of exact integers: hardware makes them one bit a cycle, once
for a vector.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from golden.arith import EXACT_FLOAT64, Int64, saturate, shift_round_half_even
from golden.config import RESULT_BITS, RESULT_FRAC
from golden.format import INTEGERS, row_bias
from golden.isa import Function

NORM_BITS = 20
"""Bits of a value in LayerNorm and RMSNorm, sign included: wide enough that small values beside one
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


def embed(codes: NDArray[np.uint8], bias: NDArray[np.int8], drop: int = 0) -> Int64:
    """Rows of an RF8 embedding table as Q16 times ``2**-drop``: [T, D] codes, [T] row biases."""
    exponent = bias.astype(np.int64)[:, None] - 4 + RESULT_FRAC - drop
    # W has 21 bits: beyond 2**31 times that, whatever is not zero saturates.
    scaled = shift_left_or_right(INTEGERS[codes].astype(np.int64), np.minimum(exponent, 31))
    return saturate(scaled, RESULT_BITS)


def add(a: Int64, b: Int64) -> Int64:
    """Saturating sum of Q16 vectors: the residual stream."""
    return saturate(a + b, RESULT_BITS)


FACTOR_BITS = 20


def split_factor(factor: float) -> tuple[int, int]:
    """A constant factor above 0 as mantissa of FACTOR_BITS bits and exponent of two."""
    half, exponent = math.frexp(factor)
    mantissa = round(half * 2**FACTOR_BITS)
    if mantissa >> FACTOR_BITS:  # rounded up to a power of two
        mantissa, exponent = mantissa >> 1, exponent + 1
    return mantissa, exponent - FACTOR_BITS


def scale(x: Int64, factor: float) -> Int64:
    """Q16 values times a constant (`split_factor`), rounded half to even, saturated."""
    mantissa, exponent = split_factor(factor)
    return saturate(shift_left_or_right(x * mantissa, exponent), RESULT_BITS)


def divide_round_half_even(value: Int64, divisor: Int64 | int) -> Int64:
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


def centered(x: Int64) -> Int64:
    """Q16 values less their mean over the last axis, which is rounded half to even."""
    return add(x, -divide_round_half_even(x.sum(axis=-1, keepdims=True), x.shape[-1]))


def layer_norm(x: Int64, gamma: Block, beta: Int64, epsilon: float) -> Int64:
    """LayerNorm over the last axis: [T, D] Q16 to [T, D] Q16.

    ``gamma``: [D] mantissas of 16 bits; ``beta``: [D] Q16. `rms_norm` of `centered` values.
    """
    return add(rms_norm(centered(x), gamma, epsilon), beta)


def rms_norm(x: Int64, gamma: Block, epsilon: float) -> Int64:
    """RMSNorm over the last axis: [T, D] Q16 to [T, D] Q16; ``gamma``: [D] mantissas of 16 bits.

    The values are aligned to ``NORM_BITS``, divided by their root mean square (`root_factor`),
    keeping 20 fraction bits, and scaled.
    """
    drop = bit_length(np.abs(x).max(axis=-1, keepdims=True)) - (NORM_BITS - 1)
    drop = np.maximum(drop, -8)  # so that epsilon, below 1, fits beside any mean square
    d = saturate(shift_left_or_right(x, -drop), NORM_BITS)
    squares = (d * d).sum(axis=-1, keepdims=True)
    count = np.array(x.shape[-1], np.int64)
    factor, amount = root_factor(squares, count, -drop, *split_epsilon(epsilon))
    normal = saturate(shift_left_or_right(d * factor, amount), RESULT_BITS)
    product = normal * gamma.mantissa
    scaled = shift_left_or_right(product, gamma.exponent + (RESULT_FRAC - NORMAL_FRAC))
    return saturate(scaled, RESULT_BITS)


NORMAL_FRAC = 20
"""Fraction bits of a value divided by its root mean square."""


def split_epsilon(epsilon: float) -> tuple[int, int]:
    """A norm's epsilon in (0, 1) as mantissa, 21 bits, and exponent of two."""
    half, exponent = math.frexp(epsilon)
    return round(half * 2**20), exponent - 20


def root_factor(
    squares: Int64, count: Int64, amount: Int64, mantissa: int, exponent: int
) -> tuple[Int64, Int64]:
    """``factor`` and ``amount`` such that ``d * factor * 2**amount`` is ``d / rms`` with
    NORMAL_FRAC fraction bits.

    ``squares``: the sum of d * d over ``count`` values d, each a Q16 value times ``2**amount`` of
    the argument. The mean square is ``floor(squares * 2**6 / count)``, epsilon is added in its
    units, the root is the integer one and the reciprocal ``floor(2**40 / root)``, of which 24 bits
    are kept, rounded half to even.
    """
    power = np.clip(2 * (RESULT_FRAC + amount) + 6 + exponent, -63, 40)
    square = (squares << 6) // count + shift_left_or_right(np.full_like(power, mantissa), power)
    root = np.maximum(integer_sqrt(square), 1)  # root of the mean square of d, 3 fraction bits
    inverse = (np.int64(1) << np.int64(40)) // root
    drop = np.maximum(bit_length(inverse) - 24, 0)
    return shift_round_half_even(inverse, drop), drop - 17  # d / root = d * inverse * 2**-37


@dataclass(frozen=True)
class Table:
    """A function on [0, end] by linear interpolation between equally spaced, rounded values.

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
        low = self.values[index]
        high = self.values[np.minimum(index + 1, len(self.values) - 1)]
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


@dataclass(frozen=True)
class Activation:
    """An activation function ``x * gate(x)``, where ``gate(x) + gate(-x) = 1``.

    ``function``: the VECTOR function that computes it. ``end``: a power of two; for magnitudes from
    it on the function is ReLU to less than 2**-17. 0 for ReLU itself.
    """

    function: Function
    gate: Callable[[float], float]
    end: int

    def __call__(self, x: float) -> float:
        """Its value in floating point."""
        return x * self.gate(x)

    @cached_property
    def rest(self) -> Table:
        """What is between the function and ReLU, on the magnitude of x up to ``end``."""
        # x * gate(x) - relu(x) is even: it is -|x| * gate(-|x|).
        return make_table(
            lambda a: -a * self.gate(-a),
            end=self.end,
            index_bits=11,
            arg_bits=RESULT_FRAC + self.end.bit_length() - 1,
            frac=RESULT_FRAC,
        )


ACTIVATIONS = {
    "gelu": Activation(Function.GELU, lambda x: 0.5 * math.erfc(-x / math.sqrt(2)), 8),
    "gelu_tanh": Activation(
        Function.GELU_TANH,
        lambda x: 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        8,
    ),
    "silu": Activation(Function.SILU, lambda x: 1 / (1 + math.exp(-x)), 16),
    "relu": Activation(Function.RELU, lambda x: float(x > 0), 0),
}
"""Name -> activation function: all that the project knows. Machine, compiler and loaders follow."""


def activate(x: Int64, name: str) -> Int64:
    """The activation function of `ACTIVATIONS` of Q16 values."""
    known, relu = ACTIVATIONS[name], np.maximum(x, 0)
    if not known.end:
        return relu
    table = known.rest
    last = np.int64(1) << np.int64(table.index_bits + table.step_bits)
    return relu + table(np.minimum(np.abs(x), last))


TANH = make_table(
    lambda a: 1 - math.tanh(a), end=8.0, index_bits=9, arg_bits=RESULT_FRAC + 3, frac=RESULT_FRAC
)
"""1 - tanh on [0, 8], the argument with RESULT_FRAC fraction bits; 0 at its end."""


def tanh(x: Int64) -> Int64:
    """tanh of Q16 values: odd, and +-1 for magnitudes from 8 on."""
    last = np.int64(1) << np.int64(TANH.index_bits + TANH.step_bits)
    magnitude = (1 << RESULT_FRAC) - TANH(np.minimum(np.abs(x), last))
    return np.where(x < 0, -magnitude, magnitude)


DOWN_FRAC, UP_FRAC = 30, 20
"""Fraction bits of the factors 1 / cap and cap of `soft_cap`: both have 20 significant bits or more
for caps from 1 to 1000, also in units of log2(e)."""


def cap_factors(cap: float) -> tuple[int, int]:
    """1 / cap and cap with DOWN_FRAC and UP_FRAC fraction bits.

    Raises
    ------
    ValueError
        Unless the cap is from 1 to below 2**11, where factors have 31 bits.
    """
    if not 1 <= cap < 1 << 11:
        raise ValueError(f"soft cap is {cap}, must be 1 or more and below {1 << 11}")
    return round(2**DOWN_FRAC / cap), round(cap * 2**UP_FRAC)


def soft_cap(x: Int64, cap: float) -> Int64:
    """``cap * tanh(x / cap)`` of Q16 values, for a ``cap`` of `cap_factors`; three VECTORs.

    Both products are rounded half to even; none saturates.
    """
    down, up = cap_factors(cap)
    part = saturate(shift_round_half_even(x * down, DOWN_FRAC), RESULT_BITS)
    return saturate(shift_round_half_even(tanh(part) * up, UP_FRAC), RESULT_BITS)


def multiply(a: Int64, b: Int64) -> Int64:
    """Elementwise product of Q16 values, rounded half to even, saturated."""
    return saturate(shift_round_half_even(a * b, RESULT_FRAC), RESULT_BITS)


TURN_BITS = 32
"""An angle is a fraction of a turn with this many bits."""

SINE_FRAC = 16
SINE = make_table(
    lambda u: math.sin(u * math.pi / 2), end=1.0, index_bits=9, arg_bits=16, frac=SINE_FRAC
)
"""Sine over a quarter of a turn, the angle with 16 fraction bits."""


def rotary_steps(radians: Sequence[float]) -> Int64:
    """How far each pair of a head turns from one position to the next, TURN_BITS bits.

    ``radians``: the same in floating point; of pair i usually ``theta**(-2i/W)``
    (arXiv 2104.09864).
    """
    return np.array([round(r / math.tau * 2**TURN_BITS) for r in radians], np.int64)


def sine(angle: Int64) -> Int64:
    """Sine of angles of ``TURN_BITS`` bits, which wrap; SINE_FRAC fraction bits.

    The angle is first rounded to 18 bits, halves up: two choose the quarter.
    """
    short = (angle + (1 << (TURN_BITS - 19))) >> (TURN_BITS - 18)
    quarter, rest = short >> 16 & 3, short & 0xFFFF
    value = SINE(np.where(quarter & 1 == 1, (1 << 16) - rest, rest))
    return np.where(quarter & 2 == 2, -value, value)


def rotate(x: Int64, positions: Int64, steps: Int64, *, interleaved: bool = False) -> Int64:
    """Rotary position embedding: [T, H, W] Q16 to [T, H, W] Q16.

    ``positions``: [T], below 2**30; ``steps``: [R] of `rotary_steps`. The first 2R elements turn in
    pairs: i and i + R, as in Hugging Face's Llama, or ``interleaved`` 2i and 2i + 1, as in the
    original one and in GGUF files. Each is rounded once, half to even; the others stay.
    """
    angle = positions[:, None] * steps
    s, c = sine(angle)[:, None], sine(angle + (1 << (TURN_BITS - 2)))[:, None]
    half = len(steps)
    first = np.s_[..., 0 : 2 * half : 2] if interleaved else np.s_[..., :half]
    second = np.s_[..., 1 : 2 * half : 2] if interleaved else np.s_[..., half : 2 * half]
    turned = x << SINE_FRAC
    turned[first] = x[first] * c - x[second] * s
    turned[second] = x[second] * c + x[first] * s
    return saturate(shift_round_half_even(turned, SINE_FRAC), RESULT_BITS)


CODE_FRAC = 6
"""Fraction bits to which keys and values are rounded, in units of their bias, before they become
codes: one more than the midpoints between the smallest codes have."""


def shared_bias(peak: Int64) -> Int64:
    """`golden.format.row_bias` of integers whose largest magnitude is ``peak``, below 2**53."""
    bias: Int64 = row_bias(peak.reshape(-1, 1).astype(np.float64)).astype(np.int64)
    return bias.reshape(peak.shape)


def check_exact(bound: int) -> None:
    """Raise OverflowError unless sums of magnitude ``bound`` are exact in float64."""
    if bound >= EXACT_FLOAT64:
        raise OverflowError(f"a sum of magnitude {bound} is not exact in float64 (limit 2**53)")


def exp2_below(below: Int64) -> Int64:
    """``2**-below`` of non-negative Q16 values, with ``EXP_FRAC`` fraction bits."""
    whole = np.minimum(below >> RESULT_FRAC, EXP_FRAC + 1)
    weight: Int64 = EXP2(below & ((1 << RESULT_FRAC) - 1)) >> whole
    return weight


INVERSE_FRAC = 20


def reciprocal(total: Int64) -> tuple[Int64, Int64]:
    """``inverse`` and ``size`` with ``1 / total = inverse * 2**-(INVERSE_FRAC + size)``.

    ``total``: at least 2**EXP_FRAC and below 2**62. Its upper 24 bits are divided, so that the
    inverse has 21 bits however many positions there are: between 1 and 2 with INVERSE_FRAC bits.
    """
    size = bit_length(total >> 24) + 24
    inverse: Int64 = (np.int64(1) << np.int64(24 + INVERSE_FRAC)) // (total >> (size - 24))
    return inverse, size


SCALE_BITS = 20
QUERY_FRAC = 20


def query_factor(width: int, scale: float | None = None) -> tuple[int, int]:
    """log2(e) times the scale of attention, and its fraction bits.

    ``scale``: 1 / sqrt(width) where it is None. There are SCALE_BITS fraction bits, and eight more
    for scales below 1/16: 17 significant bits at least.

    Raises
    ------
    ValueError
        Unless the scale is from 1/256 to 1.
    """
    scale = 1 / math.sqrt(width) if scale is None else scale
    if not 1 / 256 <= scale <= 1:
        raise ValueError(f"attention's scale is {scale}, must be 1/256 to 1")
    bits = SCALE_BITS if scale >= 1 / 16 else SCALE_BITS + 8
    return round(math.log2(math.e) * scale * 2**bits), bits
