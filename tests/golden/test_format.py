"""The NumPy format against its slow definition in `rf8_reference`, and against answers by hand."""

import json
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import rf8_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from golden import format as rf8

VECTORS = Path(__file__).parents[1] / "vectors"
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
SEED = 20250600486
BIASES = range(-128, 128)
ALL_CODES = np.arange(256, dtype=np.uint8)
VALID = np.array(sorted(reference.CODES.values()), np.uint8)
VALID = np.concatenate([[np.uint8(0)], VALID, VALID | 0x80])

each_rounding = pytest.mark.parametrize("rounding", rf8.ROUNDINGS)
repeatable = settings(derandomize=True, print_blob=True, deadline=None, max_examples=200)


def expect(x: NDArray[Any], bias: int | NDArray[Any], rounding: str, span: int = 16) -> Any:
    """The definition, one number after the other."""
    values, biases = x.astype(np.float64).ravel(), np.broadcast_to(bias, x.shape).ravel()
    pairs = zip(values.tolist(), biases.tolist(), strict=True)
    codes = [reference.encode(Fraction(value), b, rounding, span) for value, b in pairs]
    return np.array(codes, np.uint8).reshape(x.shape)


def vectors(name: str) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((VECTORS / name).read_text())["cases"]
    return cases


# The table of codes


def test_every_code_has_the_value_of_the_definition() -> None:
    value = {code: v for v, code in reference.CODES.items()}
    value |= {code | 0x80: -v for code, v in value.items()}
    value[0] = Fraction(0)
    for code in range(256):
        assert rf8.is_valid(ALL_CODES)[code] == (code in value)
        assert rf8.INTEGERS[code] == 16 * value.get(code, 0)
        if code in value:
            assert Fraction(rf8.VALUES[code]) == value[code]
        else:
            assert np.isnan(rf8.VALUES[code])
    assert len(value) == 256 - 33
    assert rf8.VALUES.dtype == np.float64
    assert rf8.INTEGERS.dtype == np.int32
    assert [int(16 * step) for step in reference.STEPS[:7]] == list(rf8.SIGNIFICANDS)


@pytest.mark.parametrize("span", rf8.SPANS)
def test_codes_in_a_span_are_those_that_encode_keeps(span: int) -> None:
    for code in range(256):
        kept = rf8.is_valid(ALL_CODES)[code] and rf8.encode(rf8.VALUES[code], span=span) == code
        assert rf8.in_span(ALL_CODES, span)[code] == kept, hex(code)


def test_codes_of_one_sign_are_ordered_by_magnitude() -> None:
    positive = rf8.VALUES[VALID[VALID < 0x80]]
    assert (np.diff(positive) > 0).all()
    assert (np.diff(rf8.VALUES[VALID[VALID >= 0x80]]) < 0).all()


def test_every_value_is_two_powers_of_two_at_most_four_apart() -> None:
    term = {0} | {sign << k for k in range(21) for sign in (1, -1)}
    for integer in map(int, rf8.INTEGERS[VALID & 0x7F]):
        shifts = range(integer.bit_length() + 1)
        apart = [k - r for k in shifts for r in shifts if abs(integer - (1 << k)) == 1 << r]
        assert integer in term or any(0 < d <= 4 for d in apart)


def test_tables_cannot_be_changed() -> None:
    for table in (rf8.VALUES, rf8.INTEGERS):
        with pytest.raises(ValueError, match="read-only"):
            table[1] = 0


@pytest.mark.parametrize("bias", [-128, -3, 0, 127])
def test_finfo(bias: int) -> None:
    info = rf8.finfo(bias)
    assert Fraction(info.max) == reference.LARGEST * reference.power(bias) == -Fraction(info.min)
    assert Fraction(info.smallest) == reference.SMALLEST * reference.power(bias)
    assert (info.bits, info.bias, info.eps) == (8, bias, 1 / 16)
    assert rf8.finfo() == rf8.FINFO


# Rounding


