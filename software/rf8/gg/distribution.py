"""The generalized-Gaussian (GG) distribution.

Density ``p(x) = v / (2 a G(1/v)) exp(-(|x - loc| / a)^v)`` with shape v > 0, scale a > 0 and the
gamma function G; v = 2 is a Gaussian of variance a^2 / 2, v = 1 Laplace. SciPy knows it as
`scipy.stats.gennorm` with ``beta = v``.

Functions take and return NumPy arrays or torch tensors of any shape, compute in float64, and give
float64. They raise ValueError for a shape or scale that is not positive and finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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


def _apply(x: A, function: Callable[[Tensor], Tensor]) -> A:
    if isinstance(x, Tensor):
        return function(x.double())
    result: NDArray[np.float64] = function(torch.from_numpy(np.asarray(x, np.float64))).numpy()
    return result


def logpdf(x: A, shape: float, scale: float, loc: float = 0.0) -> A:
    """Natural logarithm of the density."""
    check_parameters(shape, scale)
    constant = math.log(shape / (2 * scale)) - math.lgamma(1 / shape)
    return _apply(x, lambda t: constant - ((t - loc).abs() / scale) ** shape)


def cdf(x: A, shape: float, scale: float, loc: float = 0.0) -> A:
    """Probability of a value up to x; the lower tail keeps its relative precision."""
    check_parameters(shape, scale)

    def probability(t: Tensor) -> Tensor:
        power = ((t - loc).abs() / scale) ** shape
        inverse = torch.full_like(power, 1 / shape)
        above = 1 - torch.special.gammaincc(inverse, power) / 2
        return torch.where(t < loc, torch.special.gammaincc(inverse, power) / 2, above)

    return _apply(x, probability)


def ppf(q: A, shape: float, scale: float, loc: float = 0.0) -> A:
    """The value that a share q in [0, 1] lies below; infinite at the ends, NaN outside.

    By bisection of the incomplete gamma function: some 60 evaluations of it a value.
    """
    check_parameters(shape, scale)

    def value(t: Tensor) -> Tensor:
        inverse = torch.full_like(t, 1 / shape)
        tail = 2 * torch.minimum(t, 1 - t)  # of |x|, above the answer
        centre = (2 * t - 1).abs()
        low, high = torch.full_like(t, -1000.0), torch.full_like(t, 7.0)
        for _ in range(62):  # 1007 / 2^62: beyond float64
            middle = (low + high) / 2
            power = middle.exp()
            # Whichever is the smaller probability keeps its digits.
            below = torch.where(
                centre < 0.5,
                torch.special.gammainc(inverse, power) < centre,
                torch.special.gammaincc(inverse, power) > tail,
            )
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        size = scale * ((low + high) / (2 * shape)).exp()
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

    generator: of the device; the default one if None.
    """
    check_parameters(shape, scale)
    flat = torch.empty(math.prod(size), device=device, dtype=torch.float32)
    return fill_(flat, shape, scale, generator).add_(loc).view(size)
