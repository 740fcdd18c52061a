"""DeepShape: trained weights reshaped to a generalized-Gaussian profile, ranks kept.

The n weights of a group become multiples of a step, so many of each as the target distribution
gives that level: the smallest weights go to the lowest level, and so on. Equal weights are told
apart by their place. No weight ever overtakes another, and the histogram is met to the count.

Source: arXiv 2506.00486, which describes the idea; how counts are rounded, tails cut and ties
broken is decided here.

Three passes over the values and no sort, but of few. A float32 read as an integer keeps its order,
so a count of the upper 22 bits says in which bin each level ends, and a count of the lower 10 bits
in those bins says at which value: time grows with n alone, and memory beside the weights stays
bounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rf8.gg.distribution import cdf, check_parameters
from rf8.gg.fit import Data, blocks, repeatable
from rf8.gg.rate import STEP

LOW_BITS = 10
BINS = 1 << (32 - LOW_BITS)
BLOCK = 1 << 22  # values at a time
FEW = 1 << 20  # values that are sorted sooner than tables are filled
MAX_LEVELS = 1 << 16  # on each side of zero

Counts = NDArray[np.int64]
Values = NDArray[np.float32]


@dataclass(frozen=True)
class Target:
    """A histogram: ``counts[k]`` weights at ``(first + k) * step``."""

    first: int
    step: float
    counts: Counts

    @property
    def levels(self) -> Values:
        """The values, rising."""
        return ((self.first + np.arange(len(self.counts))) * self.step).astype(np.float32)


def target(
    n: int, shape: float, scale: float, *, step: float = STEP, min_count: float = 1.0
) -> Target:
    """The histogram of n values of a GG over multiples of ``step``.

    Level k takes the mass between ``(k - 1/2) step`` and ``(k + 1/2) step``. The tails end where
    fewer than ``min_count`` values are expected beyond, on each side; the mass that is cut is
    shared by the rest in proportion. Cumulative counts are rounded, half to even, so that every
    count is within one of its expectation and they add up to n.

    Raises ValueError for parameters out of range, or fewer than ``2 min_count`` values.
    """
    check_parameters(shape, scale)
    for name, value in (("step", step), ("min_count", min_count)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")
    if n < 2 * min_count:
        raise ValueError(
            f"{n} values have no tails of {min_count:g} each: take a smaller min_count"
        )
    half = np.arange(MAX_LEVELS + 1, dtype=np.float64) + 0.5
    upper = cdf(np.multiply(half, -step), shape, scale)  # mass beyond each level, on one side
    top = int(np.count_nonzero(n * upper >= min_count))
    if top > MAX_LEVELS:
        raise ValueError(f"more than {MAX_LEVELS} multiples of {step:g} are needed: larger step")
    edges = np.concatenate([[upper[top]], upper[:top][::-1], 1 - upper[: top + 1]])
    share = (edges - edges[0]) / (edges[-1] - edges[0])
    return Target(-top, step, np.diff(np.rint(n * share)).astype(np.int64))


class Reshaping:
    """The map of one group of values to a target's levels.

    Parameters
    ----------
    x
        Float values of any shape, or an iterable of chunks (`rf8.gg.fit.fit`). Compared as
        float32; of equal ones the earlier gets the lower level.
    goal
        As many values as x has.

    Raises ValueError for NaN or infinity, integers, or another number of values.
    """

    def __init__(self, x: Data, goal: Target, *, name: str = "x") -> None:
        self.goal, x = goal, repeatable(x)
        self._name = name
        self._ends = np.cumsum(goal.counts)  # rank after the last of each level
        self._known: NDArray[np.uint32] | None = None
        if self._ends[-1] <= FEW:
            none = np.empty(0, np.uint32)
            keys = np.concatenate([none, *(_keys(v) for v in _values(x, name))])
            self._check_total(len(keys))
            self._known, counts = np.unique(keys, return_counts=True)
            before = np.cumsum(counts) - counts
        else:
            counts, before = self._count(x)
        # Level of a single value, or -1 - place where equal ones share a level's end.
        self._fine, tied = self._levels(counts, before)
        self._next = before[tied]  # rank of the next of each of those
        self.sums = np.zeros((3, len(goal.counts)))

    def _check_total(self, total: int) -> None:
        if total != self._ends[-1]:
            raise ValueError(f"{self._name} has {total} values, the target {self._ends[-1]}")

    def _count(self, x: Data) -> tuple[Counts, Counts]:
        """How often each value occurs in the bins where a level ends, and the rank before it."""
        coarse = np.zeros(BINS, np.int64)
        for values in _values(x, self._name):
            coarse += np.bincount(_keys(values) >> LOW_BITS, minlength=BINS)
        self._check_total(int(coarse.sum()))
        starts = np.cumsum(coarse) - coarse
        # Level of a bin's values, or -1 - slot where a level ends inside the bin.
        self._coarse, split = self._levels(coarse, starts)
        fine = np.zeros(len(split) << LOW_BITS, np.int64)
        for values in _values(x, self._name):
            keys = _keys(values)
            slots = self._coarse[keys >> LOW_BITS]
            inside = slots < 0
            fine += np.bincount(_fine(keys[inside], slots[inside]), minlength=len(fine))
        by_slot = fine.reshape(len(split), 1 << LOW_BITS)
        before = np.cumsum(by_slot, axis=1) - by_slot + starts[split][:, None]
        return fine, before.ravel()

    def _levels(self, counts: Counts, starts: Counts) -> tuple[NDArray[np.int32], Counts]:
        used = np.flatnonzero(counts)
        low = np.searchsorted(self._ends, starts[used], "right")
        high = np.searchsorted(self._ends, starts[used] + counts[used] - 1, "right")
        split = np.flatnonzero(low != high)
        low[split] = -1 - np.arange(len(split))
        table = np.zeros(len(counts), np.int32)
        table[used] = low
        return table, used[split]

    def apply(self, chunk: Any) -> Values:
        """The levels' values for a chunk, of its shape, float32; chunks come in the order of x,
        once. Raises ValueError for more values than x has."""
        levels, parts = self.goal.levels, [np.empty(0, np.float32)]
        if self.sums[0].sum() + math.prod(np.shape(chunk)) > self._ends[-1]:
            raise ValueError(f"{self._name} has {self._ends[-1]} values, and they were applied")
        for values in _values(chunk, self._name):
            keys = _keys(values)
            if self._known is not None:
                found = self._exact(np.searchsorted(self._known, keys))
            else:
                found = self._coarse[keys >> LOW_BITS]
                inside = np.flatnonzero(found < 0)
                found[inside] = self._exact(_fine(keys[inside], found[inside]))
            old = values.astype(np.float64)
            for k, weights in enumerate((None, old, old * old)):
                self.sums[k] += np.bincount(found, weights=weights, minlength=len(levels))
            parts.append(levels[found])
        return np.concatenate(parts).reshape(np.shape(chunk))

    def _exact(self, places: NDArray[np.int64]) -> NDArray[np.int32]:
        """Levels of single values, given their places in the table of those."""
        found = self._fine[places]
        equal = np.flatnonzero(found < 0)
        found[equal] = self._shared(-1 - found[equal])
        return found

    def _shared(self, ties: NDArray[np.int32]) -> NDArray[np.int64]:
        """Levels of values that have equals on both sides of a level's end, in order."""
        counts = np.bincount(ties, minlength=len(self._next))
        order = np.argsort(ties, kind="stable")
        nth = np.empty(len(ties), np.int64)
        nth[order] = np.arange(len(ties)) - np.repeat(np.cumsum(counts) - counts, counts)
        ranks = self._next[ties] + nth
        self._next += counts
        return np.searchsorted(self._ends, ranks, "right")


