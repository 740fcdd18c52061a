"""The RF8 number format in NumPy: the executable form of its contract.

A code is one byte: bit 7 the sign s, bits 6..3 the exponent E, bits 2..0 the mantissa code m. Under
a power-of-two bias b, of which a weight matrix has one per row, it is worth
``(-1)^s * F[m] * 2^(E-4) * 2^b`` with ``F = (16, 17, 18, 20, 24, 28, 30)``. Code 0x00 is zero; 0x80
and the codes with m = 7 are invalid, and no encoder makes them.

Source: arXiv 2506.00486 gives the idea (a weight is the sum of two signed powers of two, at most
2^4 apart) and an algorithm that rounds in the log domain, here ``rounding="paper"``. The byte
layout, the bias, the range rules and ``rounding="nearest_even"`` are decisions of this project.

Errors are ValueErrors of one line. `golden.format_torch` has the same functions for tensors.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import isqrt, prod
from typing import Any, Final, Literal, NamedTuple, SupportsInt

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

Rounding = Literal["nearest_even", "paper"]
Nonfinite = Literal["raise", "saturate"]

ROUNDINGS: Final = ("nearest_even", "paper")
NONFINITES: Final = ("raise", "saturate")
SPANS: Final = (16, 12, 10, 8)
"""How many exponents, counted from the top, the codes of a model may use."""
FLOATS: Final = ("float16", "bfloat16", "float32", "float64")

SIGNIFICANDS: Final = (16, 17, 18, 20, 24, 28, 30)
"""F[m], in units of 1/16: the forms 16, 16+1, 16+2, 16+4, 16+8, 32-4, 32-2."""
EXPONENTS: Final = 16
BIAS_MIN: Final = -128
BIAS_MAX: Final = 127

_BLOCK: Final = 1 << 16  # elements per pass: many to a NumPy call, few enough for the L2 cache


def _tables() -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    values = np.full(256, np.nan)
    integers = np.zeros(256, np.int32)
    values[0] = 0.0
    for exponent in range(EXPONENTS):
        for m, significand in enumerate(SIGNIFICANDS):
            code = exponent << 3 | m
            if code != 0:  # E = 0, m = 0 is the slot that zero takes, with 0x80 invalid
                integers[code] = significand << exponent
                integers[code | 0x80] = -integers[code]
                values[code] = integers[code] / 16
                values[code | 0x80] = -values[code]
    values.setflags(write=False)
    integers.setflags(write=False)
    return values, integers


VALUES, INTEGERS = _tables()
"""Indexed by code, read-only. VALUES (float64) has the value at bias 0, NaN where invalid. INTEGERS
(int32) has W = +-(F[m] << E), by which the hardware multiplies, worth W * 2^(b-4); 0 for zero and,
as in the hardware, where invalid."""


@dataclass(frozen=True)
class FloatInfo:
    """Limits of the format at one bias.

    ``eps`` is the step from a power of two to the next larger value, relative to it. It is the
    finest step and the same at every bias; the coarsest lie on both sides of 3/2, 2^-2 each.
    """

    bias: int
    bits: int
    max: float
    min: float
    smallest: float
    eps: float


def finfo(bias: int = 0) -> FloatInfo:
    """Limits at a bias b, all exact: ``max`` is 15/8 * 2^(15+b), ``smallest`` 17/16 * 2^b.

    Raises ValueError if ``bias`` is not an int8.
    """
    b = int(check_bias(bias, (), "finfo"))
    scale = 2.0**b
    largest = float(VALUES[0x7E]) * scale
    return FloatInfo(b, 8, largest, -largest, float(VALUES[0x01]) * scale, 2.0**-4)


def is_valid(codes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether each code (uint8, any shape) has a value: False for 0x80 and for m = 7."""
    check_codes(codes, "is_valid")
    return np.asarray(((codes & 7) != 7) & (codes != 0x80))


def in_span(codes: NDArray[np.uint8], span: int) -> NDArray[np.bool_]:
    """Whether each code (uint8, any shape) is one that `encode` can give with ``span``.

    It is valid, and zero or of an exponent field of at least 16 - span.
    """
    check_codes(codes, "in_span")
    check_name(span, SPANS, "in_span", "span")
    return np.asarray(is_valid(codes) & ((codes == 0) | ((codes >> 3 & 15) >= EXPONENTS - span)))


