"""The code of weights: RF8 values on a uniform grid, as bits whose number follows the magnitude.

RF8 contains a uniform grid. With the unit ``u``, the power of two at the lowest exponent of a span,
these multiples of u are RF8 values: 0 to 10, 12, 14 to 18, 20, 24, 28, 30, 32 and so on, every one
that the format has above. Such a value is a *level*, and its place among them by magnitude is its
*rank*. Trained weights follow a generalized-Gaussian law (arXiv 2506.00486), so that larger
magnitudes are rarer; but zero has no sign, and comes half as often as a value beside it. So
levels *in order* are the ranks 1, 2, 3 ... with zero put between them somewhere, and a prefix
code whose lengths never fall in that order loses next to nothing against one that is free
(docs/decisions/0015). Made canonical, it is told by thirteen numbers: zero's place, and how many
codewords have 1, 2, ... 12 bits. A decoder needs no memory of symbols: it compares twelve bits with
a limit for each length, and adds.

A weight is the codeword of its level, then a bit for its sign, high if negative, unless it is zero.
Codewords are canonical: levels in order take ascending values, and their first bit comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from golden.format import EXPONENTS, INTEGERS, check_codes, in_span

MAX_LENGTH = 12
"""Bits of the longest codeword, without the sign."""

MAX_ZERO = 7
"""The last place that zero can have among the levels in order."""

NOT_A_LEVEL = 255
"""In place of a rank, for codes that have none."""


def unit_exponent(span: int) -> int:
    """The exponent field E of the grid's unit: the lowest at which a power of two is a code."""
    return max(1, EXPONENTS - span)


@cache
def levels(span: int) -> NDArray[np.uint8]:
    """The codes of the levels of a span, without sign, uint8 [levels] in order of magnitude;
    read-only."""
    codes = np.arange(128, dtype=np.uint8)
    unit = 16 << unit_exponent(span)
    found: NDArray[np.uint8] = codes[in_span(codes, span) & (INTEGERS[codes] % unit == 0)]
    found.setflags(write=False)
    return found


@cache
def ranks(span: int) -> NDArray[np.uint8]:
    """Indexed by code, with or without sign: the rank, or NOT_A_LEVEL; uint8 [256], read-only."""
    found = np.full(256, NOT_A_LEVEL, np.uint8)
    own = levels(span)
    found[own] = np.arange(len(own))
    found[own[1:] | 0x80] = np.arange(1, len(own))
    found.setflags(write=False)
    return found


def steps(span: int) -> NDArray[np.float64]:
    """The levels of a span in units of u, by rank."""
    return INTEGERS[levels(span)] / (16 << unit_exponent(span))


def histogram(codes: NDArray[np.uint8], span: int) -> NDArray[np.int64]:
    """How often each rank occurs in ``codes`` (uint8, any shape), int64 [levels].

    Raises
    ------
    ValueError
        Where a code is no level of the span.
    """
    check_codes(codes, "histogram")
    counts = np.bincount(codes.reshape(-1), minlength=256)
    places = ranks(span)
    wrong = np.flatnonzero((places == NOT_A_LEVEL) & (counts > 0))
    if len(wrong):
        raise ValueError(f"histogram: code {wrong[0]:#04x} is no level of span {span}")
    found = np.zeros(len(levels(span)), np.int64)
    known = places != NOT_A_LEVEL
    np.add.at(found, places[known], counts[known])
    return found


