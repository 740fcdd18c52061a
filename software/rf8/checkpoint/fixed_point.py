"""Weights that the machine keeps as fixed point: biases, norms."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from golden.config import RESULT_BITS, RESULT_FRAC
from golden.layers import Block, block_quantize
from rf8.checkpoint.model import Model
from rf8.errors import DataError

NORM_FRAC = 24
"""Fraction bits of norm weights before they become a block of 16-bit mantissas."""


def fixed_point(model: Model, name: str, frac: int = RESULT_FRAC) -> NDArray[np.int64]:
    """A norm weight or a bias as int32 fixed point, rounded half to even.

    Raises
    ------
    DataError
        Where a value does not fit.
    """
    scaled = np.rint(model.float_tensor(name).astype(np.float64) * 2.0**frac)
    limit = float(1 << (RESULT_BITS - 1))
    largest = float(np.abs(scaled).max())
    if largest >= limit:
        raise DataError(
            f"{model.name}: {name} reaches {largest / 2**frac:g}, must stay below "
            f"{limit / 2**frac:g}"
        )
    return scaled.astype(np.int64)


def norm_weight(model: Model, name: str) -> Block:
    """The weight of a norm, as `golden.layers` takes it."""
    return block_quantize(fixed_point(model, f"{name}.weight", NORM_FRAC), 16, NORM_FRAC)
