"""The compiler's intermediate representation: what one token goes through, vector by vector.

A graph is a list of operations in order; an operation's index names the vector that it gives. Every
operation knows the path of the module it comes from, for errors, labels and profiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal

from golden.layers import ACTIVATIONS

Pairing = Literal["halves", "neighbours"]


@dataclass(frozen=True)
class Op:
    """An operation; ``width``: elements of the vector it gives."""

    module: str
    width: int

    @property
    def inputs(self) -> tuple[int, ...]:
        """The vectors it takes."""
        return tuple(getattr(self, f.name) for f in fields(self) if f.name in _OPERANDS)


_OPERANDS = ("x", "a", "b", "q", "k", "v")


@dataclass(frozen=True)
class Embedding(Op):
    """A row of the table ``weight``: that of the token or of the position."""

    weight: str
    by: Literal["token", "position"]


@dataclass(frozen=True)
class Add(Op):
    """a + b"""

    a: int
    b: int


@dataclass(frozen=True)
class Multiply(Op):
    """a * b, element by element"""

    a: int
    b: int


@dataclass(frozen=True)
class Norm(Op):
    """LayerNorm where there is a ``bias``, else RMSNorm."""

    x: int
    weight: str
    bias: str | None
    epsilon: float


@dataclass(frozen=True)
class Linear(Op):
    """W x + b. Several matrices lie on top of each other: (weight, bias or None, outputs)."""

    x: int
    parts: tuple[tuple[str, str | None, int], ...]


@dataclass(frozen=True)
class Split(Op):
    """Part ``part`` of a vector that is cut into parts of the widths ``widths``."""

    x: int
    part: int
    widths: tuple[int, ...]


@dataclass(frozen=True)
class Rotary:
    """Rotary positions: base, and which elements make a pair."""

    theta: float
    pairing: Pairing


@dataclass(frozen=True)
class Attention(Op):
    """Causal self-attention with a cache of keys and values; heads share them in groups."""

    q: int
    k: int
    v: int
    heads: int
    kv_heads: int
    rotary: Rotary | None


@dataclass(frozen=True)
class Activate(Op):
    """The activation function ``kind`` of `golden.layers.ACTIVATIONS`, element by element."""

    x: int
    kind: str


@dataclass(frozen=True)
class Graph:
    """Operations in order. The vector of the last is the logits."""

    ops: tuple[Op, ...]

    def users(self) -> list[list[int]]:
        """For each vector the operations that take it."""
        found: list[list[int]] = [[] for _ in self.ops]
        for index, op in enumerate(self.ops):
            for value in op.inputs:
                found[value].append(index)
        return found

    def attentions(self) -> Iterator[tuple[int, Attention]]:
        """The layers of attention, with their index."""
        for index, op in enumerate(self.ops):
            if isinstance(op, Attention):
                yield index, op


class Broken(AssertionError):
    """A pass left a graph that is none; the message names the pass and the operation."""


def verify(graph: Graph, after: str) -> None:
    """Raise `Broken` where widths do not fit, or a vector is used before it is made."""

    def need(ok: bool, op: Op, what: str) -> None:
        if not ok:
            raise Broken(f"after {after}: {type(op).__name__} {op.module}: {what}")

    ops = graph.ops
    for index, op in enumerate(ops):
        need(op.width > 0, op, f"width is {op.width}")
        need(all(0 <= value < index for value in op.inputs), op, "takes what is not made yet")
        widths = [ops[value].width for value in op.inputs]
        match op:
            case Activate(kind=kind) if kind not in ACTIVATIONS:
                need(False, op, f"activation function {kind!r} is unknown")
            case Add() | Multiply() | Norm() | Activate():
                need(all(w == op.width for w in widths), op, f"{widths} give {op.width}")
            case Linear(parts=parts):
                need(sum(n for *_, n in parts) == op.width, op, "parts do not add up to its width")
            case Split(part=part, widths=cuts):
                need(sum(cuts) == widths[0] and cuts[part] == op.width, op, "parts do not add up")
            case Attention(heads=heads, kv_heads=groups):
                q, k, v = widths
                fits = q % heads == 0 and heads % groups == 0 and q == op.width
                need(fits and k == v == q // heads * groups, op, f"heads do not fit {widths}")
            case Embedding():
                pass
            case _:
                need(False, op, "unknown operation")
    users = graph.users()
    for op, used in zip(ops[:-1], users[:-1], strict=True):
        need(bool(used), op, "is made and never used")


class Builder:
    """Makes a graph operation by operation; each method gives the index of its vector."""

    def __init__(self) -> None:
        self._ops: list[Op] = []

    def add(self, op: Op) -> int:
        """Append an operation."""
        self._ops.append(op)
        return len(self._ops) - 1

    def graph(self, made_by: str) -> Graph:
        """The graph, verified."""
        graph = Graph(tuple(self._ops))
        verify(graph, made_by)
        return graph
