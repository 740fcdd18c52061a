"""RF8 by its definition: slow, in exact rational arithmetic, and sharing no line with `golden`.

`encode` follows the words of the format's contract for one number at a time. `octave` is the same
two rounding rules for many mantissas at once, in integers.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import NDArray

# Mantissas of one octave by code, as sums of two powers of two; the eighth is the next octave.
STEPS = (
    Fraction(1),
    1 + Fraction(1, 16),
    1 + Fraction(1, 8),
    1 + Fraction(1, 4),
    1 + Fraction(1, 2),
    2 - Fraction(1, 4),
    2 - Fraction(1, 8),
    Fraction(2),
)

CODES = {
    STEPS[m] * 2**exponent: 8 * exponent + m
    for exponent in range(16)
    for m in range(7)
    if (exponent, m) != (0, 0)
}
"""Positive value at bias 0 -> code."""

SMALLEST, LARGEST = min(CODES), max(CODES)


@cache
def power(exponent: int) -> Fraction:
    return Fraction(2) ** exponent


def floor_log2(x: Fraction) -> int:
    guess = x.numerator.bit_length() - x.denominator.bit_length()
    return guess if power(guess) <= x else guess - 1


def round_log2(x: Fraction) -> int:
    """The integer nearest to log2(x): the e with 2^(e - 1/2) <= x < 2^(e + 1/2), by squares."""
    return floor_log2(2 * x * x) // 2


def round_nearest(x: Fraction) -> Fraction:
    """The nearest value if exponents had no limit; x > 0."""
    octave = power(floor_log2(x))
    t = x / octave
    # Ties go to the even m. At 31/16 both are: m = 6, and the m = 0 of the next octave, which is
    # to win and therefore comes first.
    order = (7, 0, 1, 2, 3, 4, 5, 6)
    m = min(order, key=lambda m: (abs(t - STEPS[m]), m in (1, 3, 5)))
    return octave * STEPS[m]


def round_paper(x: Fraction) -> Fraction:
    """The algorithm of arXiv 2506.00486: two powers of two, rounded in the log domain; x > 0."""
    e1 = round_log2(x)
    residual = x - power(e1)
    if residual == 0:
        return x
    e2 = round_log2(abs(residual))
    if e1 - e2 > 4:
        return power(e1)
    return power(e1) + (power(e2) if residual > 0 else -power(e2))


ROUND: dict[str, Callable[[Fraction], Fraction]] = {
    "nearest_even": round_nearest,
    "paper": round_paper,
}


def encode(value: Fraction, bias: int, rounding: str, span: int = 16) -> int:
    """The code of a finite number."""
    magnitude = abs(value) / power(bias)
    if magnitude < SMALLEST / 2:
        return 0
    rounded = min(max(ROUND[rounding](magnitude), SMALLEST), LARGEST)
    code = CODES[rounded]
    if code // 8 < 16 - span:
        return 0
    return code + 128 if value < 0 else code


def octave(fields: NDArray[np.int64], fraction_bits: int, rounding: str) -> NDArray[np.int64]:
    """The mantissa codes 0..7 of t = 1 + field / 2^fraction_bits, 7 being the next octave.

    Squares are compared in int64, so that fraction_bits is at most 30.
    """
    one = 1 << fraction_bits
    t = one + fields
    if rounding == "nearest_even":
        best, m = np.full_like(t, 16 * one), np.zeros_like(t)
        for candidate in (7, 0, 2, 4, 6, 1, 3, 5):  # in order of who wins a tie
            distance = np.abs(16 * t - int(16 * STEPS[candidate]) * one)
            closer = distance < best
            best, m = np.where(closer, distance, best), np.where(closer, candidate, m)
        return m
    e1 = (t * t >= 2 * one * one).astype(np.int64)  # log2(t) >= 1/2
    residual = t - (one << e1)
    # round(log2(residual / one)), or -5 for everything below: 2^(e2 - 1/2) <= residual / one
    square = 2 * residual * residual
    e2 = sum((square >= one * one >> -2 * e).astype(np.int64) for e in (-4, -3, -2, -1)) - 5
    term = np.where(e1 - e2 <= 4, 1 << np.maximum(e2 + 4, 0), 0)
    sixteenths = (16 << e1) + np.sign(residual) * term
    codes: NDArray[np.int64] = np.searchsorted([int(16 * step) for step in STEPS], sixteenths)
    return codes


def first_fields(fraction_bits: int, rounding: str) -> list[int]:
    """For m = 1..7 the smallest field whose 1 + field / 2^fraction_bits rounds to m or above."""
    one = 1 << fraction_bits

    def search(step: Fraction) -> int:
        low, high = 0, one  # low rounds below the step, high does not
        while high - low > 1:
            middle = (low + high) // 2
            reached = ROUND[rounding](1 + Fraction(middle, one)) >= step
            low, high = (low, middle) if reached else (middle, high)
        return high

    return [search(step) for step in STEPS[1:]]


def beside_boundaries(fraction_bits: int, rounding: str, bias: int) -> NDArray[np.float64]:
    """Floats on both sides of every point where the code changes, and of every value.

    For every exponent from two below the range of ``bias`` to one above it, with alternating signs.
    """
    one = 1 << fraction_bits
    fields = [
        field + near for field in first_fields(fraction_bits, rounding) for near in (-2, -1, 0, 1)
    ]
    fields += [int(one * (step - 1)) + near for step in STEPS[:7] for near in (-1, 0, 1)]
    mantissas = one + np.unique(fields).astype(np.float64)
    points = np.ldexp(mantissas, np.arange(-2, 18)[:, None] - fraction_bits + bias).ravel()
    points[::2] *= -1
    return points
