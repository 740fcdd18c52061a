"""Lowering: from the operations of a graph to instructions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from golden.config import RESULT_FRAC
from golden.isa import After, Flag, Function
from golden.layers import ACTIVATIONS
from rf8.compiler import attention
from rf8.compiler.emitter import Emitter, scale_fields
from rf8.compiler.layout import Layout
from rf8.compiler.tensors import padded_width
from rf8.errors import DataError
from rf8.graph.ir import (
    Activate,
    Add,
    Attention,
    Cap,
    Embedding,
    Linear,
    Multiply,
    Norm,
    Op,
    Rotary,
    Scale,
    Take,
)

Elementwise = Callable[[Emitter, int, int], None]
"""Changes ``count`` elements at a place: of emitter, place and count."""


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
        # Activation blocks of vectors, for matrix products.
        self.blocks: dict[int, int] = {}

    def run(self) -> list[int]:
        """Write all operations; without the head, those that it takes.

        Returns the first token of each part of the head.
        """
        e, at = self.e, self.layout.graph.head
        parts: list[int] = []
        head = self.ops[at]
        assert isinstance(head, Linear)
        for key, address in self.layout.angles.items():
            e.label("rotary positions")
            self.tables[key] = attention.angles(
                e, address, padded_width(key[1], self.layout.config)
            )
        for index, op in enumerate(self.ops[:at]):
            if not self.with_head and index == head.x:
                break
            e.label(op.module)
            self._lower(index, op)
        if self.with_head:
            e.label(head.module)
            stream, block = self.layout.streams[head.module], self._block_at(head)
            finish = [self._logits(op) for op in self.ops[at + 1 :]]
            parts = e.head(stream, block, self.layout.logits, head.width, self.argmax, finish)
        e.halt()
        return parts

    def _refuse(self, op: Op, what: str) -> DataError:
        return DataError(f"{self.layout.model.name}: {op.module}: {what}, which cannot be lowered")

    def _logits(self, op: Op) -> Elementwise:
        """What comes after the head, for a part of the logits."""
        match op:
            case Scale(factor=factor):
                return lambda e, x, count: e.scale(factor, x, count)
            case Cap(cap=cap):
                return lambda e, x, count: e.soft_cap(x, count, cap)
        raise self._refuse(op, f"{type(op).__name__} of logits")

    def _lower(self, index: int, op: Op) -> None:
        e, layout = self.e, self.layout
        match op:
            case Embedding():
                self._new(index, e.scratch.take(e.words(op.width)))
                limit = op.rows if op.by == "token" else layout.context
                by = Flag.TOKEN if op.by == "token" else Flag.INDEX
                e.embed(layout.streams[op.weight], limit, by, self.places[index], op.drop)
                self._with_block(index)
            case Norm():
                self._norm(index, op)
            case Linear():
                self._linear(index, op)
                self._with_block(index)
            case Take():
                self._take(index, op)
                self._with_block(index)
            case Add() | Multiply():
                self._pair(index, op)
            case Activate() | Scale() | Cap():
                self._unary(index, op)
            case Attention():
                self._attention(index, op)
        self._free(index, op)

    def _elements(self, index: int) -> int:
        """Elements of the vector ``index`` as it lies, gaps included."""
        order = self.layout.orders.get(index)
        return self.ops[index].width if order is None else len(order)

    def _enters(self, index: int) -> tuple[bool, bool]:
        """Whether the vector ``index`` enters matrix products, and something else."""
        used = [isinstance(self.ops[user], Linear) for user in self.users[index]]
        return any(used), not all(used)

    def _with_block(self, index: int) -> None:
        """Make an activation block of the vector ``index`` where a matrix product takes it."""
        if self._enters(index)[0]:
            count = self._elements(index)
            quantize: dict[str, int] = {"after": After.QUANTIZE, "immediate": RESULT_FRAC}
            self.e.vector(Function.SHIFT, count, self.places[index], **quantize)
            self._to_block(index)

    def _to_block(self, index: int) -> None:
        """The same where the exponent of the block is in the registers already. The vector itself
        goes where nothing else takes it."""
        self.blocks[index] = self.e.quantized(self.places[index], self._elements(index))
        if not self._enters(index)[1]:
            self._drop_words(index)

    def _block_at(self, op: Linear) -> int:
        """The place of the activation block that a matrix product takes."""
        return self.blocks[op.x]

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
        if value in self.blocks:
            self.e.scratch.free(self.blocks.pop(value))
        if value in self.places:
            self._drop_words(value)

    def _drop_words(self, value: int) -> None:
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
        self._new(index, self.e.scratch.take(self.e.words(self._elements(index))))

    def _pair(self, index: int, op: Add | Multiply) -> None:
        self._target(index, (op.a, op.b))
        fields: dict[str, int] = {"other": self.places[op.b]}
        function = Function.ADD
        if isinstance(op, Multiply):
            function = Function.MULTIPLY
            fields["shift"] = -RESULT_FRAC
        self._finish(index, function, self.places[op.a], fields)

    def _unary(self, index: int, op: Activate | Scale | Cap) -> None:
        self._target(index, (op.x,))
        src = self.places[op.x]
        if isinstance(op, Activate):
            self._finish(index, ACTIVATIONS[op.kind].function, src, {})
        elif isinstance(op, Scale):
            self._finish(index, Function.SCALE, src, scale_fields(op.factor))
        else:
            count, target = self._elements(index), self.places[index]
            if src != target:
                self.e.vector(Function.SHIFT, count, src, target)
            self.e.soft_cap(target, count, op.cap)
            self._with_block(index)

    def _finish(self, index: int, function: Function, src: int, fields: dict[str, int]) -> None:
        """Write the last instruction of an elementwise operation, and make an activation block of
        its result where one is wanted."""
        count, target = self._elements(index), self.places[index]
        if not self._enters(index)[0]:
            self.e.vector(function, count, src, target, **fields)
            return
        if "immediate" in fields:  # which the block's exponent needs, too
            self.e.vector(function, count, src, target, **fields)
            self._with_block(index)
            return
        fields |= {"after": After.QUANTIZE, "immediate": RESULT_FRAC}
        self.e.vector(function, count, src, target, **fields)
        self._to_block(index)

    def _norm(self, index: int, op: Norm) -> None:
        """Write a norm; of parts, one for each segment of the vector unit."""
        e, layout = self.e, self.layout
        elements = self._elements(index)
        if elements != op.width and op.parts == 1:
            raise self._refuse(op, "a norm over heads that are filled up with zeros")
        if (elements // op.parts) % layout.config.results_per_word and op.parts > 1:
            raise self._refuse(op, "a norm of parts that are no whole words")
        gamma, places = layout.norms[index]
        wanted, _ = self._enters(index)
        self._new(index, e.scratch.take(e.words(elements)))
        e.norm(op, gamma, places, self.places[op.x], self.places[index], elements, block=wanted)
        if wanted and op.parts == 1:
            self._to_block(index)
        elif wanted:
            self._with_block(index)

    def _take(self, index: int, op: Take) -> None:
        """Part of a vector: where its matrix has put it, or else where it is."""
        offset = self.layout.offsets.get(index)
        if offset is None:
            offset = op.starts[0]
            whole = offset % self.layout.config.results_per_word == 0
            # It may be changed in place: nothing else may take these words.
            if op.starts[1:] or not whole or index in self.layout.orders or self._shared(op.x):
                raise self._refuse(op, "part of a vector that does not lie in words of its own")
        place = self.places[op.x] + offset // self.layout.config.results_per_word
        self._inside(index, op.x, place)

    def _shared(self, value: int) -> bool:
        """Whether a vector has users that are no parts of it, or parts that overlap."""
        parts = [self.ops[user] for user in self.users[value]]
        if not all(isinstance(part, Take) for part in parts):
            return True
        taken = [
            s + n for p in parts if isinstance(p, Take) for s in p.starts for n in range(p.length)
        ]
        return len(set(taken)) < len(taken)

    def _attention(self, index: int, op: Attention) -> None:
        """Write an attention; its result is an activation block of the context."""
        e, layout = self.e, self.layout
        if any(self.users[value] != [index] for value in (op.q, op.k, op.v)):
            raise self._refuse(op, "attention of vectors that something else takes, too")
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
        self._new(
            index,
            attention.attend(e, q, heads, cache, window=op.window, soft_cap=op.cap, scale=op.scale),
        )
        self._with_block(index)

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
                if part in self.layout.offsets and isinstance(op, Attention) and op.k == part:
                    return part, user
        return None
