"""Where the elements of a vector lie: mostly one after the other, but attention wants heads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from golden.config import AccelConfig
from golden.isa import vector_words
from rf8.compiler.tensors import Heads
from rf8.errors import DataError
from rf8.graph.ir import Activate, Add, Attention, Cap, Graph, Linear, Multiply, Norm, Scale, Take

Order = NDArray[np.int64]
"""The number of the element at each place, -1 where there is none."""


_ALIKE = (Add, Multiply, Activate, Scale, Cap, Norm)
"""Operations whose result lies as what they take."""
_ARRANGED = (Linear, Take, Attention, *_ALIKE)


def arrange(
    name: str, graph: Graph, heads: dict[int, Heads], config: AccelConfig
) -> dict[int, Order]:
    """The order of each vector whose elements do not lie one after the other.

    Queries, keys and values lie head by head, each padded with zeros, and of queries and keys the
    rotary pairs are neighbours; what an attention gives has gaps of its own. Elementwise operations
    and norms pass an order on, both ways. ``name`` names the model in errors.

    Raises
    ------
    DataError
        Where a vector would need two orders.
    """
    ops = graph.ops
    found: dict[int, Order] = {}

    def set_order(index: int, order: Order | None) -> bool:
        if order is None or (index in found and np.array_equal(found[index], order)):
            return False
        if index in found:
            raise DataError(
                f"{name}: {ops[index].module}: its elements would have to lie in two orders, which "
                "cannot be lowered"
            )
        found[index] = order
        return True

    for index, shape in heads.items():
        op = ops[index]
        assert isinstance(op, Attention)
        turned = _in_heads(shape, _pairs(op, shape.width))
        set_order(op.q, _repeated(turned, shape.queries, shape.width))
        set_order(op.k, _repeated(turned, shape.groups, shape.width))
        plain = _in_heads(shape, np.arange(shape.width))
        set_order(op.v, _repeated(plain, shape.groups, shape.width))
        set_order(index, _context_order(shape, config))
    changed = True
    while changed:
        changed = False
        for index, op in enumerate(ops):
            if isinstance(op, _ALIKE):
                same = (index, *op.inputs)
                known = next((found[i] for i in same if i in found), None)
                for i in same:
                    changed |= set_order(i, known)
    for index, order in list(found.items()):
        if not isinstance(ops[index], _ARRANGED):
            raise DataError(
                f"{name}: {ops[index].module}: the result of {type(ops[index]).__name__} as heads "
                "cannot be lowered"
            )
        if np.array_equal(order, np.arange(ops[index].width)):
            del found[index]
    return found


def places_of(order: Order | None, width: int, config: AccelConfig) -> Order:
    """The same for a vector of ``width`` elements, filled up to whole words."""
    order = np.arange(width) if order is None else order
    whole = vector_words(len(order), config) * config.results_per_word
    return np.concatenate([order, np.full(whole - len(order), -1)])


def _pairs(op: Attention, width: int) -> Order:
    """The order of a head's elements in which rotary pairs are neighbours."""
    order = np.arange(width)
    if op.rotary is not None and op.rotary.pairing == "halves":
        half = len(op.rotary.steps)
        order[: 2 * half] = np.arange(2 * half).reshape(2, half).T.reshape(-1)
    return order


def _in_heads(shape: Heads, order: Order) -> Order:
    return np.concatenate([order, np.full(shape.padded - shape.width, -1)])


def _repeated(order: Order, many: int, width: int) -> Order:
    """A head's order for ``many`` heads of ``width`` elements, one after the other."""
    first = np.arange(many)[:, None] * width
    return np.where(order < 0, -1, order + first).reshape(-1)


def _context_order(shape: Heads, config: AccelConfig) -> Order:
    """The order of what an attention gives."""
    stride = shape.stride(config)
    padding = np.full(stride - shape.width, -1)
    return _repeated(np.concatenate([np.arange(shape.width), padding]), shape.queries, shape.width)
