"""Changes of a graph that leave what it computes as it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from rf8.errors import DataError
from rf8.graph.ir import (
    Add,
    Builder,
    Embedding,
    Graph,
    Linear,
    Norm,
    Op,
    Scale,
    Take,
    verify,
)


def _rewritten(graph: Graph, change: Callable[[int, Op, Builder, list[int]], int]) -> Graph:
    """A graph made anew: ``change`` appends each operation, which has the new indices of its
    inputs, or others in its place. It gets the old index, the operation, the builder, and the new
    indices of all operations before it, and returns the new index of the vector."""
    builder = Builder()
    new: list[int] = []
    for index, op in enumerate(graph.ops):
        new.append(change(index, op.moved(new), builder, new))
    return builder.graph(graph.context)


def join_linears(graph: Graph) -> Graph:
    """Linear layers that take the same vector become one, which is read in one stream."""
    groups: dict[tuple[int, int], list[int]] = {}
    head = graph.head
    for index, op in enumerate(graph.ops):
        if isinstance(op, Linear) and index != head:
            groups.setdefault((op.x, op.drop), []).append(index)
    first = {members[0]: members for members in groups.values() if len(members) > 1}
    later = {index: members for members in first.values() for index in members}
    joined: dict[int, int] = {}

    def change(index: int, op: Op, builder: Builder, new: list[int]) -> int:
        if index not in later or not isinstance(op, Linear):
            return builder.add(op)
        members = [graph.ops[i] for i in later[index]]
        linears = [m for m in members if isinstance(m, Linear)]
        starts = [sum(m.width for m in linears[:n]) for n in range(len(linears) + 1)]
        if index in first:
            parts = tuple(part for m in linears for part in m.parts)
            names = ",".join(m.module.rpartition(".")[2] for m in linears)
            prefix = op.module.rpartition(".")[0]
            whole = Linear(f"{prefix}.{names}", starts[-1], op.x, parts, drop=op.drop)
            joined[index] = builder.add(whole)
        start = starts[later[index].index(index)]
        return builder.add(Take(op.module, op.width, joined[later[index][0]], (start,), op.width))

    return _rewritten(graph, change)


def join_takes(graph: Graph) -> Graph:
    """A part of one run of a vector becomes a part of that vector."""

    def change(index: int, op: Op, builder: Builder, new: list[int]) -> int:
        inner = builder.ops[op.x] if isinstance(op, Take) else None
        if not isinstance(op, Take) or not isinstance(inner, Take) or inner.starts[1:]:
            return builder.add(op)
        starts = tuple(inner.starts[0] + start for start in op.starts)
        return builder.add(replace(op, x=inner.x, starts=starts))

    return drop_unused(_rewritten(graph, change))


def drop_unused(graph: Graph) -> Graph:
    """Leave out operations whose vector nothing takes."""
    wanted = {len(graph.ops) - 1}
    for index in range(len(graph.ops) - 1, -1, -1):
        if index in wanted:
            wanted.update(graph.ops[index].inputs)

    def change(index: int, op: Op, builder: Builder, new: list[int]) -> int:
        return builder.add(op) if index in wanted else -1

    return _rewritten(graph, change)


PASSES: tuple[Callable[[Graph], Graph], ...] = (drop_unused, join_linears, join_takes)


def optimize(graph: Graph) -> Graph:
    """All passes, with a look at the graph after each."""
    for step in PASSES:
        graph = step(graph)
        verify(graph, step.__name__)
    return graph


def scale_stream(graph: Graph, drop: int, where: str) -> Graph:
    """The same model with its residual stream computed times ``2**-drop``.

    The stream is what the last norm takes, and all that is added up to it. Norms see the same
    values but for epsilon, which becomes ``epsilon * 4**-drop``, and what is written to the stream
    is scaled by exponents alone, so that nothing else changes than its range and its resolution.
    ``where`` names the model in errors.

    Raises
    ------
    DataError
        Where something writes to the stream or reads it that does not allow it.
    """
    if not drop:
        return graph
    head = graph.ops[graph.head]
    assert isinstance(head, Linear)
    last = graph.ops[head.x]
    stream = {last.x} if isinstance(last, Norm) else set()
    for index in range(len(graph.ops) - 1, -1, -1):
        op = graph.ops[index]
        if isinstance(op, Add) and index in stream:
            stream |= {op.a, op.b}
    for index, op in enumerate(graph.ops):
        if isinstance(op, Add) and {op.a, op.b} & stream:
            stream |= {index, op.a, op.b}

    def change(index: int, op: Op, builder: Builder, new: list[int]) -> int:
        read, written = bool(set(graph.ops[index].inputs) & stream), index in stream
        gain = 0 if not read else drop
        match op:
            case Add():
                pass
            case Embedding() if written:
                op = replace(op, drop=op.drop + drop)
            case Norm() if read or written:
                epsilon = op.epsilon * 4.0**-gain
                op = replace(op, epsilon=epsilon, drop=op.drop + drop * written)
            case Linear() if read or written:
                op = replace(op, drop=op.drop + drop * written - gain)
            case Scale() if read or written:
                op = replace(op, factor=op.factor * 2.0 ** (gain - drop * written))
            case _ if read or written:
                raise DataError(
                    f"{where}: {op.module}: {type(op).__name__} is part of the residual stream, "
                    "whose range cannot be changed then"
                )
        return builder.add(op)

    return _rewritten(graph, change)


def lift_embeddings(graph: Graph) -> Graph:
    """A constant factor of an embedding goes into its exponents as far as it is a power of two,
    so that small values keep their bits."""
    users = graph.users()
    lifted: dict[int, int] = {}
    for index, op in enumerate(graph.ops):
        used = [graph.ops[user] for user in users[index]]
        if isinstance(op, Embedding) and len(used) == 1 and isinstance(used[0], Scale):
            lifted[index] = math.frexp(used[0].factor)[1] - 1

    def change(index: int, op: Op, builder: Builder, new: list[int]) -> int:
        if isinstance(op, Embedding) and index in lifted:
            op = replace(op, drop=op.drop - lifted[index])
        source = graph.ops[index]
        if isinstance(op, Scale) and isinstance(source, Scale) and source.x in lifted:
            op = replace(op, factor=op.factor * 2.0 ** -lifted[source.x])
        return builder.add(op)

    return _rewritten(graph, change)