def _values(x: Data, name: str) -> Iterator[Values]:
    for block in blocks(x, name, BLOCK):
        values: Values = block.float().cpu().numpy()
        broken = int(np.size(values) - np.count_nonzero(np.isfinite(values)))
        if broken:
            raise ValueError(f"{name} has {broken} NaN or Inf")
        yield values


def _keys(values: Values) -> NDArray[np.uint32]:
    """Unsigned integers in the order of the values."""
    bits = (values + np.float32(0)).view(np.int32)  # -0 becomes 0
    return (bits ^ ((bits >> 31) | np.int32(-(2**31)))).view(np.uint32)


def _fine(keys: NDArray[np.uint32], slots: NDArray[np.int32]) -> NDArray[np.int64]:
    low = (keys & ((1 << LOW_BITS) - 1)).astype(np.int64)
    return ((-1 - slots.astype(np.int64)) << LOW_BITS) + low


@dataclass(frozen=True)
class Change:
    """What DeepShape did to one group, and what undoes it.

    ``shape``, ``std``: fitted before. ``new_shape``, ``new_std``: of the target. ``means``: of the
    weights that each level took, float32 [levels]. ``rms_change``: of the weights.
    ``rms_undone``: what `undo` leaves of it.
    """

    names: tuple[str, ...]
    n: int
    shape: float
    std: float
    new_shape: float
    new_std: float
    goal: Target
    means: Values
    rms_change: float
    rms_undone: float

    def undo(self, values: Values) -> Values:
        """Each reshaped weight's level replaced by the mean of the weights it took.

        Within a level the old order is not kept anywhere, hence not exact: ``rms_undone``.
        Raises ValueError for a value that is no level.
        """
        index = np.rint(np.asarray(values, np.float64) / self.goal.step) - self.goal.first
        inside = (index >= 0) & (index < len(self.means))
        index = np.where(inside, index, 0).astype(np.int64)
        if not inside.all() or not (self.goal.levels[index] == values).all():
            raise ValueError("it holds values that are no levels of this change")
        restored: Values = self.means[index]
        return restored


def change(
    names: Iterable[str],
    before: tuple[float, float],
    after: tuple[float, float],
    done: Reshaping,
) -> Change:
    """The report of a reshaping whose values have all been applied; (shape, std) before, after."""
    counts, first, second = done.sums
    n = int(counts.sum())
    means = np.divide(first, counts, out=np.zeros_like(first), where=counts > 0)
    levels = done.goal.levels.astype(np.float64)
    moved = float((second - 2 * levels * first + levels**2 * counts).sum()) / n
    left = float((second - means * first).sum()) / n
    return Change(
        names=tuple(names),
        n=n,
        shape=before[0],
        std=before[1],
        new_shape=after[0],
        new_std=after[1],
        goal=done.goal,
        means=means.astype(np.float32),
        rms_change=math.sqrt(max(moved, 0.0)),
        rms_undone=math.sqrt(max(left, 0.0)),
    )
