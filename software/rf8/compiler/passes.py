"""Passes over the graph, each verified."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from rf8.compiler.ir import _OPERANDS, Builder, Graph, Linear, Op, Split, verify


def _rewritten(graph: Graph, change: Callable[[int, Op, Builder, list[int]], int]) -> Graph:
    """A graph made anew: ``change`` appends each operation, which has the new indices of its
    inputs, or others in its place. It gets the old index, the operation, the builder, and the new
    indices of all operations before it, and returns the new index of the vector."""
    builder = Builder()
    new: list[int] = []
    for index, op in enumerate(graph.ops):
        moved = {name: new[getattr(op, name)] for name in _OPERANDS if hasattr(op, name)}
        new.append(change(index, replace(op, **moved), builder, new))
    return Graph(tuple(builder._ops))


def join_linears(graph: Graph) -> Graph:
    """Linear layers that take the same vector become one, which is read in one stream."""
    groups: dict[int, list[int]] = {}
    for index, op in enumerate(graph.ops):
        if isinstance(op, Linear):
            groups.setdefault(op.x, []).append(index)
    first = {members[0]: members for members in groups.values() if len(members) > 1}
    later = {index: members for members in first.values() for index in members}
    joined: dict[int, int] = {}

    def change(index: int, op: Op, builder: Builder, new: list[int]) -> int:
        if index not in later or not isinstance(op, Linear):
            return builder.add(op)
        members = [graph.ops[i] for i in later[index]]
        linears = [m for m in members if isinstance(m, Linear)]
        widths = tuple(m.width for m in linears)
        if index in first:
            parts = tuple(part for m in linears for part in m.parts)
            names = ",".join(m.module.rpartition(".")[2] for m in linears)
            prefix = op.module.rpartition(".")[0]
            whole = Linear(f"{prefix}.{names}", sum(widths), op.x, parts)
            joined[index] = builder.add(whole)
        part = later[index].index(index)
        return builder.add(Split(op.module, op.width, joined[later[index][0]], part, widths))

    return _rewritten(graph, change)


def drop_unused(graph: Graph) -> Graph:
    """Leave out operations whose vector nothing takes."""
    wanted = {len(graph.ops) - 1}
    for index in range(len(graph.ops) - 1, -1, -1):
        if index in wanted:
            wanted.update(graph.ops[index].inputs)

    def change(index: int, op: Op, builder: Builder, new: list[int]) -> int:
        return builder.add(op) if index in wanted else -1

    return _rewritten(graph, change)


PASSES: tuple[Callable[[Graph], Graph], ...] = (drop_unused, join_linears)


def optimize(graph: Graph) -> Graph:
    """All passes, with a look at the graph after each."""
    for step in PASSES:
        graph = step(graph)
        verify(graph, step.__name__)
    return graph
