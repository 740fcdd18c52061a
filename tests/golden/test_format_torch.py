"""The PyTorch format against the NumPy one: the same codes, values, biases and errors.

On a machine with CUDA the tests run once more there.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rf8_reference as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from golden import format as rf8
from golden import format_torch as rf8_torch

VECTORS = Path(__file__).parents[1] / "vectors"
SEED = 20250600486
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)

each_device = pytest.mark.parametrize("device", DEVICES)
each_rounding = pytest.mark.parametrize("rounding", rf8.ROUNDINGS)
repeatable = settings(derandomize=True, print_blob=True, deadline=None, max_examples=150)


def to_numpy(x: Tensor) -> NDArray[Any]:
    """The same values; NumPy has no bfloat16, and float32 holds them all."""
    array: NDArray[Any] = (x.float() if x.dtype == torch.bfloat16 else x).cpu().numpy()
    return array


def assert_same(tensor: Tensor, array: NDArray[Any]) -> None:
    np.testing.assert_array_equal(to_numpy(tensor), array, strict=True)


@each_device
def test_tables(device: str) -> None:
    codes = np.arange(256, dtype=np.uint8)
    on_device = torch.from_numpy(codes).to(device)
    assert_same(rf8_torch.is_valid(on_device), rf8.is_valid(codes))
    biases = np.arange(-128, 128, dtype=np.int8)[:, None]
    grid = on_device.expand(256, 256)
    for dtype in DTYPES:
        values = rf8_torch.decode(grid, torch.from_numpy(biases).to(device), dtype)
        assert values.dtype == dtype
        assert values.device == on_device.device
        exact = torch.from_numpy(rf8.decode(grid.cpu().numpy(), biases, np.float64))
        assert_same(values, to_numpy(exact.to(dtype)))


@each_device
@each_rounding
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_finite_16_bit_input(rounding: rf8.Rounding, dtype: torch.dtype, device: str) -> None:
    x = torch.arange(0x10000, dtype=torch.int32).to(torch.int16).view(dtype)
    x = x[x.isfinite()].to(device)
    near = np.clip(np.frexp(to_numpy(x))[1] - 9 + np.arange(len(x)) % 23 - 11, -128, 127)
    for biases in (np.zeros_like(near), near):
        for span in rf8.SPANS:
            codes = rf8_torch.encode(x, torch.from_numpy(biases), rounding=rounding, span=span)
            assert codes.device == x.device
            assert_same(codes, rf8.encode(to_numpy(x), biases, rounding=rounding, span=span))


@each_device
@each_rounding
def test_every_float32_mantissa(rounding: rf8.Rounding, device: str) -> None:
    low = int(np.float32(8).view(np.int32))
    for start in range(0, 1 << 23, 1 << 20):
        bits = np.arange(low + start, low + start + (1 << 20), dtype=np.int32)
        x = bits.view(np.float32)
        codes = rf8_torch.encode(torch.from_numpy(x).to(device), rounding=rounding)
        assert_same(codes, rf8.encode(x, rounding=rounding))


@each_device
@each_rounding
@pytest.mark.parametrize("bias", [-128, -126, -125, 0, 112, 127])
@pytest.mark.parametrize(("dtype", "fraction_bits"), [(np.float32, 23), (np.float64, 52)])
def test_beside_every_boundary(
    rounding: rf8.Rounding, bias: int, dtype: Any, fraction_bits: int, device: str
) -> None:
    with np.errstate(over="ignore"):
        x = reference.beside_boundaries(fraction_bits, rounding, bias).astype(dtype)
    x = x[np.isfinite(x)]
    for span in rf8.SPANS:
        codes = rf8_torch.encode(torch.from_numpy(x).to(device), bias, rounding=rounding, span=span)
        assert_same(codes, rf8.encode(x, bias, rounding=rounding, span=span))


@repeatable
@given(
    shape=st.lists(st.integers(0, 7), max_size=4),
    data=st.data(),
    dtype=st.sampled_from(DTYPES),
    rounding=st.sampled_from(rf8.ROUNDINGS),
    span=st.sampled_from(rf8.SPANS),
    centre=st.integers(-140, 130),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shape_bias_and_dtype(
    shape: list[int],
    data: st.DataObject,
    dtype: torch.dtype,
    rounding: rf8.Rounding,
    span: int,
    centre: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    values = np.ldexp(rng.standard_normal(shape), rng.integers(centre - 9, centre + 9, shape))
    x = torch.from_numpy(np.asarray(values)).to(dtype)
    bias_shape = [data.draw(st.sampled_from([1, size])) for size in shape]
    low = min(max(centre - 12, -128), 127)
    biases = np.asarray(rng.integers(low, min(low + 9, 127) + 1, bias_shape), np.int8)

    arguments: dict[str, Any] = {"rounding": rounding, "nonfinite": "saturate", "span": span}
    codes = rf8_torch.encode(x, torch.from_numpy(biases), **arguments)
    assert_same(codes, rf8.encode(to_numpy(x), biases, **arguments))
    order = data.draw(st.permutations(range(len(shape))))
    turned, turned_bias = x.permute(order), torch.from_numpy(biases).permute(order)
    assert torch.equal(rf8_torch.encode(turned, turned_bias, **arguments), codes.permute(order))

    decoded = rf8_torch.decode(codes.permute(order), turned_bias, dtype)
    expected = rf8.decode(codes.permute(order).numpy(), turned_bias.numpy(), np.float64)
    assert torch.equal(decoded, torch.from_numpy(expected).to(dtype))

    if len(shape) == 2 and x.isfinite().all():
        row_bias = rf8_torch.row_bias(x, rounding=rounding)
        assert_same(row_bias, rf8.row_bias(to_numpy(x), rounding=rounding))


@each_device
@each_rounding
@pytest.mark.parametrize("dtype", DTYPES)
def test_row_bias(rounding: rf8.Rounding, dtype: torch.dtype, device: str) -> None:
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    w = np.ldexp(rng.standard_normal((500, 9)), rng.integers(-150, 15, (500, 1)))
    w[::50] = 0
    x = torch.from_numpy(w).to(dtype).to(device)
    biases = rf8_torch.row_bias(x, rounding=rounding)
    assert biases.device == x.device
    assert_same(biases, rf8.row_bias(to_numpy(x), rounding=rounding))
    assert_same(rf8_torch.row_bias(x[:, :0]), np.zeros(500, np.int8))
    assert rf8_torch.row_bias(x[:0]).shape == (0,)


@each_device
@each_rounding
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [-128, -125, 0, 113, 127])
def test_infinities_saturate_when_asked(
    rounding: rf8.Rounding, dtype: torch.dtype, bias: int, device: str
) -> None:
    x = torch.tensor([torch.inf, 0.0, -torch.inf, -0.0], dtype=dtype, device=device)
    for span in rf8.SPANS:
        codes = rf8_torch.encode(x, bias, rounding=rounding, nonfinite="saturate", span=span)
        assert codes.tolist() == [0x7E, 0, 0xFE, 0]


def test_vectors_by_hand() -> None:
    for case in json.loads((VECTORS / "rf8_encode.json").read_text())["cases"]:
        x = torch.tensor(float.fromhex(case["x"]), dtype=torch.float64)
        options = {"rounding": case["rounding"], "span": case["span"]}
        code = rf8_torch.encode(x, case["bias"], **options)
        assert int(code) == int(case["code"], 16), case["comment"]
    for case in json.loads((VECTORS / "rf8_decode.json").read_text())["cases"]:
        code = torch.tensor(int(case["code"], 16), dtype=torch.uint8)
        value = rf8_torch.decode(code, case["bias"])
        expected = torch.tensor(float.fromhex(case["value"]))
        torch.testing.assert_close(value, expected, rtol=0, atol=0, equal_nan=True)


def test_a_parameter_that_wants_gradients_is_only_read() -> None:
    w = torch.nn.Parameter(torch.linspace(-3, 3, 12).reshape(3, 4))
    biases = rf8_torch.row_bias(w)
    codes = rf8_torch.encode(w, biases[:, None])
    assert not codes.requires_grad
    assert_same(codes, rf8.encode(w.detach().numpy(), biases.numpy()[:, None]))


def both(x: Any, bias: Any = 0, function: str = "encode", **options: Any) -> tuple[Any, Any]:
    """One call in NumPy and in PyTorch."""
    on_numpy = [v.numpy() if isinstance(v, Tensor) else v for v in (x, bias)]
    if function == "row_bias":
        return lambda: rf8.row_bias(on_numpy[0], **options), lambda: rf8_torch.row_bias(
            x, **options
        )
    name = function
    return (
        lambda: getattr(rf8, name)(*on_numpy, **options),
        lambda: getattr(rf8_torch, name)(x, bias, **options),
    )


BAD = torch.tensor([[0.0, torch.inf], [torch.nan, -torch.inf]])


@pytest.mark.parametrize(
    ("in_numpy", "in_torch"),
    [
        both(BAD),
        both(BAD, nonfinite="saturate"),
        both(BAD[:1]),
        both(BAD[0, 1]),
        both(BAD, function="row_bias"),
        both(BAD[:1], function="row_bias"),
        both(torch.full((2, 2), 2.0**143, dtype=torch.float64), function="row_bias"),
        both(torch.zeros(3), function="row_bias"),
        both(torch.zeros(2, 2), function="row_bias", rounding="up"),
        both(torch.zeros(2), rounding="up"),
        both(torch.zeros(2), nonfinite="clip"),
        both(torch.zeros(2), span=14),
        both(torch.zeros(2, dtype=torch.int32)),
        both(torch.zeros(2), 128),
        both(torch.zeros(2), torch.tensor([-129, 0])),
        both(torch.zeros(2), 0.5),
        both(torch.zeros(2), torch.zeros(2)),
        both(torch.zeros(4, 4), torch.zeros(4, dtype=torch.int8)),
        both(torch.zeros(4, 4, dtype=torch.uint8), torch.zeros(3, 1, dtype=torch.int8), "decode"),
    ],
)
def test_errors_are_those_of_numpy(
    in_numpy: Callable[[], object], in_torch: Callable[[], object]
) -> None:
    with pytest.raises(ValueError, match=": ") as error:
        in_numpy()
    with pytest.raises(ValueError, match=f"^{re.escape(str(error.value))}$"):
        in_torch()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: rf8_torch.encode([1.0]),  # type: ignore[arg-type]
            (
                "encode: dtype list (not a tensor) is not supported; "
                "use float16, bfloat16, float32, float64"
            ),
        ),
        (
            lambda: rf8_torch.decode(torch.zeros(2)),
            "decode: codes are torch.float32; give a uint8 tensor",
        ),
        (
            lambda: rf8_torch.is_valid(np.zeros(2, np.uint8)),  # type: ignore[arg-type]
            "is_valid: codes are ndarray; give a uint8 tensor",
        ),
        (
            lambda: rf8_torch.decode(torch.zeros(2, dtype=torch.uint8), dtype=torch.int32),
            "decode: dtype int32 is not supported; use float16, bfloat16, float32, float64",
        ),
    ],
)
def test_errors_of_tensors(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()
