"""Weights that the machine keeps as fixed point: biases, norms, embeddings as they are read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from golden.config import RESULT_BITS, RESULT_FRAC
from golden.format import VALUES
from golden.layers import Block, block_quantize
from rf8.checkpoint.model import Model, RF8Tensor
from rf8.errors import DataError
from rf8.graph.ir import Norm

NORM_FRAC = 24
"""Fraction bits of norm weights before they become a block of 16-bit mantissas."""


def fixed_point(
    model: Model, name: str, frac: int = RESULT_FRAC, offset: float = 0.0
) -> NDArray[np.int64]:
    """A norm weight or a bias plus ``offset`` as int32 fixed point, rounded half to even.

    Raises
    ------
    DataError
        Where a value does not fit.
    """
    scaled = np.rint((model.float_tensor(name).astype(np.float64) + offset) * 2.0**frac)
    limit = float(1 << (RESULT_BITS - 1))
    largest = float(np.abs(scaled).max())
    if largest >= limit:
        raise DataError(
            f"{model.name}: {name} reaches {largest / 2**frac:g}, must stay below "
            f"{limit / 2**frac:g}"
        )
    return scaled.astype(np.int64)


def resolution_loss(embedding: RF8Tensor, drop: int) -> float:
    """Share of the energy of an embedding [V, d], times ``2**-drop``, that rounding to the
    machine's resolution of ``2**-RESULT_FRAC`` takes away: 0 if all is exact, 1 if all is lost."""
    lost = energy = 0.0
    scale = np.ldexp(1.0, embedding.bias.astype(np.int32) + (RESULT_FRAC - drop))[:, None]
    for first in range(0, len(embedding.codes), 1024):
        rows = slice(first, first + 1024)
        # float64: squares of what is far below the resolution must not vanish.
        values = VALUES[embedding.codes[rows]] * scale[rows]
        energy += float(np.vdot(values, values))
        values -= np.rint(values)
        lost += float(np.vdot(values, values))
    return lost / energy if energy else 0.0


def norm_weight(model: Model, op: Norm) -> Block:
    """The weight of a norm, as `golden.layers` takes it."""
    if op.weight is None:
        weight = np.full(op.width // op.parts, 1 << NORM_FRAC, np.int64)
    else:
        weight = fixed_point(model, op.weight, NORM_FRAC, op.offset)
    found = block_quantize(weight, 16, NORM_FRAC)
    return Block(found.mantissa, found.exponent - op.drop)
