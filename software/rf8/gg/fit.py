"""Fitting a generalized Gaussian to weights (`rf8.gg.distribution` has the density)."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SHAPE_MIN, SHAPE_MAX = 0.1, 10.0
BLOCK = 1 << 18  # values at a time: they stay in the cache, and their float32 sum is exact enough
TOLERANCE = 1e-6  # of the shape, relative: where rounding of float32 begins to show in the sums

Chunk = NDArray[Any] | Tensor
Data = Chunk | Iterable[Chunk]
Method = Literal["moments", "mle"]


@dataclass(frozen=True)
class GGFit:
    """A fitted distribution.

    ``shape_se``, ``scale_se``: standard errors, for independent values of this distribution.
    ``log_likelihood``: natural logarithm, of all n values. ``aic``: Akaike's criterion,
    ``2 k - 2 log_likelihood``, with k counting shape, scale and, if fitted, loc; smaller is better.
    ``gaussian_aic``, ``laplace_aic``: the same with the best scale of those two.
    """

    shape: float
    scale: float
    loc: float
    n: int
    method: Method
    shape_se: float
    scale_se: float
    log_likelihood: float
    aic: float
    gaussian_aic: float
    laplace_aic: float

    @property
    def std(self) -> float:
        """Standard deviation of the fitted distribution."""
        logs = math.lgamma(3 / self.shape) - math.lgamma(1 / self.shape)
        return self.scale * math.exp(logs / 2)

    @property
    def beats_gaussian(self) -> bool:
        """Whether Akaike's criterion prefers this fit to a Gaussian."""
        return self.aic < self.gaussian_aic

    def as_dict(self) -> dict[str, Any]:
        """All fields, for JSON."""
        return asdict(self)