@each_rounding
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_code_survives_decoding_at_every_bias(rounding: rf8.Rounding, dtype: Any) -> None:
    biases = np.array([b for b in BIASES if dtype == np.float64 or b <= 112])[:, None]
    codes = np.broadcast_to(VALID, (len(biases), len(VALID)))
    values = rf8.decode(codes, biases, dtype)
    assert values.dtype == dtype
    np.testing.assert_array_equal(rf8.encode(values, biases, rounding=rounding), codes)


@each_rounding
@pytest.mark.parametrize("fraction_bits", [5, 7, 10, 23, 52])
def test_thresholds(rounding: rf8.Rounding, fraction_bits: int) -> None:
    starts = rf8.thresholds(rounding, fraction_bits)
    assert list(starts) == reference.first_fields(fraction_bits, rounding)


@each_rounding
@pytest.mark.parametrize(("dtype", "infinity"), [(np.float16, 0x7C00), (BFLOAT16, 0x7F80)])
def test_every_finite_16_bit_input(
    rounding: rf8.Rounding, dtype: np.dtype[Any], infinity: int
) -> None:
    x = np.arange(infinity, dtype=np.uint16).view(dtype)
    # Bias 0, and biases that bring every octave of the input near one or the other limit.
    exponents = np.frexp(x.astype(np.float64))[1]
    near = np.clip(exponents - 9 + np.arange(x.size) % 23 - 11, -128, 127)
    for biases in (np.zeros_like(near), near):
        codes = rf8.encode(x, biases, rounding=rounding)
        np.testing.assert_array_equal(codes, expect(x, biases, rounding))
        negative = np.where(codes == 0, 0, codes | 0x80)
        np.testing.assert_array_equal(rf8.encode(-x, biases, rounding=rounding), negative)


@each_rounding
def test_every_float32_mantissa(rounding: rf8.Rounding) -> None:
    low = int(np.float32(8).view(np.int32))
    for start in range(0, 1 << 23, 1 << 16):
        fields = np.arange(start, start + (1 << 16))
        x = (low + fields).astype(np.int32).view(np.float32)
        m = reference.octave(fields, 23, rounding)
        np.testing.assert_array_equal(rf8.encode(x, rounding=rounding), 3 * 8 + m + (m == 7))


@each_rounding
def test_the_fast_definition_is_the_slow_one(rounding: str) -> None:
    fields = np.arange(1 << 12)
    x = (1 + fields / 4096) * 8
    m = reference.octave(fields, 12, rounding)
    np.testing.assert_array_equal(3 * 8 + m + (m == 7), expect(x, 0, rounding))


@each_rounding
@pytest.mark.parametrize("bias", [-128, -126, -125, 0, 112, 127])
@pytest.mark.parametrize(("dtype", "fraction_bits"), [(np.float32, 23), (np.float64, 52)])
def test_beside_every_boundary(
    rounding: rf8.Rounding, bias: int, dtype: Any, fraction_bits: int
) -> None:
    with np.errstate(over="ignore"):
        x = reference.beside_boundaries(fraction_bits, rounding, bias).astype(dtype)
    x = x[np.isfinite(x)]
    np.testing.assert_array_equal(rf8.encode(x, bias, rounding=rounding), expect(x, bias, rounding))


@each_rounding
@pytest.mark.parametrize("span", rf8.SPANS)
def test_spans(rounding: rf8.Rounding, span: int) -> None:
    x = reference.beside_boundaries(23, rounding, -7).astype(np.float32)
    codes = rf8.encode(x, -7, rounding=rounding, span=span)
    np.testing.assert_array_equal(codes, expect(x, -7, rounding, span))
    full = rf8.encode(x, -7, rounding=rounding)
    np.testing.assert_array_equal(codes, np.where((full >> 3 & 15) < 16 - span, 0, full))


@repeatable
@given(
    x=st.floats(allow_nan=False, allow_infinity=False),
    octaves=st.integers(-3, 20),
    rounding=st.sampled_from(rf8.ROUNDINGS),
    span=st.sampled_from(rf8.SPANS),
)
def test_any_float64(x: float, octaves: int, rounding: rf8.Rounding, span: int) -> None:
    bias = int(np.clip(np.frexp(x)[1] - octaves, -128, 127))
    code = rf8.encode(x, bias, rounding=rounding, span=span)
    assert code == reference.encode(Fraction(x), bias, rounding, span)


