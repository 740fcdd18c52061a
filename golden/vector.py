"""VECTOR instructions: what `golden.isa.Function` and `golden.isa.After` say, on integers.

A column has a set of `Registers` for each segment. ``sum`` wraps at ``SUM_BITS`` bits. ``amount``
saturates at +-``AMOUNT_MAX``, and so does the whole exponent of two by which a value is scaled;
``exponent`` saturates to int8, ``factor`` to 32 bits. Exponents that come as elements (b of
SHIFT_EACH and LENGTHS) saturate to int8; b of ROTATE is its low 18 bits, signed.

The counter `saturated` counts, each time an instruction runs, the elements of y that saturate to 32
bits: of every function but SQUARE and ANGLE with `k` 32, and of ROTATE, whatever becomes of y then.
What saturates to fewer bits does so by design and does not count, nor do registers and elements
outside a column's length or window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from golden import layers, positions
from golden.arith import GUARD_BITS, Int64, saturate, shift_round_half_even
from golden.config import RESULT_BITS, RESULT_FRAC, AccelConfig
from golden.format import INTEGERS, encode
from golden.isa import HEADED, READS_OTHER, SEGMENTS, After, Flag, Function, Instruction, Output
from golden.layers import CODE_FRAC, NORM_BITS, bit_length

_AMOUNT, _IMMEDIATE = int(Flag.AMOUNT), int(Flag.IMMEDIATE)

SUM_BITS = 56
AMOUNT_MAX = 63
SINE_BITS = 18
EPSILON_BITS = 21
"""ROOT: the low bits of `immediate` are epsilon's mantissa, the top eight its exponent of two."""

_ACTIVATIONS = {known.function: name for name, known in layers.ACTIVATIONS.items()}


@dataclass
class Registers:
    """Scalars of VECTOR instructions, each [cols, SEGMENTS] int64."""

    factor: Int64
    amount: Int64
    exponent: Int64
    size: Int64
    sum: Int64
    peak: Int64
    top: Int64

    @classmethod
    def cleared(cls, config: AccelConfig) -> Registers:
        """All zero, as after reset."""
        return cls(*(np.zeros((config.cols, SEGMENTS), np.int64) for _ in range(7)))


def wrapped(value: Int64, bits: int) -> Int64:
    """The low ``bits`` bits as a signed number."""
    half = np.int64(1) << np.int64(bits - 1)
    return ((value + half) & (2 * half - 1)) - half


def scaled(value: Int64, exponent: Int64 | int) -> Int64:
    """``value * 2**exponent`` for magnitudes up to 2**62, rounded half to even.

    What is scaled up saturates at GUARD_BITS.
    """
    power = np.minimum(np.maximum(exponent, -AMOUNT_MAX), AMOUNT_MAX)
    if (power <= 0).all():
        return shift_round_half_even(value, -power)
    small = saturate(shift_round_half_even(value, np.maximum(-power, 0)), GUARD_BITS)
    left = np.clip(power, 0, GUARD_BITS)
    first = np.minimum(left, 28)
    half_way = saturate(small << first, GUARD_BITS)
    return saturate(half_way << (left - first), GUARD_BITS)


def code_of(value: Int64, span: int) -> Int64:
    """RF8 codes at bias 0 of integers with CODE_FRAC fraction bits, rounded to nearest."""
    return encode(value.astype(np.float64) * 2.0**-CODE_FRAC, span=span).astype(np.int64)


