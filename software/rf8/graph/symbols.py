"""What `rf8.graph.trace` knows of a value: descriptions that stand for tensors.

Of a vector of the graph each element's number is kept, so that views, transpositions and slices
are done on the numbers and looked at where the vector is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

TOKENS = 4
"""Tokens of the text that is traced: enough to see that attention is causal."""


@dataclass(frozen=True)
class Tokens:
    """The token ids."""


@dataclass(frozen=True)
class Parameter:
    """A weight, by its name in the checkpoint, plus ``offset``."""

    name: str
    offset: float = 0.0


@dataclass(frozen=True)
class Vector:
    """Elements of the vector ``value`` of the graph: the element n of token t has the number
    ``t * width + n``.

    Several terms of (numbers, factors) add up; factors of None are 1.
    """

    value: int
    terms: tuple[tuple[Tensor, Tensor | None], ...]

    def moved(self, move: Callable[[Tensor], Tensor]) -> Vector:
        """After an operation that only moves elements."""
        terms = tuple((move(i), None if f is None else move(f)) for i, f in self.terms)
        return replace(self, terms=terms)

    def scaled(self, by: Tensor) -> Vector:
        """Times a constant."""
        terms = []
        for index, factor in self.terms:
            one = torch.ones(index.shape) if factor is None else factor
            terms.append((index, one * by))
        return replace(self, terms=tuple(terms))

    @property
    def index(self) -> Tensor | None:
        """The numbers, where there is one term without factors."""
        (index, factor), *others = self.terms
        return None if others or factor is not None else index


@dataclass(frozen=True)
class Pointwise:
    """A function of each element of a vector."""

    of: Vector
    function: Callable[[Tensor], Tensor]
    module: str


@dataclass(frozen=True)
class MeanSquare:
    """The mean square over the last axis of a vector, plus epsilon."""

    of: Vector
    epsilon: float


@dataclass(frozen=True)
class InverseRoot:
    """One over the root of a `MeanSquare`."""

    of: MeanSquare


@dataclass(frozen=True)
class Normal:
    """A vector over its root mean square."""

    of: MeanSquare


DATA = (Tokens, Parameter, Vector, Pointwise, MeanSquare, InverseRoot, Normal)
"""What depends on tokens or weights; everything else is computed for real."""


def pattern(index: Tensor, width: int) -> Tensor | None:
    """Which element of a vector of ``width`` stands where, the same for each token: ``index``
    without its axis of tokens. None where there is no such axis."""
    for axis in range(index.dim()):
        if index.shape[axis] != TOKENS:
            continue
        first = index.movedim(axis, 0)
        token = torch.arange(TOKENS).reshape(-1, *[1] * (first.dim() - 1))
        same: Tensor = first - token * width
        if torch.equal(same, same[:1].expand_as(same)) and 0 <= same.min() <= same.max() < width:
            return same[0]
    return None


def runs(elements: Tensor) -> tuple[tuple[int, ...], int]:
    """Ascending numbers as runs of one length: their starts and that length."""
    breaks = (torch.diff(elements) != 1).nonzero().flatten() + 1
    cut = [0, *breaks.tolist(), len(elements)]
    sizes = [b - a for a, b in pairwise(cut)]
    length = math.gcd(*sizes)
    return tuple(elements[::length].tolist()), length