@each_rounding
def test_subnormal_inputs(rounding: rf8.Rounding) -> None:
    print(f"seed {SEED}")
    fields = np.random.default_rng(SEED).integers(0, 1 << 23, 2000, np.int32)
    x = np.concatenate([fields, 1 << np.arange(23), [(1 << 23) - 1]]).astype(np.int32)
    x = x.view(np.float32)
    for bias in (-128, -127, -126, -125):
        np.testing.assert_array_equal(
            rf8.encode(x, bias, rounding=rounding), expect(x, bias, rounding)
        )
    assert not rf8.encode(x, -124, rounding=rounding).any()


@pytest.mark.parametrize("case", vectors("rf8_encode.json"), ids=lambda case: case["comment"])
def test_encode_by_hand(case: dict[str, Any]) -> None:
    x, code = float.fromhex(case["x"]), int(case["code"], 16)
    bias, rounding, span = case["bias"], case["rounding"], case["span"]
    assert reference.encode(Fraction(x), bias, rounding, span) == code
    assert rf8.encode(np.float64(x), bias, rounding=rounding, span=span) == code
    if float(np.float32(x)) == x:
        assert rf8.encode(np.float32(x), bias, rounding=rounding, span=span) == code
    else:
        assert "float64" in case["comment"]


# Decoding


def test_decode_is_exact_in_float64_at_every_bias() -> None:
    values = rf8.decode(np.broadcast_to(ALL_CODES, (256, 256)), np.array(BIASES)[:, None], "f8")
    exact = [[Fraction(int(w)) * reference.power(b - 4) for w in rf8.INTEGERS] for b in BIASES]
    valid = rf8.is_valid(ALL_CODES)
    assert np.isnan(values[:, ~valid]).all()
    for row, expected in zip(values, exact, strict=True):
        finite = zip(row, expected, valid, strict=True)
        assert all(Fraction(v) == e for v, e, is_valid in finite if is_valid)


@pytest.mark.parametrize(
    ("dtype", "exact"),
    [
        (np.float32, range(-128, 113)),
        (BFLOAT16, range(-128, 113)),
        (np.float16, range(-20, 1)),
    ],
)
def test_decode_rounds_once(dtype: Any, exact: range) -> None:
    codes, biases = np.broadcast_to(ALL_CODES, (256, 256)), np.array(BIASES)[:, None]
    wide, values = rf8.decode(codes, biases, np.float64), rf8.decode(codes, biases, dtype)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(values.astype("f8"), wide.astype(dtype).astype("f8"))
    rows = np.isin(BIASES, exact)
    np.testing.assert_array_equal(values[rows].astype(np.float64), wide[rows])


@pytest.mark.parametrize("case", vectors("rf8_decode.json"), ids=lambda case: case["comment"])
def test_decode_by_hand(case: dict[str, Any]) -> None:
    code, value = np.uint8(int(case["code"], 16)), float.fromhex(case["value"])
    assert rf8.INTEGERS[code] == case["integer"]
    for dtype in (np.float32, np.float64):
        decoded = rf8.decode(np.asarray(code), case["bias"], dtype)
        np.testing.assert_array_equal(decoded, np.asarray(value, dtype), strict=True)


# Row bias


@pytest.mark.parametrize("case", vectors("rf8_row_bias.json"), ids=lambda case: case["comment"])
def test_row_bias_by_hand(case: dict[str, Any]) -> None:
    row = np.array([[float.fromhex(v) for v in case["row"]]], np.float64)
    assert rf8.row_bias(row, rounding=case["rounding"]) == [case["bias"]]