def execute(
    i: Instruction,
    scratch: NDArray[np.uint8],
    registers: Registers,
    position: int,
    config: AccelConfig,
) -> int:
    """Run a legal VECTOR instruction on ``scratch`` [cols, words, bus_bytes] and the registers.

    Gives what it adds to the counter `saturated`. ``position``: of column 0. With LENGTH it must
    not be far (`golden.positions`).
    """
    columns, lengths = i.column, positions.lengths(i, position)[:, None]
    length = int(lengths[-1, 0])
    seen: NDArray[np.bool_] | None = None
    starts = positions.starts(i, position)[:, None]
    if lengths[0, 0] < length or starts.any():
        index = np.arange(length)
        seen = ((starts <= index) & (index < lengths))[:, None]
    words = -(-length // config.results_per_word)
    elements = scratch.view("<i4")
    segments = np.arange(i.segments)[:, None]
    active = np.s_[:columns, : i.segments]

    def read(start: int, stride: int, index: NDArray[np.int64]) -> Int64:
        """[columns, segments, len(index) * results_per_word] elements."""
        found = elements[:columns, (start + stride * segments + index)]
        return found.reshape(columns, i.segments, -1).astype(np.int64)

    forward = np.arange(words)
    a = read(i.src, i.src_stride, forward)[..., :length]
    b = np.zeros(1, np.int64)
    if i.function == Function.ROTATE:
        cosine = read(i.other, i.other_stride, forward % i.immediate)[..., :length]
        sine = read(i.other, i.other_stride, i.immediate + forward % i.immediate)[..., :length]
        partner = a[..., np.arange(length) ^ i.k]
        y = a * wrapped(cosine, SINE_BITS) + partner * wrapped(sine, SINE_BITS)
    else:
        if i.function in READS_OTHER:
            b = read(i.other, i.other_stride, forward)[..., :length]
        y = a
    factor = np.array(i.immediate, np.int64)
    if not i.flags & _IMMEDIATE:
        factor = registers.factor[active][..., None]
    exponent: Int64 | int = i.shift
    if i.flags & _AMOUNT:
        exponent = i.shift + registers.amount[active][..., None]
    top = registers.top[active][..., None]
    places = position + np.arange(columns)[:, None, None]
    exact, bits = _compute(i, y, b, factor, exponent, top, places, config), y_bits(i)
    y = exact if bits is None else saturate(exact, bits)
    saturated = (y != exact) & (bits == RESULT_BITS)
    if seen is not None:
        y, saturated = np.where(seen, y, 0), saturated & seen
    where = _reduce(y, seen, registers, active)
    _after(i, registers, active, lengths, config)
    if i.output == Output.TOP:
        pair = np.zeros((columns, i.segments, config.results_per_word), "<i4")
        pair[..., 0], pair[..., 1] = registers.top[active], where
        elements[:columns, i.dst + i.dst_stride * segments[:, 0]] = pair
    else:
        _write(i, y, elements, registers, config)
    return int(np.count_nonzero(saturated))


def y_bits(i: Instruction) -> int | None:
    """To how many bits y saturates; None where it does not (SQUARE, ANGLE)."""
    if i.function in (Function.SQUARE, Function.ANGLE):
        return None
    return RESULT_BITS if i.function == Function.ROTATE else i.k


def _compute(
    i: Instruction,
    a: Int64,
    b: Int64,
    factor: Int64,
    exponent: Int64 | int,
    top: Int64,
    position: Int64,
    config: AccelConfig,
) -> Int64:
    """y before it saturates, or, where it is far out of the range of 32 bits, another value out of
    it on the same side."""
    function = Function(i.function)
    match function:
        case Function.SQUARE:
            return a * a
        case Function.ANGLE:
            return wrapped(a * position + b, RESULT_BITS)
        case Function.SHIFT:
            return scaled(a, exponent)
        case Function.SHIFT_EACH:
            return scaled(a, exponent + saturate(b, 8))
        case Function.SCALE:
            return scaled(a * factor, exponent)
        case Function.MULTIPLY:
            return scaled(a * b, exponent)
        case Function.ADD:
            return scaled(a, exponent) + b
        case Function.SUBTRACT:
            return scaled(a, exponent) - factor
        case Function.ROTATE:
            return scaled(a, exponent)
        case Function.EXP2:
            return layers.exp2_below(np.maximum(top - a, 0))
        case Function.LENGTHS:
            return np.where(a > 0, bit_length(np.maximum(a, 0)) + saturate(b, 8), -128)
        case Function.SINE:
            return layers.sine(a)
        case Function.TANH:
            return layers.tanh(a)
        case Function.CODE:
            return code_of(a, config.span)
        case Function.RESIDUE:
            return a - (INTEGERS[code_of(a, config.span)].astype(np.int64) << (CODE_FRAC - 4))
        case _:
            return layers.activate(a, _ACTIVATIONS[function])


def _reduce(
    y: Int64,
    seen: NDArray[np.bool_] | None,
    registers: Registers,
    active: tuple[slice, ...],
) -> Int64:
    """Sets sum, peak and top; gives the index of the first element that is the top."""
    registers.sum[active] = wrapped(y.sum(axis=-1), SUM_BITS)
    # Of SQUARE, whose values are wider, only the sum is of use.
    narrow = wrapped(y, RESULT_BITS)
    registers.peak[active] = np.abs(narrow).max(axis=-1)
    below_all = np.int64(-1) << np.int64(RESULT_BITS)
    masked = narrow if seen is None else np.where(seen, narrow, below_all)
    registers.top[active] = masked.max(axis=-1)
    where: Int64 = masked.argmax(axis=-1)
    return where


def _after(
    i: Instruction,
    r: Registers,
    active: tuple[slice, ...],
    lengths: Int64,
    config: AccelConfig,
) -> None:
    total, peak, top, amount = r.sum[active], r.peak[active], r.top[active], r.amount[active]
    low = int(wrapped(np.array(i.immediate, np.int64), 8))
    act = config.act_bits
    match After(i.after):
        case After.NONE:
            return
        case After.MEAN:
            r.factor[active] = saturate(layers.divide_round_half_even(total, lengths), RESULT_BITS)
        case After.ALIGN:
            r.amount[active] = -np.maximum(bit_length(peak) - (NORM_BITS - 1), -8)
        case After.ROOT:
            r.factor[active], r.amount[active] = layers.root_factor(
                np.clip(total, 0, (1 << (SUM_BITS - 1)) - 1),
                lengths,
                amount,
                i.immediate & ((1 << EPSILON_BITS) - 1),
                i.immediate >> 24,
            )
        case After.QUANTIZE:
            drop = np.maximum(bit_length(peak) - (act - 1), 0)
            r.amount[active], r.exponent[active] = -drop, saturate(drop - low, 8)
        case After.RECIPROCAL:
            least = np.int64(1) << np.int64(layers.EXP_FRAC)
            r.factor[active], r.size[active] = layers.reciprocal(np.maximum(total, least))
        case After.LIFT:
            lift = np.clip(act - 1 - top, -AMOUNT_MAX, AMOUNT_MAX)
            r.amount[active], r.exponent[active] = lift, saturate(-lift - r.size[active], 8)
        case After.CODE:
            bias = layers.shared_bias(peak)
            r.amount[active], r.exponent[active] = CODE_FRAC - bias, bias - RESULT_FRAC
        case After.AMOUNT:
            r.amount[active] = np.clip(top + low, -AMOUNT_MAX, AMOUNT_MAX)


def _write(
    i: Instruction,
    y: Int64,
    elements: NDArray[np.int32],
    registers: Registers,
    config: AccelConfig,
) -> None:
    output = Output(i.output)
    if output is Output.NONE:
        return
    kind, per_word = {
        Output.WORDS: ("<i4", config.results_per_word),
        Output.ROW: ("<i4", config.results_per_word),
        Output.BLOCK: (f"<i{config.act_bits // 8}", config.acts_per_word),
        Output.MANTISSAS: (f"<i{config.act_bits // 8}", config.acts_per_word),
        Output.CODES: ("i1", config.bus_bytes),
    }[output]
    columns, segments, length = y.shape
    words = -(-length // per_word)
    image = np.zeros((columns, segments, words * per_word), kind)
    image[..., :length] = wrapped(y, 8 * image.itemsize)
    first = i.dst
    if output in HEADED:
        header = np.zeros((columns, segments, config.results_per_word), "<i4")
        header[..., 0] = registers.exponent[:columns, :segments]
        starts = i.dst + i.dst_stride * np.arange(segments)
        elements[:columns, starts] = header
        first += 1
    places = first + i.dst_stride * np.arange(segments)[:, None] + np.arange(words)
    data = image.view(np.uint8).view("<i4")
    elements[:columns, places] = data.reshape(columns, segments, words, -1)
