"""The RF8 number format in PyTorch: `golden.format` for tensors, code for code the same.

Tensors may live on any device; results stay there. Constants, rounding thresholds and error
messages are those of `golden.format`. Errors are ValueErrors of one line.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from golden import format as rf8
from golden.format import Nonfinite, Rounding

# The integer type of a float's bits, its fraction bits and its exponent bias.
_LAYOUTS = {torch.float32: (torch.int32, 23, 127), torch.float64: (torch.int64, 52, 1023)}


def is_valid(codes: Tensor) -> Tensor:
    """Whether each code (uint8, any shape) has a value, as bool: not 0x80, and m < 7."""
    _check_codes(codes, "is_valid")
    return ((codes & 7) != 7) & (codes != 0x80)


def encode(
    x: Tensor,
    bias: int | Tensor = 0,
    *,
    rounding: Rounding = "nearest_even",
    nonfinite: Nonfinite = "raise",
    span: int = 16,
) -> Tensor:
    """Round floats to RF8 codes; arguments, result (uint8) and errors as of `golden.format.encode`.

    Costs a synchronisation with the device, for the check of finiteness.
    """
    rf8.check_name(rounding, rf8.ROUNDINGS, "encode", "rounding")
    rf8.check_name(nonfinite, rf8.NONFINITES, "encode", "nonfinite")
    rf8.check_name(span, rf8.SPANS, "encode", "span")
    _check_floats(x, "encode")
    biases = _check_bias(bias, x, "encode")

    wide = x.dtype == torch.float64 or (biases < -125).any()
    float_type = torch.float64 if wide else torch.float32
    int_type, fraction_bits, exponent_bias = _LAYOUTS[float_type]
    one, infinity = 1 << fraction_bits, (2 * exponent_bias + 1) << fraction_bits
    starts = rf8.thresholds(rounding, fraction_bits)
    smallest, largest = one // 16, 15 * one + one * 7 // 8
    nonzero = (15 - span) * one + (starts[6] if span < rf8.EXPONENTS else one // 16)
    origin = torch.as_tensor((biases + exponent_bias) << fraction_bits).to(x.device, int_type)

    # As in golden.format._encode_block: the bits of a positive float are an integer that grows with
    # its value, and field counts from the bits of 2^b.
    bits = x.detach().to(float_type).contiguous().view(int_type)
    magnitude = bits & (infinity | one - 1)
    infinite = magnitude >= infinity
    field = magnitude - origin
    if infinite.any():
        _check_finite(x, "encode", allow_infinity=nonfinite == "saturate")
        field = torch.where(infinite, largest, field)
    keep = field >= nonzero
    field = field.clamp(smallest, largest)
    boundaries = torch.tensor(starts, dtype=int_type, device=x.device)
    m = torch.bucketize(field & (one - 1), boundaries, right=True, out_int32=True)
    codes = (field >> fraction_bits << 3) + m + (m == 7)  # 7 is the next octave's m = 0
    codes = torch.where(bits < 0, codes | 0x80, codes)
    return torch.where(keep, codes, 0).to(torch.uint8)


def decode(codes: Tensor, bias: int | Tensor = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """The values of RF8 codes; arguments, result and errors as of `golden.format.decode`."""
    _check_codes(codes, "decode")
    _check_dtype(dtype, "decode")
    biases = _check_bias(bias, codes, "decode")
    work = np.float64 if dtype == torch.float64 else np.float32
    table = torch.from_numpy(rf8.VALUES.astype(work)).to(codes.device)
    scale = torch.as_tensor(np.ldexp(work(1), biases.astype(np.int32))).to(codes.device)
    return (table[codes.int()] * scale).to(dtype)


def row_bias(w: Tensor, *, rounding: Rounding = "nearest_even") -> Tensor:
    """The bias of each row of w [N, K]: int8 [N]. As `golden.format.row_bias`, errors included."""
    _check_floats(w, "row_bias")
    if w.ndim != 2:
        raise ValueError(
            f"row_bias: w has shape {tuple(w.shape)}; give one of shape [rows, columns]"
        )
    _check_finite(w, "row_bias", allow_infinity=False)
    largest = w.detach().abs().amax(dim=1, keepdim=True) if w.shape[1] else w.detach()
    biases = rf8.row_bias(largest.to("cpu", torch.float64).numpy(), rounding=rounding)
    return torch.from_numpy(biases).to(w.device)


def _check_dtype(dtype: torch.dtype | str, function: str) -> None:
    name = str(dtype).removeprefix("torch.")
    if name not in rf8.FLOATS:
        raise ValueError(f"{function}: dtype {name} is not supported; use {', '.join(rf8.FLOATS)}")


def _check_floats(x: Tensor, function: str) -> None:
    kind = x.dtype if isinstance(x, Tensor) else f"{type(x).__name__} (not a tensor)"
    _check_dtype(kind, function)


def _check_codes(codes: Tensor, function: str) -> None:
    kind = codes.dtype if isinstance(codes, Tensor) else type(codes).__name__
    if kind != torch.uint8:
        raise ValueError(f"{function}: codes are {kind}; give a uint8 tensor")


def _check_bias(bias: int | Tensor, x: Tensor, function: str) -> NDArray[np.int64]:
    array = bias.detach().cpu().numpy() if isinstance(bias, Tensor) else bias
    return rf8.check_bias(array, tuple(x.shape), function)


def _check_finite(x: Tensor, function: str, *, allow_infinity: bool) -> None:
    nan = x.isnan()
    bad = nan if allow_infinity else ~x.isfinite()
    if bad.any():
        index = bad.nonzero()[0].tolist()
        raise rf8.nonfinite_error(function, int(nan.sum()), int(bad.sum()), x.numel(), index)