@cache
def thresholds(rounding: Rounding, fraction_bits: int) -> tuple[int, ...]:
    """Where each mantissa code begins within an octave, for a float with ``fraction_bits`` bits.

    Entry m - 1 (m = 1..7) is the smallest fraction field that rounds to mantissa code m or above;
    7 stands for m = 0 of the next octave. A field f means t = 1 + f / 2^fraction_bits.

    - nearest_even: the midpoints 33/32, 35/32, 19/16, 11/8, 13/8, 29/16, 31/16; the even m takes
      the tie, and the next octave that of 31/16.
    - paper: 1 + 2^-(4.5, 3.5, 2.5, 1.5) and 2 - 2^-(1.5, 2.5, 3.5), where round(log2) of the
      residual changes. They are irrational, so that no field ties. The paper's own sqrt(2), where
      the first term moves to the upper power of two, only swaps 1 + 1/2 for 2 - 1/2.

    Raises ValueError for an unknown rounding or fewer than 5 fraction bits.
    """
    check_name(rounding, ROUNDINGS, "thresholds", "rounding")
    if fraction_bits < 5:
        raise ValueError(f"thresholds: fraction_bits={fraction_bits} cannot hold midpoints; use 5+")
    one = 1 << fraction_bits
    if rounding == "nearest_even":
        ends = (*SIGNIFICANDS, 32)
        midpoints = [(low + high) * one // 32 - one for low, high in pairwise(ends)]
        return tuple(f + (m % 2 == 1 and m != 7) for m, f in enumerate(midpoints, start=1))
    # floor(one * 2^-(k+1/2)); the fraction beyond it is never zero.
    below = [isqrt(one * one >> 2 * k + 1) for k in (4, 3, 2, 1)]
    return (*(f + 1 for f in below), *(one - f for f in reversed(below[1:])))


@np.errstate(invalid="ignore")  # a signalling NaN is to meet the error below, not a warning
def encode(
    x: ArrayLike,
    bias: ArrayLike = 0,
    *,
    rounding: Rounding = "nearest_even",
    nonfinite: Nonfinite = "raise",
    span: int = 16,
) -> NDArray[np.uint8]:
    """Round floats to RF8 codes.

    Parameters
    ----------
    x
        float16, bfloat16, float32 or float64 of any shape. Each value is rounded once, from its
        own exact value; -0.0 becomes 0x00.
    bias
        Integers in int8's range: a scalar, or an array with x's number of dimensions that
        broadcasts to x's shape, such as ``row_bias(w)[:, None]``.
    rounding
        ``"nearest_even"`` or ``"paper"``; see `thresholds`.
    nonfinite
        ``"raise"``, or ``"saturate"`` to give infinities the largest code. NaN is an error in both.
    span
        16, 12, 10 or 8. A magnitude whose rounded exponent field is below 16 - span becomes zero.

    Returns
    -------
    uint8 codes of x's shape. Magnitudes above 15/8 * 2^(15+b) saturate; those below half of the
    smallest, 17/32 * 2^b, become zero, and from there on at least the smallest.

    Raises
    ------
    ValueError
        NaN or, unless saturated, infinity in x; another dtype; a bias outside int8 or of the
        wrong shape; an unknown option.
    """
    check_name(rounding, ROUNDINGS, "encode", "rounding")
    check_name(nonfinite, NONFINITES, "encode", "nonfinite")
    check_name(span, SPANS, "encode", "span")
    source = _check_floats(x, "encode")
    biases = check_bias(bias, source.shape, "encode")
    codes = np.empty(source.shape, np.uint8)
    if codes.size == 0:
        return codes

    # float32 has room for every bias whose 17/32 * 2^b is a normal number.
    wide = source.dtype.name == "float64" or biases.min() < -125
    layout = _FLOAT64 if wide else _FLOAT32
    bits = np.asarray(source, layout.float_type, order="C").view(layout.int_type)
    origins = (biases + layout.exponent_bias) << layout.fraction_bits  # the bit pattern of 2^b
    finite = True
    for block, origin, out in _blocks(bits, origins.astype(layout.int_type), codes):
        finite &= _encode_block(block, origin, out, layout, rounding, span)
    if not finite:
        _check_finite(source, "encode", allow_infinity=nonfinite == "saturate")
    return codes


def decode(
    codes: NDArray[np.uint8], bias: ArrayLike = 0, dtype: DTypeLike = np.float32
) -> NDArray[Any]:
    """The values of RF8 codes.

    Parameters
    ----------
    codes
        uint8 of any shape.
    bias
        As for `encode`.
    dtype
        float16, bfloat16, float32 or float64.

    Returns
    -------
    An array of the codes' shape, NaN where a code is invalid. A value has at most five significant
    bits, and is exact wherever it lies in the range of ``dtype``: always in float64, at b <= 112 in
    float32 and bfloat16, at -20 <= b <= 0 in float16. Beyond, it is rounded once, as IEEE 754 does
    it, to a subnormal, zero or infinity.

    Raises
    ------
    ValueError
        Codes that are not uint8; another dtype; a bias outside int8 or of the wrong shape.
    """
    check_codes(codes, "decode")
    target = np.dtype(dtype)
    check_dtype(target, "decode")
    biases = check_bias(bias, codes.shape, "decode")
    # Both factors are exact in float32, and so is every product below 2^128, subnormals included:
    # the only rounding is the last conversion.
    work = np.float64 if target.name == "float64" else np.float32
    table, scale = VALUES.astype(work), np.ldexp(work(1), biases.astype(np.int32))
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray((table[codes] * scale).astype(target, copy=False))


@np.errstate(invalid="ignore")
def row_bias(w: ArrayLike, *, rounding: Rounding = "nearest_even") -> NDArray[np.int8]:
    """The bias of each row: the smallest at which the row's largest magnitude does not saturate.

    For w of shape [N, K], dtypes as for `encode`, that is the smallest b with round(max|w|) <=
    15/8 * 2^(15+b), rounded in the mode that `encode` will use and as if exponents had no
    limit. A row of zeros, or of no values, has 0. A row below 2^-113 that would want less than -128
    gets -128, the smallest that an int8 holds, at which more of it underflows.

    Returns
    -------
    int8 of shape [N]; give ``row_bias(w)[:, None]`` to `encode` and `decode`.

    Raises
    ------
    ValueError
        NaN or infinity in w; a row that needs more than 127, from about 2^143 in float64; w not
        two-dimensional or not of a float dtype; an unknown rounding.
    """
    check_name(rounding, ROUNDINGS, "row_bias", "rounding")
    source = _check_floats(w, "row_bias")
    if source.ndim != 2:
        raise ValueError(f"row_bias: w has shape {source.shape}; give one of shape [rows, columns]")
    wide = source.dtype.name == "float64"
    work = source.astype(np.float64 if wide else np.float32, copy=False)
    # Two reductions, as abs() would copy the matrix.
    largest = np.maximum(work.max(axis=1, initial=0), -work.min(axis=1, initial=0))
    if not np.isfinite(largest).all():
        _check_finite(source, "row_bias", allow_infinity=False)
    half, exponent = np.frexp(largest.astype(np.float64))  # half in [1/2, 1)
    fraction = np.ldexp(2 * half - 1, _FLOAT64.fraction_bits)
    carries = fraction >= thresholds(rounding, _FLOAT64.fraction_bits)[6]
    biases = np.where(largest == 0, 0, exponent - EXPONENTS + carries)
    if biases.size and biases.max() > BIAS_MAX:
        row = int(biases.argmax())
        raise ValueError(
            f"row_bias: row {row} reaches {largest[row]:.6g} and needs bias {biases[row]}, "
            f"above {BIAS_MAX}; scale the row down"
        )
    return np.maximum(biases, BIAS_MIN).astype(np.int8)


class _Layout(NamedTuple):
    """An IEEE 754 format, as the integers that its bit patterns are."""

    float_type: type[np.float32 | np.float64]
    int_type: type[np.int32 | np.int64]
    fraction_bits: int
    exponent_bias: int
    infinity: int  # bit pattern; larger magnitudes are NaN


_FLOAT32 = _Layout(np.float32, np.int32, 23, 127, 0xFF << 23)
_FLOAT64 = _Layout(np.float64, np.int64, 52, 1023, 0x7FF << 52)


def _blocks(
    bits: NDArray[Any], origins: NDArray[Any], codes: NDArray[np.uint8]
) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[np.uint8]]]:
    """Cut C-ordered ``bits`` and ``codes`` into 2-D blocks, with [rows, 1] or [1, 1] origins."""
    lead = origins.ndim
    while lead > 0 and origins.shape[lead - 1] == 1:
        lead -= 1  # one origin serves all of the axes from here on
    rows, columns = prod(bits.shape[:lead]), prod(bits.shape[lead:])
    origins = origins.reshape(origins.shape[:lead])
    origins = np.broadcast_to(origins, bits.shape[:lead]).reshape(rows, 1)
    bits, codes = bits.reshape(rows, columns), codes.reshape(rows, columns)
    height, width = max(1, _BLOCK // columns), min(columns, _BLOCK)
    for row in range(0, rows, height):
        for column in range(0, columns, width):
            cut = slice(row, row + height), slice(column, column + width)
            yield bits[cut], origins[cut[0]], codes[cut]


def _encode_block(
    bits: NDArray[Any],
    origin: NDArray[Any],
    out: NDArray[np.uint8],
    layout: _Layout,
    rounding: Rounding,
    span: int,
) -> bool:
    """Encode one block into ``out``; return whether all of it was finite.

    The bits of a positive float grow with its value, so that range rules and rounding are integer
    comparisons. Infinities saturate; what NaN becomes is undefined.
    """
    one = 1 << layout.fraction_bits
    starts = thresholds(rounding, layout.fraction_bits)
    smallest, largest = one // 16, 15 * one + one * 7 // 8
    # The rounded exponent reaches 16 - span where the octave below carries into it; without a
    # span the limit is half of the smallest value, 17/16 * 2^-1.
    nonzero = (15 - span) * one + (starts[6] if span < EXPONENTS else one // 16)

    magnitude = bits & (layout.infinity | one - 1)
    finite = bool(magnitude.max() < layout.infinity)
    field = magnitude - origin  # octaves above 2^b, with the fraction bits behind the point
    if not finite:
        field[magnitude >= layout.infinity] = largest
    keep = field >= nonzero
    # Not against scalars: there NumPy has no vector loop for these two, and takes twice the time.
    np.minimum(field, np.full_like(field, largest), out=field)
    np.maximum(field, np.full_like(field, smallest), out=field)
    np.right_shift(field, layout.fraction_bits - 3, out=out, casting="unsafe")
    out &= 0x78  # E, with m = 0
    field &= one - 1
    for start in starts:
        step = (field >= start).view(np.uint8)
        out += step
    out += step  # from m = 6 to the next octave, past the invalid 7
    out += (bits < 0).view(np.uint8) * np.uint8(0x80)
    out *= keep.view(np.uint8)
    return finite


def check_name(value: object, allowed: tuple[object, ...], function: str, name: str) -> None:
    if value not in allowed:
        choices = ", ".join(map(repr, allowed))
        raise ValueError(f"{function}: {name}={value!r} is unknown; use one of {choices}")


def check_dtype(dtype: np.dtype[Any], function: str) -> None:
    # By name: bfloat16 is no type of NumPy's own, and need not be imported to be recognised.
    if dtype.name not in FLOATS:
        raise ValueError(f"{function}: dtype {dtype} is not supported; use {', '.join(FLOATS)}")


def _check_floats(x: ArrayLike, function: str) -> NDArray[Any]:
    array = np.asarray(x)
    check_dtype(array.dtype, function)
    return array


def check_codes(codes: NDArray[np.uint8], function: str) -> None:
    kind = codes.dtype if isinstance(codes, np.ndarray | np.generic) else type(codes).__name__
    if kind != np.uint8:
        raise ValueError(f"{function}: codes are {kind}; give a uint8 array")


def check_bias(bias: ArrayLike, shape: tuple[int, ...], function: str) -> NDArray[np.int64]:
    """The bias as int64, with as many dimensions as ``shape``."""
    array = np.asarray(bias)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{function}: bias has dtype {array.dtype}; give integers")
    if array.size and (array.min() < BIAS_MIN or array.max() > BIAS_MAX):
        worst = array.min() if array.min() < BIAS_MIN else array.max()
        raise ValueError(f"{function}: bias {worst} is outside {BIAS_MIN}..{BIAS_MAX} (int8)")
    if array.ndim == 0:
        array = array.reshape((1,) * len(shape))
    sizes = zip(array.shape, shape, strict=False)
    if array.ndim != len(shape) or any(b not in (1, n) for b, n in sizes):
        raise ValueError(
            f"{function}: bias of shape {array.shape} does not fit values of shape {shape}; "
            "give a scalar, or one per row as bias[:, None]"
        )
    return array.astype(np.int64)


def _check_finite(x: NDArray[Any], function: str, *, allow_infinity: bool) -> None:
    nan = np.isnan(x)
    bad = nan if allow_infinity else ~np.isfinite(x)
    if bad.any():
        index = np.unravel_index(int(bad.argmax()), x.shape)
        raise nonfinite_error(function, int(nan.sum()), int(bad.sum()), x.size, index)


def nonfinite_error(
    function: str, nans: int, bad: int, size: int, index: Sequence[SupportsInt]
) -> ValueError:
    """The error for ``bad`` values of which ``nans`` are NaN and the rest infinite."""
    if nans:
        way_out = "NaN has no code, so find where it comes from"
    elif function == "encode":
        way_out = "pass nonfinite='saturate' to give infinities the largest code"
    else:
        way_out = "replace them first"
    return ValueError(
        f"{function}: {nans} NaN and {bad - nans} Inf of {size} values, "
        f"first at index {tuple(map(int, index))}; {way_out}"
    )


FINFO: Final = finfo()
