"""Lowering: from the operations of a graph to instructions."""

from __future__ import annotations

from collections import Counter

from golden.config import RESULT_FRAC
from golden.isa import After, Flag, Function
from golden.layers import ACTIVATIONS
from rf8.compiler import attention
from rf8.compiler.emitter import Emitter
from rf8.compiler.ir import (
    Activate,
    Add,
    Attention,
    Embedding,
    Linear,
    Multiply,
    Norm,
    Op,
    Rotary,
    Split,
)
from rf8.compiler.layout import Layout
from rf8.compiler.tensors import padded_width
from rf8.errors import DataError


class Lowering:
    """Writes one program: walks the graph, and keeps track of which words hold which vector.

    Parameters
    ----------
    layout: where tensors lie in memory
    emitter: takes the instructions
    with_head: whether logits are wanted, or only keys and values
    argmax: whether the machine finds the likeliest token
    """

    def __init__(self, layout: Layout, emitter: Emitter, with_head: bool, argmax: bool) -> None:
        self.layout, self.e, self.with_head, self.argmax = layout, emitter, with_head, argmax
        self.ops, self.users = layout.graph.ops, layout.users
        self.places: dict[int, int] = {}
        self.tables: dict[tuple[Rotary, int], int] = {}
        self.last = [max(used, default=len(self.ops)) for used in self.users]
        # Keys that are in the cache before the other results of their matrix are there.
        self.stored: set[int] = set()
        # A run of words is free when all vectors are done for that lie in it.
        self.runs: dict[int, int] = {}
        self.living: Counter[int] = Counter()
        # Vectors that are activation blocks: only matrix products can take them.
        self.blocks: set[int] = set()

    def run(self) -> list[int]:
        """Write all operations; without the head, those up to the last norm.

        Returns the first token of each part of the head.
        """
        e, head = self.e, self.ops[-1]
        parts: list[int] = []
        assert isinstance(head, Linear)
        for key, address in self.layout.angles.items():
            e.label("rotary positions")
            self.tables[key] = attention.angles(
                e, address, padded_width(key[1], self.layout.config)
            )
        for index, op in enumerate(self.ops[:-1]):
            if not self.with_head and index == head.x:
                break
            e.label(op.module)
            self._lower(index, op)
        if self.with_head:
            e.label(head.module)
            stream, block = self.layout.streams[head.module], self._block_at(head)
            parts = e.head(stream, block, self.layout.logits, head.width, self.argmax)
        e.halt()
        return parts

    def _lower(self, index: int, op: Op) -> None:
        e, layout = self.e, self.layout
        match op:
            case Embedding():
                self._new(index, e.scratch.take(e.words(op.width)))
                limit = layout.model.spec.vocab if op.by == "token" else layout.context
                by = Flag.TOKEN if op.by == "token" else Flag.INDEX
                e.embed(layout.streams[op.weight], limit, by, self.places[index])
            case Norm():
                gamma, places = layout.norms[index]
                self._only_block(index)
                self._new(index, e.norm(self.places[op.x], op.width, gamma, places, op.epsilon))
            case Linear():
                self._linear(index, op)
            case Split():
                offset = layout.offsets[index] // layout.config.results_per_word
                self._inside(index, op.x, self.places[op.x] + offset)
            case Add() | Multiply():
                self._pair(index, op)
            case Activate():
                self._activate(index, op)
            case Attention():
                self._attention(index, op)
        self._free(index, op)

    def _blocks(self, index: int) -> bool:
        """Whether the vector ``index`` enters a matrix product, and so is made as an activation
        block.

        Raises
        ------
        DataError
            Where something else takes it, too.
        """
        used = [isinstance(self.ops[user], Linear) for user in self.users[index]]
        if any(used) and len(used) > 1:
            users = (self.ops[user] for user in self.users[index])
            user = next(op for op in users if not isinstance(op, Linear))
            raise DataError(
                f"{self.layout.model.name}: {self.ops[index].module}: its result enters a matrix "
                f"product and {user.module}, which cannot be lowered"
            )
        if any(used):
            self.blocks.add(index)
        return any(used)

    def _only_block(self, index: int) -> None:
        """Note that the vector ``index`` is an activation block, whoever takes it.

        Raises
        ------
        DataError
            Where something else than a matrix product does.
        """
        if not self._blocks(index):
            op = self.ops[index]
            raise DataError(
                f"{self.layout.model.name}: {op.module}: the result of {type(op).__name__} enters "
                "no matrix product, which cannot be lowered"
            )

    def _block_at(self, op: Linear) -> int:
        """The place of the activation block that a matrix product takes.

        Raises
        ------
        DataError
            Where what it takes is none.
        """
        if op.x not in self.blocks:
            source = self.ops[op.x]
            raise DataError(
                f"{self.layout.model.name}: {op.module}: a matrix product of the result of "
                f"{type(source).__name__} {source.module}, which cannot be lowered"
            )
        return self.places[op.x]

    def _new(self, index: int, place: int) -> None:
        """Note that the vector ``index`` lies at ``place``, in a run of words of its own."""
        self.places[index] = self.runs[index] = place
        self.living[place] += 1

    def _inside(self, index: int, other: int, place: int) -> None:
        """Note that the vector ``index`` lies at ``place``, in the run of the vector ``other``."""
        self.places[index], self.runs[index] = place, self.runs[other]
        self.living[self.runs[index]] += 1

    def _free(self, index: int, op: Op) -> None:
        """Give back the words of what ``op`` used for the last time."""
        for value in set(op.inputs):
            if self.last[value] == index:
                self._drop(value)

    def _drop(self, value: int) -> None:
        run = self.runs.pop(value)
        del self.places[value]
        self.living[run] -= 1
        if not self.living[run]:
            self.e.scratch.free(run)

    def _target(self, index: int, operands: tuple[int, ...]) -> None:
        """Find a place for the result ``index``: that of an operand that is not needed any more, or
        a new one."""
        for value in operands:
            if self.last[value] == index:
                self._inside(index, value, self.places[value])
                return
        self._new(index, self.e.scratch.take(self.e.words(self.ops[index].width)))

    def _pair(self, index: int, op: Add | Multiply) -> None:
        self._target(index, (op.a, op.b))
        fields: dict[str, int] = {"other": self.places[op.b]}
        function = Function.ADD
        if isinstance(op, Multiply):
            function = Function.MULTIPLY
            fields["shift"] = -RESULT_FRAC
        self._finish(index, function, self.places[op.a], fields)

    def _activate(self, index: int, op: Activate) -> None:
        self._target(index, (op.x,))
        self._finish(index, ACTIVATIONS[op.kind].function, self.places[op.x], {})

    def _finish(self, index: int, function: Function, src: int, fields: dict[str, int]) -> None:
        """Write the last instruction of an elementwise operation, and make an activation block of
        its result where one is wanted."""
        width, target = self.ops[index].width, self.places[index]
        if not self._blocks(index):
            self.e.vector(function, width, src, target, **fields)
            return
        fields |= {"after": After.QUANTIZE, "immediate": RESULT_FRAC}
        self.e.vector(function, width, src, target, **fields)
        block = self.e.quantized(target, width)
        self._drop(index)
        self._new(index, block)

    def _attention(self, index: int, op: Attention) -> None:
        """Write an attention; its result is an activation block of the context."""
        e, layout = self.e, self.layout
        heads, cache = layout.heads[index], layout.caches[index]
        q, k, v = (self.places[value] for value in (op.q, op.k, op.v))
        if op.k not in self.stored:
            self._keys(index, op, k)
        e.label(f"{op.module}: values")
        attention.append_values(e, v, heads, cache)
        e.label(f"{op.module}: attention")
        if op.rotary is not None:
            table = self.tables[op.rotary, heads.width]
            attention.rotate(e, q, heads.queries * heads.padded, table, heads.padded)
        context = attention.attend(e, q, heads, cache)
        self._only_block(index)
        self._new(index, attention.context_block(e, context, heads))

    def _keys(self, index: int, op: Attention, place: int) -> None:
        e, heads = self.e, self.layout.heads[index]
        e.label(f"{op.module}: keys")
        if op.rotary is not None:
            table = self.tables[op.rotary, heads.width]
            attention.rotate(e, place, heads.groups * heads.padded, table, heads.padded)
        attention.append_keys(e, place, heads, self.layout.caches[index])

    def _linear(self, index: int, op: Linear) -> None:
        """Write a matrix product. Where keys are among its results they come first: they are sent
        to memory, byte by byte, while the others are computed."""
        e, layout = self.e, self.layout
        stream, block = layout.streams[op.module], self._block_at(op)
        result = e.scratch.take(e.words(stream.elements))
        self._new(index, result)
        found = self._keys_of(index)
        if found is None:
            e.linear(stream, block, result)
            return
        keys, user_index = found
        user = self.ops[user_index]
        assert isinstance(user, Attention)
        heads, rows = layout.heads[user_index], layout.config.rows
        start = layout.offsets[keys]
        first, end = start // rows, -(-(start + heads.groups * heads.padded) // rows)
        e.linear(stream, block, result, first, end)
        self._keys(user_index, user, result + start // layout.config.results_per_word)
        self.stored.add(keys)
        e.label(op.module)
        e.linear(stream, block, result, 0, first)
        e.linear(stream, block, result, end)

    def _keys_of(self, index: int) -> tuple[int, int] | None:
        """Of the vector ``index``: the part that is an attention's keys, and the index of that
        attention; None where there is none."""
        for part in self.users[index]:
            for user in self.users[part]:
                op = self.ops[user]
                if isinstance(self.ops[part], Split) and isinstance(op, Attention) and op.k == part:
                    return part, user
        return None
