"""The inner loops of compensated rounding, compiled: rows in parallel, one weight after the other.

A grid is ``values``, float32 magnitudes in ascending order from 0, in units of a row's scale; a
weight on it is a signed rank, int16. ``bits``: what each rank costs, float32; zeros: nothing, so
that the nearest one is taken. Of two as near the smaller one is taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

Array = NDArray[Any]

ROWS = 8
"""Rows that a thread does together: they share what it reads of the factor."""


@njit(cache=True, inline="always")  # type: ignore[untyped-decorator]
def _nearest(magnitude: float, values: Array) -> int:
    """The rank of the value nearest to a magnitude; binary search."""
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        if magnitude > 0.5 * (values[middle] + values[middle + 1]):
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, inline="always")  # type: ignore[untyped-decorator]
def _choose(x: float, weight: float, values: Array, bits: Array) -> int:
    """The signed rank q of least ``weight * (x - q)^2 + bits``: of the nearest value, the two
    below it, and zero."""
    magnitude = abs(x)
    nearest = _nearest(magnitude, values)
    best, least = nearest, np.inf
    for rank in (nearest, nearest - 1, nearest - 2, 0):
        if rank >= 0:
            error = magnitude - values[rank]
            cost = weight * error * error + bits[rank]
            if cost < least:
                best, least = rank, cost
    return int(best if x >= 0 else -best)


@njit(parallel=True, cache=True, fastmath={"contract"})  # type: ignore[untyped-decorator]
def pass_errors_on(
    wanted: Array,
    factor: Array,
    scale: Array,
    values: Array,
    bits: Array,
    prices: Array,
    out: Array,
) -> None:
    """Round ``wanted`` [N, K] column by column into ``out`` (int16 ranks), each error passed on.

    ``factor``: the upper Cholesky factor of the inverse Hessian, float32 [K, K]. ``scale``: of each
    row's grid, float32 [N]. ``prices``: of a bit, in units of squared output error, float32 [N].
    """
    count, columns = wanted.shape
    for block in prange((count + ROWS - 1) // ROWS):
        first = block * ROWS
        rows = min(ROWS, count - first)
        left = wanted[first : first + rows].copy()
        costs = prices[first : first + rows].reshape(-1, 1) * bits.reshape(1, -1)
        for k in range(columns):
            pivot = factor[k, k]
            for i in range(rows):
                unit = scale[first + i]
                rank = _choose(left[i, k] / unit, (unit / pivot) ** 2, values, costs[i])
                out[first + i, k] = rank
                value = values[abs(rank)] * unit
                error = (left[i, k] - (value if rank >= 0 else -value)) / pivot
                for j in range(k + 1, columns):
                    left[i, j] -= error * factor[k, j]


@njit(parallel=True, cache=True, fastmath={"contract"})  # type: ignore[untyped-decorator]
def descend(
    gradient: Array, hessian: Array, scale: Array, values: Array, bits: Array, prices: Array,
    out: Array,
) -> None:  # fmt: skip
    """One sweep of coordinate descent over ``out``, in place; as `pass_errors_on`.

    ``gradient``: (wanted - rounded) @ hessian, float32 [N, K]; it is kept up to date.
    """
    count, columns = gradient.shape
    for block in prange((count + ROWS - 1) // ROWS):
        first = block * ROWS
        rows = min(ROWS, count - first)
        costs = prices[first : first + rows].reshape(-1, 1) * bits.reshape(1, -1)
        for k in range(columns):
            curvature = hessian[k, k]
            for i in range(rows):
                row = first + i
                unit = scale[row]
                rank = out[row, k]
                value = values[abs(rank)] * unit
                before = value if rank >= 0 else -value
                best = before + gradient[row, k] / curvature
                rank = _choose(best / unit, unit * unit * curvature, values, costs[i])
                if rank != out[row, k]:
                    out[row, k] = rank
                    value = values[abs(rank)] * unit
                    change = (value if rank >= 0 else -value) - before
                    for j in range(columns):
                        gradient[row, j] -= change * hessian[k, j]