@each_rounding
@pytest.mark.parametrize(
    ("dtype", "fraction_bits", "octaves"),
    [
        (np.float16, 10, range(-14, 15)),
        (BFLOAT16, 7, range(-126, 127, 7)),
        (np.float32, 23, range(-126, 127, 7)),
        (np.float64, 52, range(-300, 142, 17)),
    ],
)
def test_row_bias_is_the_smallest_that_does_not_saturate(
    rounding: rf8.Rounding, dtype: Any, fraction_bits: int, octaves: range
) -> None:
    fields = reference.first_fields(fraction_bits, rounding)[6] + np.arange(-2, 3)
    mantissas = 1 + fields / 2.0**fraction_bits
    largest = np.ldexp(mantissas, np.array(octaves)[:, None]).ravel()
    rows = np.stack([largest / 3, -largest, 0 * largest], axis=1).astype(dtype)
    biases = rf8.row_bias(rows, rounding=rounding)
    assert biases.dtype == np.int8
    for value, bias in zip(largest.tolist(), biases.tolist(), strict=True):
        rounded = reference.ROUND[rounding](Fraction(value))
        assert rounded <= reference.LARGEST * reference.power(bias)
        assert bias == -128 or rounded > reference.LARGEST * reference.power(bias - 1)


def test_row_bias_sees_both_signs_and_any_layout() -> None:
    print(f"seed {SEED}")
    w = np.random.default_rng(SEED).standard_t(2, (50, 30))
    biases = rf8.row_bias(w)
    for same in (-w, w[:, ::-1], np.asfortranarray(w), np.abs(w).astype(">f8")):
        np.testing.assert_array_equal(rf8.row_bias(same), biases)
    assert rf8.row_bias(np.empty((0, 7), np.float32)).shape == (0,)


# Shapes, layouts and dtypes


@each_rounding
@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16, np.float32, np.float64])
def test_layouts(rounding: rf8.Rounding, dtype: Any) -> None:
    print(f"seed {SEED}")
    x = np.random.default_rng(SEED).standard_normal((6, 10, 14)).astype(dtype)
    codes = rf8.encode(x, -14, rounding=rounding)
    assert codes.dtype == np.uint8
    for cut in (np.s_[::2, ::-1, 1::3], np.s_[3], np.s_[..., 0], np.s_[2, 3, 4], np.s_[:0]):
        part = rf8.encode(x[cut], -14, rounding=rounding)
        assert isinstance(part, np.ndarray)
        np.testing.assert_array_equal(part, codes[cut], strict=True)
        assert rf8.decode(part, -14, dtype).shape == part.shape
    np.testing.assert_array_equal(rf8.encode(x.T, -14, rounding=rounding), codes.T)
    values = rf8.decode(codes.T[::2], -14, dtype)
    np.testing.assert_array_equal(values, rf8.decode(codes, -14, dtype).T[::2], strict=True)


def test_other_byte_order_and_plain_python_floats() -> None:
    x = np.array([0.3, -5.0, 2.0625000001])
    codes = rf8.encode(x)
    np.testing.assert_array_equal(rf8.encode(x.astype(">f8")), codes)
    np.testing.assert_array_equal(rf8.encode(x.tolist()), codes)
    np.testing.assert_array_equal(rf8.encode(x.astype(">f4")), rf8.encode(x.astype("f4")))
    assert rf8.encode(1.5, -1)[()] == 0x0C


@each_rounding
@pytest.mark.parametrize("shape", [(3, 70_000), (2, 65_536), (70_000, 3), (1000, 200), (200_001,)])
def test_arrays_of_many_blocks(rounding: rf8.Rounding, shape: tuple[int, ...]) -> None:
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    x = np.ldexp(rng.standard_normal(shape, np.float32), rng.integers(-9, 9, shape))
    biases = rng.integers(-14, 2, (shape[0], *[1] * (len(shape) - 1)), np.int8)
    starts = rf8.thresholds(rounding, 23)
    field, octave = np.frexp(np.abs(x).astype(np.float64))
    m = np.searchsorted(starts, (2 * field - 1) * 2**23, side="right")
    expected = np.clip((octave - 1 - biases.astype(int)) * 8 + m + (m == 7), 1, 0x7E)
    expected[np.abs(x) < np.ldexp(17 / 32, biases.astype(int))] = 0
    expected[(x < 0) & (expected > 0)] += 0x80
    np.testing.assert_array_equal(rf8.encode(x, biases, rounding=rounding), expected)


