from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden.arith import requantize, saturate, shift_round_half_even


def clamp(value, bits):
    return max(-(1 << bits - 1), min((1 << bits - 1) - 1, value))


def reference(dot, scale, bias):
    # Python rounds Fractions half to even.
    return clamp(round(Fraction(dot) * Fraction(2) ** scale) + bias, 32)


@settings(max_examples=2000, derandomize=True, deadline=None)
@given(
    st.integers(-(2**62) + 1, 2**62 - 1),
    st.integers(-400, 400),
    st.integers(-(2**31), 2**31 - 1),
)
def test_requantize_against_rationals(dot, scale, bias):
    assert requantize(np.array([dot]), scale, bias)[0] == reference(dot, scale, bias)


def test_requantize_near_ties_and_bounds():
    cases = [
        (sign * (base + delta), -shift, bias)
        for sign in (1, -1)
        for shift in range(1, 61)
        for base in (1 << shift >> 1, 3 << shift >> 1, (1 << 33) - 1)
        for delta in (-1, 0, 1)
        for bias in (0, 2**31 - 1, -(2**31))
    ]
    dots, scales, biases = (np.array(column) for column in zip(*cases, strict=True))
    expected = [reference(*case) for case in cases]
    assert requantize(dots, scales, biases).tolist() == expected


@pytest.mark.parametrize("right", [0, 1, 5, 31, 62, 63, 64, 200])
def test_shift_rounds_half_to_even(right):
    values = np.array([0, 1, 2, 3, -1, -2, -3, 2**61, -(2**61), 2**61 + 2**60, 12345678901])
    expected = [round(Fraction(int(v), 1 << right)) for v in values]
    assert shift_round_half_even(values, right).tolist() == expected


def test_saturate():
    values = np.array([127, 128, -128, -129])
    assert saturate(values, 8).tolist() == [127, 127, -128, -128]
