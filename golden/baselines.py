"""Number formats that RF8 is compared with, as integers: what their lanes multiply by.

Every format is one byte a weight. Its value is an integer times a power of two that a scale can
hold, so dot products are exact integer sums, as those of RF8 are.

======  ========================================================================================
int8    two's complement
e4m3    OCP FP8 E4M3: sign, 4 exponent bits (bias 7), 3 mantissa bits; subnormals; 0x7F, 0xFF NaN
e5m2    OCP FP8 E5M2: sign, 5 exponent bits (bias 15), 2 mantissa bits; subnormals; exponent 31 is
        infinity or NaN
pot     power of two: sign (bit 7), exponent 1 to 15 (bits 3..0): +-2**(e - 1); 0 is zero; bits
        6..4 are zero
apot2   sum of two powers of two: sign (bit 7), exponent e (bits 6..3), distance d (bits 2..0):
        +-(2**e + 2**(e - d)) * 2**7, without the second term for d = 0; 0x00 is zero, 0x80 is none
======  ========================================================================================
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]

_CODES = np.arange(256, dtype=np.int64)
_SIGN = 1 - 2 * (_CODES >> 7)


def _minifloat(mantissa_bits: int) -> Int64:
    mantissa = _CODES & (1 << mantissa_bits) - 1
    exponent = (_CODES & 127) >> mantissa_bits
    normal = exponent > 0
    significand = mantissa + (normal << mantissa_bits)
    return _SIGN * (significand << np.where(normal, exponent - 1, 0))


def _pot() -> Int64:
    exponent = _CODES & 15
    return _SIGN * np.where(exponent > 0, 1 << np.maximum(exponent - 1, 0), 0)


def _apot2() -> Int64:
    exponent, distance = (_CODES >> 3) & 15, _CODES & 7
    second = np.where(distance > 0, 1 << (7 - distance), 0)
    return _SIGN * np.where((_CODES & 127) > 0, (128 + second) << exponent, 0)


INTEGERS: dict[str, Int64] = {
    "int8": _CODES - 256 * (_CODES >> 7),
    "e4m3": _minifloat(3),
    "e5m2": _minifloat(2),
    "pot": _pot(),
    "apot2": _apot2(),
}
"""Format -> the integer of each code; codes in `INVALID` have none, and read as zero."""

INVALID: dict[str, NDArray[np.bool_]] = {
    "int8": np.zeros(256, bool),
    "e4m3": (_CODES & 127) == 127,
    "e5m2": (_CODES & 127) >= 124,
    "pot": ((_CODES & 0x70) != 0) | (_CODES == 0x80),
    "apot2": _CODES == 0x80,
}
"""Format -> codes that are no number."""

for _name, _integers in INTEGERS.items():
    _integers[INVALID[_name]] = 0