@pytest.mark.parametrize(
    "bias_shape", [(), (4, 1, 1), (1, 5, 1), (1, 1, 6), (4, 5, 1), (4, 1, 6), (4, 5, 6), (1, 1, 1)]
)
def test_biases_broadcast(bias_shape: tuple[int, ...]) -> None:
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal((4, 5, 6), np.float32)
    biases = rng.integers(-17, -10, bias_shape, np.int8)
    full = np.broadcast_to(biases, x.shape)
    each = [int(rf8.encode(v, int(b))[()]) for v, b in zip(x.flat, full.flat, strict=True)]
    codes = rf8.encode(x, biases)
    np.testing.assert_array_equal(codes.ravel(), each)
    np.testing.assert_array_equal(rf8.decode(codes, biases), rf8.decode(codes, full))


def test_input_is_left_alone() -> None:
    x = np.linspace(-9, 9, 50, dtype=np.float32)
    before = x.copy()
    x.setflags(write=False)
    rf8.encode(x)
    rf8.row_bias(x[:, None])
    np.testing.assert_array_equal(x, before)


# Infinities, NaN and other errors


@each_rounding
@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16, np.float32, np.float64])
@pytest.mark.parametrize("bias", [-128, -125, 0, 113, 127])
def test_infinities_saturate_when_asked(rounding: rf8.Rounding, dtype: Any, bias: int) -> None:
    x = np.array([np.inf, 0.0, -np.inf, -0.0], dtype)
    for span in rf8.SPANS:
        codes = rf8.encode(x, bias, rounding=rounding, nonfinite="saturate", span=span)
        assert codes.tolist() == [0x7E, 0, 0xFE, 0]


@pytest.mark.parametrize(("dtype", "infinity"), [(np.float16, 0x7C00), (BFLOAT16, 0x7F80)])
def test_every_16_bit_nan_is_an_error(dtype: np.dtype[Any], infinity: int) -> None:
    nans = np.concatenate([np.arange(infinity + 1, 0x8000), np.arange(infinity + 0x8001, 0x10000)])
    for nan in nans.astype(np.uint16).view(dtype)[:, None]:
        with pytest.raises(ValueError, match="1 NaN and 0 Inf of 1 values"):
            rf8.encode(nan, nonfinite="saturate")


def test_infinities_saturate_in_every_block() -> None:
    x = np.full((3, 100_000), np.inf, np.float32)
    assert (rf8.encode(x, nonfinite="saturate") == 0x7E).all()


def bad(shape: tuple[int, ...], **values: tuple[int, ...]) -> NDArray[np.float32]:
    x = np.zeros(shape, np.float32)
    for name, index in values.items():
        x[index] = float(name)
    return x