def fit(x: Data, method: Method = "moments", *, loc: float | None = 0.0, name: str = "x") -> GGFit:
    """Fit shape and scale, and the location if asked to.

    Parameters
    ----------
    x
        Float values of any shape, NumPy or torch, any float type; or an iterable of such chunks,
        so that data larger than memory can be fitted: an object that opens a file anew each time
        it is iterated. What can be iterated once, a generator, is kept as a list. Sums are taken in
        float64 over values scaled by a power of two, so that float16 does not overflow.
    method
        "moments": inverts ``E[x^2] / E[|x|]^2 = G(1/v) G(3/v) / G(2/v)^2`` (Mallat 1989).
        "mle": maximum likelihood. Given v the best scale is ``a^v = v mean |x|^v``; v is the root
        of ``v + psi(1/v) + ln(a^v) - v sum |x|^v ln|x| / sum |x|^v``, found by Newton's iteration
        from the moment estimate, with a bracket that makes it converge from anywhere.
    loc
        The location, 0 as for weights; None takes the mean.
    name
        Names the data in errors.

    Raises
    ------
    ValueError
        No values, NaN or infinity, integers, all values equal, or a shape outside 0.1 to 10.
    """
    if method not in ("moments", "mle"):
        raise ValueError(f'method must be "moments" or "mle", got {method!r}')
    x = repeatable(x)
    n, largest, mean = _survey(x, name)
    fitted = loc is None
    centre = mean if loc is None else loc
    if not math.isfinite(centre):
        raise ValueError(f"{name}: the location is {centre}, beyond float64")
    # The largest distance becomes 1/2 to 1 or a little more, exactly.
    exponent = min(math.frexp(min(largest + abs(centre), sys.float_info.max))[1], 1023)
    unit = 2.0**exponent
    # Float32 has its own powers of two, and 1 / unit may be none of float64's.
    narrow, halves = abs(exponent) <= 126, (-exponent // 2, -exponent - -exponent // 2)

    def scaled(block: Tensor) -> Tensor:
        if narrow:
            return _wide(block).mul(1 / unit)
        return block.double().mul(2.0 ** halves[0]).mul_(2.0 ** halves[1])

    def total(*functions: Callable[[Tensor], Tensor]) -> list[float]:
        sums = [0.0] * len(functions)
        for block in blocks(x, name):
            size = scaled(block).sub_(centre / unit).abs_()
            for k, function in enumerate(functions):
                sums[k] += float(function(size))
        return sums

    m1, m2 = (s / n for s in total(torch.sum, lambda t: torch.dot(t, t)))
    if not m2 > 0 or m2 - m1 * m1 <= 1e-12 * m2:
        raise ValueError(f"{name}: all {n} values are equally far from {centre:g}: nothing to fit")
    shape = _checked_shape(m2 / m1**2, name)
    if method == "mle":
        shape, power = _maximise(shape, n, total, name)
        scale = (shape * power) ** (1 / shape)
        shape_se, scale_se = _likelihood_errors(shape, n)
    else:
        (s0,) = total(lambda t: t.pow(shape).sum())
        power = s0 / n
        scale = math.sqrt(m2) * math.exp((math.lgamma(1 / shape) - math.lgamma(3 / shape)) / 2)
        shape_se, scale_se = _moment_errors(shape, n)
    likelihood = n * (
        math.log(shape / (2 * scale))
        - math.log(unit)
        - math.lgamma(1 / shape)
        - power / scale**shape
    )
    gaussian = -n / 2 * (math.log(2 * math.pi * m2) + 2 * math.log(unit) + 1)
    laplace = -n * (math.log(2 * m1) + math.log(unit) + 1)
    return GGFit(
        shape=shape,
        scale=scale * unit,
        loc=centre,
        n=n,
        method=method,
        shape_se=shape_se,
        scale_se=scale_se * scale * unit,
        log_likelihood=likelihood,
        aic=2 * (2 + fitted) - 2 * likelihood,
        gaussian_aic=2 * (1 + fitted) - 2 * gaussian,
        laplace_aic=2 * (1 + fitted) - 2 * laplace,
    )


def repeatable(x: Data) -> Data:
    """The same data, as a list if it could be iterated only once."""
    return list(x) if isinstance(x, Iterator) else x


def blocks(x: Data, name: str, size: int = BLOCK) -> Iterator[Tensor]:
    """The values of all chunks, flat, at most ``size`` at a time.

    Raises ValueError for what is not of floats, or has no values of its own: tensors that are
    sparse or on the device "meta", masked arrays.
    """
    for chunk in [x] if isinstance(x, np.ndarray | Tensor) else x:
        flat = _flat(chunk, name)
        for first in range(0, len(flat), size):
            block = flat[first : first + size]
            if isinstance(block, Tensor):
                # Of its floats of 8 bits torch knows little more than how to widen them.
                yield block.float() if block.dtype.itemsize == 1 else block
            else:
                kind = block.dtype.newbyteorder("=") if block.dtype.kind == "f" else np.float32
                wide = np.float64 if block.dtype.itemsize > 8 else kind
                # A copy where torch has no such array: big-endian, of negative strides, read-only.
                yield torch.from_numpy(np.require(block, wide, ["C", "W"]))


def _flat(chunk: Chunk, name: str) -> NDArray[Any] | Tensor:
    """The values, flat; checked as `blocks` says."""
    if isinstance(chunk, Tensor):
        if not chunk.dtype.is_floating_point:
            raise ValueError(f"{name}: dtype {chunk.dtype}, give floats")
        if chunk.is_meta or chunk.layout is not torch.strided:
            raise ValueError(f"{name}: a tensor that is {'meta' if chunk.is_meta else 'sparse'}")
        return chunk.detach().reshape(-1)
    if isinstance(chunk, np.ma.MaskedArray):
        raise ValueError(f"{name}: a masked array, give its compressed() values")
    array = np.asarray(chunk)
    # NumPy's own floats, and those of ml_dtypes: bfloat16, float8_e4m3fn and so on.
    if array.dtype.kind != "f" and "float" not in array.dtype.name:
        raise ValueError(f"{name}: dtype {array.dtype}, give floats")
    return array.reshape(-1)


def _wide(block: Tensor) -> Tensor:
    return block if block.dtype == torch.float64 else block.float()


def _survey(x: Data, name: str) -> tuple[int, float, float]:
    """Count, largest magnitude and mean."""
    n, largest, mean = 0, 0.0, 0.0
    for block in blocks(x, name):
        low, high = (float(v) for v in torch.aminmax(block))
        if not math.isfinite(low) or not math.isfinite(high):  # NaN comes through aminmax
            bad = int((~torch.isfinite(block)).sum())
            raise ValueError(f"{name}: {bad} NaN or Inf in values {n} to {n + len(block) - 1}")
        largest = max(largest, abs(low), abs(high))
        n += len(block)
        mean += (float(block.sum(dtype=torch.float64)) / len(block) - mean) * len(block) / n
    if n == 0:
        raise ValueError(f"{name} is empty: nothing to fit")
    return n, largest, mean


def _log_ratio(shape: float) -> float:
    """``ln(E[x^2] / E[|x|]^2)`` of a GG; falls with the shape."""
    return math.lgamma(1 / shape) + math.lgamma(3 / shape) - 2 * math.lgamma(2 / shape)


def shape_of_ratio(ratio: float) -> float:
    """The shape whose ``E[x^2] / E[|x|]^2`` is this, or the end of the range it lies beyond."""
    wanted = math.log(ratio)
    low, high = SHAPE_MIN, SHAPE_MAX
    while high - low > 1e-14 * high:
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (middle, high) if _log_ratio(middle) > wanted else (low, middle)
    return (low + high) / 2


def _checked_shape(ratio: float, name: str) -> float:
    wanted = math.log(ratio)
    if not _log_ratio(SHAPE_MAX) <= wanted <= _log_ratio(SHAPE_MIN):
        side = "below 0.1" if wanted > _log_ratio(SHAPE_MIN) else "above 10"
        raise ValueError(
            f"{name}: E[x^2] / E[|x|]^2 is {ratio:.6g}, which needs a shape {side}: this is no "
            "generalized Gaussian that can be fitted"
        )
    return shape_of_ratio(ratio)


def _psi(order: int, x: float) -> float:
    return float(torch.special.polygamma(order, torch.tensor(x, dtype=torch.float64)))


def _maximise(
    shape: float, n: int, total: Callable[..., list[float]], name: str
) -> tuple[float, float]:
    """The most likely shape v, and the mean of ``|x|^v`` there."""
    low, high = SHAPE_MIN, SHAPE_MAX
    for _ in range(100):
        weights: list[Tensor] = []

        def power(t: Tensor, v: float = shape, held: list[Tensor] = weights) -> Tensor:
            logs = t.log()
            raised = (logs * v).exp_()
            held[:] = [raised, torch.where(t > 0, logs, 0.0)]  # 0 ln 0 = 0
            return raised.sum()

        def first(_: Tensor, held: list[Tensor] = weights) -> Tensor:
            held[0] = held[0] * held[1]
            return held[0].sum()

        def second(_: Tensor, held: list[Tensor] = weights) -> Tensor:
            return torch.dot(held[0], held[1])

        s0, s1, s2 = total(power, first, second)
        mean = s1 / s0
        score = shape + _psi(0, 1 / shape) + math.log(shape * s0 / n) - shape * mean
        low, high = (shape, high) if score > 0 else (low, shape)
        slope = 1 + 1 / shape - _psi(1, 1 / shape) / shape**2 - shape * (s2 / s0 - mean**2)
        step = -score / slope if slope < 0 else math.inf
        if abs(step) <= TOLERANCE * shape or high - low <= TOLERANCE * shape:
            if min(shape - SHAPE_MIN, SHAPE_MAX - shape) <= 2 * TOLERANCE * shape:
                break
            return shape, s0 / n
        shape = shape + step if low < shape + step < high else (low + high) / 2
    raise ValueError(
        f"{name}: the likelihood has its maximum at the end of the shapes {SHAPE_MIN} to "
        f"{SHAPE_MAX}, near {shape:.4g}: this is no generalized Gaussian that can be fitted"
    )


def _likelihood_errors(shape: float, n: int) -> tuple[float, float]:
    """Standard errors of v and ln a from Fisher's information.

    ``1 / (n var v) = ((1/v^2 + 1/v) psi'(1/v) - v - 1 - 1/v) / v^2`` and
    ``var ln a = 1 / (n v) + ((1 + psi(1 + 1/v)) / v^2)^2 var v``.
    """
    v = shape
    information = ((1 / v**2 + 1 / v) * _psi(1, 1 / v) - v - 1 - 1 / v) / v**2
    variance = 1 / (n * information)
    slope = (1 + _psi(0, 1 + 1 / v)) / v**2
    return math.sqrt(variance), math.sqrt(1 / (n * v) + slope**2 * variance)


def _moment_errors(shape: float, n: int) -> tuple[float, float]:
    """Standard errors of v and ln a by the delta method, from the moments of the fitted law.

    With r = m2 / m1^2 and moments in units of a: ``dv = d ln r / (d ln r / dv)`` and
    ``d ln a = d ln m2 / 2 + (3 psi(3/v) - psi(1/v)) / (2 v^2) dv``.
    """
    v = shape
    m1, m2, m3, m4 = (math.exp(math.lgamma((k + 1) / v) - math.lgamma(1 / v)) for k in (1, 2, 3, 4))
    var1, var2 = m2 / m1**2 - 1, m4 / m2**2 - 1  # n times the variances of ln m1 and ln m2
    mixed = m3 / (m1 * m2) - 1
    var_ratio, with_m2 = var2 + 4 * var1 - 4 * mixed, var2 - 2 * mixed
    slope = -(_psi(0, 1 / v) + 3 * _psi(0, 3 / v) - 4 * _psi(0, 2 / v)) / v**2
    turn = (3 * _psi(0, 3 / v) - _psi(0, 1 / v)) / (2 * v**2) / slope
    var_scale = var2 / 4 + turn * with_m2 + turn**2 * var_ratio
    return math.sqrt(var_ratio / n) / abs(slope), math.sqrt(var_scale / n)
