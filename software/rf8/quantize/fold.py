"""Scales of columns that cost nothing: what makes the vector before a linear layer takes them.

``W x = (W / c) (c x)`` for any positive c, one number a column. Where other weights can make c x in
place of x - those of a norm, the rows of v behind an attention, the rows of one factor of a gated
product - the model computes what it computed before, and W has other columns. On a grid whose steps
are powers of two, columns then have any step. The idea is known of activations (SmoothQuant, arXiv
2211.10438).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rf8.checkpoint.model import Float, Model, RF8Tensor
from rf8.graph.ir import Activate, Attention, Embedding, Graph, Linear, Multiply, Norm, Take

Places = NDArray[np.int64]
Scales = NDArray[np.float64]


@dataclass(frozen=True)
class Absorber:
    """The tensors that take scales of a vector of n elements.

    ``places``: name -> for each element of the vector, which element or row of the tensor makes
    it, [n]; the same place for several elements means that they need one scale. ``offset``: what
    the model adds to these tensors before it uses them.
    """

    places: dict[str, Places]
    offset: float = 0.0

    def shared(self, scales: Scales) -> Scales:
        """Scales [n] with the geometric mean in place of each where elements need the same."""
        _, place = np.unique(next(iter(self.places.values())), return_inverse=True)
        sums = np.bincount(place, np.log(scales)) / np.bincount(place)
        return np.exp(sums)[place]


def absorbers(graph: Graph) -> Iterator[tuple[int, Absorber]]:
    """Each vector that linear layers take and nothing else does, with what takes its scales; those
    for which there is nothing are left out, as is that of a head whose matrix is an embedding."""
    embeddings = {op.weight for op in graph.ops if isinstance(op, Embedding)}
    for vector, used in enumerate(graph.users()):
        linears = [op for user in used if isinstance(op := graph.ops[user], Linear)]
        tied = embeddings & {weight for op in linears for weight, _, _ in op.parts}
        if linears and len(linears) == len(used) and not tied:
            found = _makers(graph, vector, np.arange(graph.ops[vector].width))
            if found is not None and _alone(graph, found):
                yield vector, found


def _makers(graph: Graph, vector: int, elements: Places) -> Absorber | None:
    """What makes the ``elements`` of a vector, each in proportion to its weights."""
    op = graph.ops[vector]
    match op:
        case Norm(weight=str(weight), bias=bias, parts=1, offset=offset):
            names = [weight] if bias is None else [weight, bias]
            # A bias has no offset: a norm that has both kinds would need two.
            return None if offset and bias else Absorber(dict.fromkeys(names, elements), offset)
        case Linear(parts=((weight, bias, _),)):
            names = [weight] if bias is None else [weight, bias]
            return Absorber(dict.fromkeys(names, elements))
        case Take(x=x, starts=starts, length=length):
            taken = np.concatenate([np.arange(s, s + length) for s in starts])
            return _makers(graph, x, taken[elements])
        case Attention(v=v, heads=heads, kv_heads=groups):
            head, rest = np.divmod(elements, op.width // heads)
            return _makers(graph, v, head // (heads // groups) * (op.width // heads) + rest)
        case Multiply(a=a, b=b):
            linear = [x for x in (b, a) if not isinstance(graph.ops[x], Activate)]
            return _makers(graph, linear[0], elements) if linear else None
    return None


def _alone(graph: Graph, absorber: Absorber) -> bool:
    """Whether nothing else is made of the same elements of the tensors."""
    ops, users = graph.ops, graph.users()
    for name, places in absorber.places.items():
        owners = [i for i, op in enumerate(ops) if name in _names(op)]
        if len(owners) != 1:
            return False
        # Down the chain that scales run through: each vector goes to the next one alone, but for
        # other elements of it that are taken apart.
        vector = owners[0]
        while not all(isinstance(ops[user], Linear) for user in users[vector]):
            takes = [ops[user] for user in users[vector]]
            if all(isinstance(op, Take) for op in takes):
                own = [u for u in users[vector] if _taken(ops[u], places)]
                if len(own) != 1:
                    return False
                places = np.arange(ops[own[0]].width)
                vector = own[0]
            elif len(takes) == 1 and isinstance(takes[0], Attention | Multiply):
                places = np.arange(takes[0].width)
                vector = users[vector][0]
            else:
                return False
    return True


def _taken(op: object, places: Places) -> bool:
    assert isinstance(op, Take)
    taken = np.concatenate([np.arange(s, s + op.length) for s in op.starts])
    return bool(np.isin(taken, places).any())


def _names(op: object) -> set[str | None]:
    match op:
        case Norm():
            return {op.weight, op.bias}
        case Linear():
            return {name for weight, bias, _ in op.parts for name in (weight, bias)}
    return set()


def fold(model: Model, scales: dict[int, Scales]) -> Model:
    """The same model with the vectors that linear layers take times ``scales``.

    ``scales``: vector of `absorbers` -> positive factors [n], where the absorber allows them: the
    columns of the matrices that take it are divided by them.
    """
    tensors = dict(model.tensors)
    found = dict(absorbers(model.graph))

    def values(name: str) -> Float:
        tensor = tensors[name]
        assert not isinstance(tensor, RF8Tensor)
        return tensor

    for vector, factors in scales.items():
        about = found[vector]
        for name, places in about.places.items():
            before = values(name)
            by = np.ones(len(before))
            by[places] = factors
            by = by if before.ndim == 1 else by[:, None]
            tensors[name] = ((before + about.offset) * by - about.offset).astype(np.float32)
        for user in model.graph.users()[vector]:
            op = model.graph.ops[user]
            assert isinstance(op, Linear)
            for weight, _, _ in op.parts:
                tensors[weight] = (values(weight) / factors).astype(np.float32)
    return replace(model, tensors=tensors)