ERRORS: list[tuple[Callable[[], object], str]] = [
    (
        lambda: rf8.encode(bad((64, 64), inf=(0, 17), nan=(3, 2))),
        (
            "encode: 1 NaN and 1 Inf of 4096 values, first at index (0, 17); "
            "NaN has no code, so find where it comes from"
        ),
    ),
    (
        lambda: rf8.encode(-bad((300_000,), inf=(299_999,))),
        (
            "encode: 0 NaN and 1 Inf of 300000 values, first at index (299999,); "
            "pass nonfinite='saturate' to give infinities the largest code"
        ),
    ),
    (
        lambda: rf8.encode(bad((64, 64), inf=(0, 17), nan=(3, 2)), nonfinite="saturate"),
        (
            "encode: 1 NaN and 0 Inf of 4096 values, first at index (3, 2); "
            "NaN has no code, so find where it comes from"
        ),
    ),
    (
        lambda: rf8.encode(np.float64("nan")),
        (
            "encode: 1 NaN and 0 Inf of 1 values, first at index (); "
            "NaN has no code, so find where it comes from"
        ),
    ),
    (
        lambda: rf8.row_bias(bad((2, 3), inf=(1, 2))),
        "row_bias: 0 NaN and 1 Inf of 6 values, first at index (1, 2); replace them first",
    ),
    (
        lambda: rf8.row_bias(bad((2, 3), nan=(1, 0))),
        (
            "row_bias: 1 NaN and 0 Inf of 6 values, first at index (1, 0); "
            "NaN has no code, so find where it comes from"
        ),
    ),
    (
        lambda: rf8.row_bias(np.array([[1.0], [2.0**143]])),
        "row_bias: row 1 reaches 1.11504e+43 and needs bias 128, above 127; scale the row down",
    ),
    (
        lambda: rf8.row_bias(np.zeros(3)),
        "row_bias: w has shape (3,); give one of shape [rows, columns]",
    ),
    (
        lambda: rf8.encode(1.0, rounding="nearest"),  # type: ignore[arg-type]
        "encode: rounding='nearest' is unknown; use one of 'nearest_even', 'paper'",
    ),
    (
        lambda: rf8.row_bias(np.zeros((1, 1)), rounding="up"),  # type: ignore[arg-type]
        "row_bias: rounding='up' is unknown; use one of 'nearest_even', 'paper'",
    ),
    (
        lambda: rf8.encode(1.0, nonfinite="clip"),  # type: ignore[arg-type]
        "encode: nonfinite='clip' is unknown; use one of 'raise', 'saturate'",
    ),
    (
        lambda: rf8.encode(1.0, span=14),
        "encode: span=14 is unknown; use one of 16, 12, 10, 8",
    ),
    (
        lambda: rf8.encode([1, 2]),
        "encode: dtype int64 is not supported; use float16, bfloat16, float32, float64",
    ),
    (
        lambda: rf8.encode(np.zeros(2, bool)),
        "encode: dtype bool is not supported; use float16, bfloat16, float32, float64",
    ),
    (
        lambda: rf8.encode(np.zeros(2, complex)),
        "encode: dtype complex128 is not supported; use float16, bfloat16, float32, float64",
    ),
    (
        lambda: rf8.encode(np.array([1.0], object)),
        "encode: dtype object is not supported; use float16, bfloat16, float32, float64",
    ),
    (
        lambda: rf8.encode(np.zeros(2, ml_dtypes.float8_e4m3fn)),
        "encode: dtype float8_e4m3fn is not supported; use float16, bfloat16, float32, float64",
    ),
    (
        lambda: rf8.decode(ALL_CODES, dtype=np.int32),
        "decode: dtype int32 is not supported; use float16, bfloat16, float32, float64",
    ),
    (
        lambda: rf8.decode(np.arange(3)),  # type: ignore[arg-type]
        "decode: codes are int64; give a uint8 array",
    ),
    (
        lambda: rf8.is_valid([1, 2]),  # type: ignore[arg-type]
        "is_valid: codes are list; give a uint8 array",
    ),
    (
        lambda: rf8.in_span(ALL_CODES, 9),
        "in_span: span=9 is unknown; use one of 16, 12, 10, 8",
    ),
    (
        lambda: rf8.encode(1.0, 128),
        "encode: bias 128 is outside -128..127 (int8)",
    ),
    (
        lambda: rf8.decode(ALL_CODES[:2], np.array([-129, 3])),
        "decode: bias -129 is outside -128..127 (int8)",
    ),
    (
        lambda: rf8.finfo(-200),
        "finfo: bias -200 is outside -128..127 (int8)",
    ),
    (
        lambda: rf8.encode(1.0, 0.5),
        "encode: bias has dtype float64; give integers",
    ),
    (
        # One bias per row, without its axis, would otherwise run along the columns.
        lambda: rf8.encode(np.zeros((4, 4)), np.zeros(4, np.int8)),
        (
            "encode: bias of shape (4,) does not fit values of shape (4, 4); "
            "give a scalar, or one per row as bias[:, None]"
        ),
    ),
    (
        lambda: rf8.decode(np.zeros((4, 4), np.uint8), np.zeros((3, 1), np.int8)),
        (
            "decode: bias of shape (3, 1) does not fit values of shape (4, 4); "
            "give a scalar, or one per row as bias[:, None]"
        ),
    ),
    (
        lambda: rf8.encode(np.zeros(4), np.zeros((2, 4), np.int8)),
        (
            "encode: bias of shape (2, 4) does not fit values of shape (4,); "
            "give a scalar, or one per row as bias[:, None]"
        ),
    ),
    (
        lambda: rf8.thresholds("paper", 4),
        "thresholds: fraction_bits=4 cannot hold midpoints; use 5+",
    ),
]


@pytest.mark.parametrize(("call", "message"), ERRORS, ids=[message for _, message in ERRORS])
def test_errors(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()
