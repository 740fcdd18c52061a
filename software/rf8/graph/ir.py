"""What a model computes for one token, vector by vector.

A graph is a list of operations in order; an operation's index names the vector that it gives. Every
operation knows the path of the module it comes from, for errors, labels and profiles.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

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
        return tuple(getattr(self, f.name) for f in fields(self) if f.name in OPERANDS)

    def moved(self, new: list[int]) -> Op:
        """The same operation where the vector n has the index ``new[n]``."""
        taken = {name: new[getattr(self, name)] for name in OPERANDS if hasattr(self, name)}
        return replace(self, **taken)


OPERANDS = ("x", "a", "b", "q", "k", "v")
"""Names of the fields that are vectors."""


@dataclass(frozen=True)
class Embedding(Op):
    """A row of the table ``weight``, which has ``rows``: that of the token or of the position.

    ``drop``: the row times ``2**-drop``.
    """

    weight: str
    by: Literal["token", "position"]
    rows: int
    drop: int = 0


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
class Scale(Op):
    """x times the constant ``factor``, in (0, 2**15)."""

    x: int
    factor: float


@dataclass(frozen=True)
class Cap(Op):
    """The soft cap ``cap * tanh(x / cap)``."""

    x: int
    cap: float


@dataclass(frozen=True)
class Norm(Op):
    """x over its root mean square, times ``offset + weight``, plus ``bias``.

    ``center``: the mean is taken away first (LayerNorm). ``parts``: into how many equal parts x is
    cut, each normalised for itself by the same weights. ``weight``, ``bias``: None where there is
    none. ``drop``: the result times ``2**-drop``.
    """

    x: int
    weight: str | None
    bias: str | None
    epsilon: float
    center: bool
    parts: int = 1
    offset: float = 0.0
    drop: int = 0


@dataclass(frozen=True)
class Linear(Op):
    """W x + b. Several matrices lie on top of each other: (weight, bias or None, outputs).

    ``turned``: checkpoints hold the weights as [in, out], as transformers' Conv1D does.
    ``drop``: the result times ``2**-drop``.
    """

    x: int
    parts: tuple[tuple[str, str | None, int], ...]
    turned: bool = False
    drop: int = 0


@dataclass(frozen=True)
class Take(Op):
    """Elements of a vector: runs of ``length`` elements from each of ``starts`` on, one after the
    other."""

    x: int
    starts: tuple[int, ...]
    length: int


@dataclass(frozen=True)
class Rotary:
    """Rotary positions: each pair of elements turns by its part of ``steps`` radians a position.

    The first ``2 * len(steps)`` elements of a head are pairs: i and i + len(steps) ("halves"), or
    2i and 2i + 1 ("neighbours"). The others stay.
    """

    steps: tuple[float, ...]
    pairing: Pairing


@dataclass(frozen=True)
class Attention(Op):
    """Causal self-attention with a cache of keys and values; heads share them in groups.

    ``scale``: what scores are multiplied by. ``window``: how many positions are seen, the token's
    own among them; None: all. ``cap``: soft cap of the scores, or None.
    """

    q: int
    k: int
    v: int
    heads: int
    kv_heads: int
    rotary: Rotary | None
    scale: float
    window: int | None = None
    cap: float | None = None


@dataclass(frozen=True)
class Activate(Op):
    """The activation function ``kind`` of `golden.layers.ACTIVATIONS`, element by element."""

    x: int
    kind: str


@dataclass(frozen=True)
class Graph:
    """Operations in order. The vector of the last is the logits.

    ``context``: for how many positions the model is made.
    """

    ops: tuple[Op, ...]
    context: int

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

    @property
    def vocab(self) -> int:
        """How many tokens there are logits of."""
        return self.ops[-1].width

    @property
    def tied(self) -> bool:
        """Whether the head's matrix is that of an embedding, too."""
        head = self.ops[self.head]
        names = {op.weight for op in self.ops if isinstance(op, Embedding)}
        return isinstance(head, Linear) and head.parts[0][0] in names

    @property
    def head(self) -> int:
        """The index of the last linear layer; what follows it changes logits one by one."""
        return max(index for index, op in enumerate(self.ops) if isinstance(op, Linear))

    def matrices(self) -> dict[str, tuple[int, int]]:
        """Name -> (outputs, inputs) of every weight matrix in order, that of an embedding being
        (rows, width)."""
        found: dict[str, tuple[int, int]] = {}
        for op in self.ops:
            match op:
                case Embedding():
                    found[op.weight] = op.rows, op.width
                case Linear():
                    width = self.ops[op.x].width
                    found |= {weight: (outputs, width) for weight, _, outputs in op.parts}
        return found

    def turned(self) -> set[str]:
        """Names of the matrices that checkpoints hold as [in, out]."""
        linears = (op for op in self.ops if isinstance(op, Linear) and op.turned)
        return {weight for op in linears for weight, *_ in op.parts}

    def vectors(self) -> dict[str, int]:
        """Name -> elements of every bias and norm weight in order."""
        found: dict[str, int] = {}
        for op in self.ops:
            match op:
                case Linear():
                    found |= {bias: n for _, bias, n in op.parts if bias is not None}
                case Norm():
                    names = (name for name in (op.weight, op.bias) if name is not None)
                    found |= dict.fromkeys(names, op.width // op.parts)
        return found

    def layers(self) -> list[str]:
        """The paths of the model's repeated blocks, such as ``layers.3``, in order."""
        found = (re.match(r"(?:[a-z_]+\.)*?\d+(?=\.|$)", op.module) for op in self.ops)
        return list(dict.fromkeys(path.group() for path in found if path))

    def to_json(self) -> str:
        """As text, for `from_json`."""
        ops = [{"op": type(op).__name__, **asdict(op)} for op in self.ops]
        return json.dumps({"version": GRAPH_VERSION, "context": self.context, "ops": ops})

    @classmethod
    def from_json(cls, text: str) -> Graph:
        """The graph of `to_json`, verified.

        Raises
        ------
        ValueError
            Where the text is none, or of another version.
        """
        try:
            found = json.loads(text)
            if found["version"] != GRAPH_VERSION:
                raise ValueError(f"version {found['version']}, not {GRAPH_VERSION}")
            graph = cls(tuple(_op(fields) for fields in found["ops"]), found["context"])
            verify(graph, "reading")
        except (KeyError, TypeError, AttributeError, Broken) as error:
            raise ValueError(f"no graph: {error}") from error
        return graph


GRAPH_VERSION = 1
"""Of `Graph.to_json`: another one where the meaning of an operation or a field changes."""


def _op(found: dict[str, Any]) -> Op:
    kinds = {kind.__name__: kind for kind in Op.__subclasses__()}
    kind = kinds[found.pop("op")]
    if found.get("rotary"):
        found["rotary"] = Rotary(tuple(found["rotary"]["steps"]), found["rotary"]["pairing"])
    if kind is Linear:
        found["parts"] = tuple(tuple(part) for part in found["parts"])
    if kind is Take:
        found["starts"] = tuple(found["starts"])
    made: Op = kind(**found)
    return made


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
            case Add() | Multiply() | Norm() | Activate() | Scale() | Cap():
                need(all(w == op.width for w in widths), op, f"{widths} give {op.width}")
                if isinstance(op, Norm):
                    need(op.width % op.parts == 0, op, f"{op.parts} parts of {op.width}")
            case Linear(parts=parts):
                need(sum(n for *_, n in parts) == op.width, op, "parts do not add up to its width")
            case Take(starts=starts, length=length):
                fits = min(starts) >= 0 and max(starts) + length <= widths[0]
                need(fits and len(starts) * length == op.width, op, "runs do not add up")
            case Attention(heads=heads, kv_heads=groups, rotary=rotary):
                q, k, v = widths
                fits = q % heads == 0 and heads % groups == 0 and q == op.width
                need(fits and k == v == q // heads * groups, op, f"heads do not fit {widths}")
                turned = 0 if rotary is None else 2 * len(rotary.steps)
                need(turned <= q // heads, op, f"{turned} elements of a head turn")
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
        self.ops: list[Op] = []

    def add(self, op: Op) -> int:
        """Append an operation."""
        self.ops.append(op)
        return len(self.ops) - 1

    def graph(self, context: int) -> Graph:
        """The graph of what was added."""
        return Graph(tuple(self.ops), context)
