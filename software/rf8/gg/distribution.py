"""The generalized-Gaussian (GG) distribution.

Density ``p(x) = v / (2 a G(1/v)) exp(-(|x - loc| / a)^v)`` with shape v > 0, scale a > 0 and the
gamma function G; v = 2 is a Gaussian of variance a^2 / 2, v = 1 Laplace. SciPy knows it as
`scipy.stats.gennorm` with ``beta = v``.

Functions take and return NumPy arrays or torch tensors of any shape, compute in float64, and give
float64. They raise ValueError for complex numbers, and for a shape or scale that is not positive
and finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rf8.gg.ziggurat import fill_

SMALLEST = 0.01
"""Of the shapes: below, scales leave the range of float64."""

A = TypeVar("A", NDArray[np.float64], Tensor)


def check_parameters(shape: float, scale: float) -> None:
    """ValueError unless both are positive and finite, and the shape large enough for float64."""
    for name, value in (("shape", shape), ("scale", scale)):
        if not 0 < value < math.inf:
            raise ValueError(f"GG {name} must be positive and finite, got {value}")
    if shape < SMALLEST:
        raise ValueError(f"GG shape {shape} is too small for float64: {SMALLEST} or more")


def check_range(shape: float, scale: float, dtype: torch.dtype) -> None:
    """ValueError unless a float type holds samples: one in 2^50 may exceed it, half of them may be
    below its smallest number."""
    check_parameters(shape, scale)
    limits, (median, largest) = torch.finfo(dtype), _magnitudes(shape)
    most, least = limits.max / largest, limits.smallest_normal * limits.eps / median
    if scale > most:
        raise ValueError(
            f"GG shape {shape} and scale {scale:g} give samples beyond {dtype}: "
            f"scale {most:.3g} or less"
        )
    if scale < least:
        raise ValueError(
            f"GG shape {shape} and scale {scale:g} give samples too small for {dtype}: "
            f"scale {least:.3g} or more"
        )


@lru_cache(maxsize=64)
def _magnitudes(shape: float) -> tuple[float, float]:
    """Of samples of scale 1: what half of them exceed, and one in 2^50."""
    half, few = ppf(torch.tensor([0.25, 2.0**-51], dtype=torch.float64), shape, 1.0)
    return -float(half), -float(few)


def _apply(x: A, function: Callable[[Tensor], Tensor]) -> A:
    if x.dtype.is_complex if isinstance(x, Tensor) else np.iscomplexobj(x):
        raise ValueError("a GG is of real numbers, these are complex")
    if isinstance(x, Tensor):
        return function(x.double())
    # A copy where torch has no such array: big-endian, or of negative strides.
    values = np.require(x, np.float64, ["C", "W"]).reshape(np.shape(x))
    result: NDArray[np.float64] = function(torch.from_numpy(values)).numpy()
    return result


def logpdf(x: A, shape: float, scale: float, loc: float = 0.0) -> A:
    """Natural logarithm of the density."""
    check_parameters(shape, scale)
    constant = -math.log(2) - math.log(scale) - math.lgamma(1 + 1 / shape)
    return _apply(x, lambda t: constant - ((t - loc).abs() / scale) ** shape)


def cdf(x: A, shape: float, scale: float, loc: float = 0.0) -> A:
    """Probability of a value up to x; the lower tail keeps its relative precision."""
    check_parameters(shape, scale)

    def probability(t: Tensor) -> Tensor:
        beyond = _shares((t - loc).abs() / scale, shape)[1] / 2
        return torch.where(t < loc, beyond, 1 - beyond)

    return _apply(x, probability)


def _shares(size: Tensor, shape: float) -> tuple[Tensor, Tensor]:
    """Shares of magnitudes, of scale 1, below and beyond ``size``: the regularised incomplete gamma
    functions P and Q of ``1/v`` and ``t = size^v``.

    Where t is small, and for large shapes it vanishes early, ``t^(1/v)`` is better taken for what
    it is, the size: with a = 1/v, ``P = size / G(1 + a) (1 - d)`` and
    ``d = a (t / (1 + a) - t^2 / (2 (2 + a)) + t^3 / (6 (3 + a)) - ...)``.
    """
    a = 1 / shape
    t = size**shape
    d = a * sum((-1) ** (k + 1) * t**k / (math.factorial(k) * (k + a)) for k in range(1, 6))
    first = size.log() - math.lgamma(1 + a)
    inverse, small = torch.full_like(t, a), t < 1e-3
    below = torch.where(small, first.exp() * (1 - d), torch.special.gammainc(inverse, t))
    near = first.exp() * d - torch.expm1(first)
    return below, torch.where(small, near, torch.special.gammaincc(inverse, t))


def ppf(q: A, shape: float, scale: float, loc: float = 0.0) -> A:
    """The value that a share q in [0, 1] lies below; infinite at the ends, NaN outside.

    By bisection of the incomplete gamma function: some 60 evaluations of it a value.
    """
    check_parameters(shape, scale)

    def value(t: Tensor) -> Tensor:
        tail = 2 * torch.minimum(t, 1 - t)  # of |x|, above the answer
        centre = (2 * t - 1).abs()
        low, high = torch.full_like(t, -50.0), torch.full_like(t, 7.0)
        for _ in range(58):  # 57 / 2^58: beyond float64
            middle = (low + high) / 2
            inside, beyond = _shares((middle / shape).exp(), shape)
            # Whichever is the smaller probability keeps its digits.
            below = torch.where(centre < 0.5, inside < centre, beyond > tail)
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        # Nearer to the centre the density is flat.
        flat = centre * math.exp(math.lgamma(1 + 1 / shape))
        size = torch.where(low > -50, ((low + high) / (2 * shape)).exp(), flat) * scale
        size = torch.where(centre == 0, 0.0, torch.where(tail == 0, math.inf, size))
        size = torch.where((t >= 0) & (t <= 1), size, math.nan)
        return loc + torch.where(t < 0.5, -size, size)

    return _apply(q, value)


def sample(
    size: tuple[int, ...],
    shape: float,
    scale: float,
    loc: float = 0.0,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Float32 samples, exact in distribution up to rounding (`rf8.gg.ziggurat`).

    generator: of the device; the default one if None. Raises ValueError where float32 cannot hold
    them: for small shapes they spread over hundreds of orders of magnitude.
    """
    check_range(shape, scale, torch.float32)
    flat = torch.empty(math.prod(size), device=device, dtype=torch.float32)
    return fill_(flat, shape, scale, generator).add_(loc).view(size)