@dataclass(frozen=True)
class Table:
    """A code: ``counts[n - 1]`` levels have codewords of n bits, n up to MAX_LENGTH, in an order in
    which ``zero`` levels come before zero.

    Raises
    ------
    ValueError
        On construction, where codewords are missing or left over, or zero has no place.
    """

    counts: tuple[int, ...]
    zero: int = 0

    def __post_init__(self) -> None:
        if len(self.counts) != MAX_LENGTH or not all(0 <= n <= 127 for n in self.counts):
            raise ValueError(f"Table: {MAX_LENGTH} counts of 0 to 127 are wanted: {self.counts}")
        filled = sum(n << (MAX_LENGTH - bits) for bits, n in enumerate(self.counts, 1))
        if filled != 1 << MAX_LENGTH:
            kind = "left without meaning" if filled < 1 << MAX_LENGTH else "missing"
            raise ValueError(f"Table: codewords are {kind}: counts {self.counts}")
        if not 0 <= self.zero <= min(MAX_ZERO, self.size - 1):
            most = min(MAX_ZERO, self.size - 1)
            raise ValueError(f"Table: zero is {self.zero}, must be 0 to {most}")

    @property
    def size(self) -> int:
        """How many levels have a codeword: those of rank 0 to size - 1."""
        return sum(self.counts)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The ranks in order."""
        return np.insert(np.arange(1, self.size), self.zero, 0)

    @cached_property
    def lengths(self) -> NDArray[np.uint8]:
        """Bits of the codeword of each rank, without the sign; uint8 [size]."""
        found = np.empty(self.size, np.uint8)
        found[self.order] = np.repeat(np.arange(1, MAX_LENGTH + 1), self.counts)
        return found

    @cached_property
    def codewords(self) -> NDArray[np.uint16]:
        """The codeword of each rank, its last bit in bit 0; uint16 [size]."""
        free = MAX_LENGTH - np.repeat(np.arange(1, MAX_LENGTH + 1), self.counts)
        starts = np.cumsum(1 << free) - (1 << free)
        found = np.empty(self.size, np.uint16)
        found[self.order] = starts >> free
        return found

    @property
    def bits(self) -> NDArray[np.uint8]:
        """Bits of a weight of each rank, with its sign; uint8 [size]."""
        return self.lengths + (np.arange(self.size) > 0).astype(np.uint8)

    def size_of(self, counts: NDArray[np.int64]) -> int:
        """Bits of weights whose ranks occur ``counts`` times.

        Raises
        ------
        ValueError
            Where one of them has no codeword.
        """
        if counts[self.size :].any():
            raise ValueError(f"Table: rank {int(np.flatnonzero(counts)[-1])} has no codeword")
        return int((counts[: self.size] * self.bits).sum())


def fit(counts: Sequence[int] | NDArray[np.int64]) -> Table:
    """The shortest code for ranks that occur ``counts`` times, zero lying before the first of them
    that is not more frequent. It covers the ranks up to the last that occurs, two at least.

    Dynamic programming over the tree, from its deepest level up: with ``i`` levels placed and
    ``m`` nodes at a depth, ``c`` of these become codewords and the others split. ``cost[i, m]`` is
    the least sum, over the depths below, of how often the levels not yet placed occur.
    """
    given = np.asarray(counts, np.float64)
    used = np.flatnonzero(given)
    size = max(2, int(used[-1]) + 1 if len(used) else 0)
    weights = np.zeros(size)
    weights[: min(size, len(given))] = given[:size]
    rarer = np.flatnonzero(weights[1 : MAX_ZERO + 1] <= weights[0])
    zero = min(int(rarer[0]) if len(rarer) else MAX_ZERO, size - 1)
    weights = np.insert(weights[1:], zero, weights[0])
    tail = np.append(np.cumsum(weights[::-1])[::-1], 0.0)  # of level i in order and all after it
    cost = np.full((size + 1, size + 1), np.inf)
    left = np.arange(size + 1)
    cost[left, size - left] = 0.0  # at the greatest depth every node becomes a codeword
    choices = []
    for _ in range(MAX_LENGTH - 1):
        above = np.full_like(cost, np.inf)
        choice = np.zeros(cost.shape, np.int64)
        for placed in range(size + 1):  # from [i, m] to [i + placed, 2 (m - placed)]
            # No more nodes than levels are left, as all nodes are used.
            nodes = np.arange(placed, min(size, placed + size // 2) + 1)
            found = cost[placed:, 2 * (nodes - placed)] + tail[placed:, None]
            target = above[: size + 1 - placed, nodes]
            better = found < target
            above[: size + 1 - placed, nodes] = np.where(better, found, target)
            choice[: size + 1 - placed, nodes] = np.where(
                better, placed, choice[: size + 1 - placed, nodes]
            )
        choices.append(choice)
        cost = above
    result, index, open_nodes = [], 0, 2  # depth 1 has two nodes
    for choice in reversed(choices):
        placed = int(choice[index, open_nodes])
        result.append(placed)
        index, open_nodes = index + placed, 2 * (open_nodes - placed)
    return Table((*result, open_nodes), zero)
