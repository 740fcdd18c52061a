"""Compiler: an RF8 model to a program image for one accelerator."""

from __future__ import annotations

from collections import Counter

import numpy as np

from golden.config import RESULT_FRAC, AccelConfig, get_config
from golden.isa import After, Flag, Function, encode_program
from rf8.checkpoint.model import Model
from rf8.compiler.emitter import ACTIVATIONS, Emitter, padded_width
from rf8.compiler.graphs import graph_of
from rf8.compiler.ir import (
    Activate,
    Add,
    Attention,
    Embedding,
    Graph,
    Linear,
    Multiply,
    Norm,
    Op,
    Rotary,
    Split,
    optimize,
)
from rf8.compiler.layout import Layout, Progress
from rf8.errors import DataError
from rf8.program.image import Entry, Program


def compile(
    model: Model,
    config: AccelConfig | str = "sim",
    *,
    context: int | None = None,
    graph: Graph | None = None,
    argmax: bool = False,
    progress: Progress = lambda *_: None,
) -> Program:
    """Compile an RF8 model for the accelerator ``config``.

    ``context``: the most tokens of a sequence, for which memory and scratchpad are laid out; the
    model's own by default. ``graph``: what to lower, for instance of `rf8.compiler.trace.export_graph`;
    that of the model's architecture by default. ``argmax``: the machine finds the likeliest token
    and keeps the logits to itself.

    Raises
    ------
    DataError
        Where the model is not quantised, was quantised for a wider span than the machine has, does
        not fit it, or has an operation that cannot be lowered.
    ValueError
        Where there is no such config.
    """
    config = get_config(config) if isinstance(config, str) else config
    if model.span is None:
        raise DataError(f"{model.name} is a float model: quantise it first (`rf8 quantize`)")
    if model.span > config.span:
        raise DataError(
            f"{model.name} was quantised for span {model.span}, config {config.name!r} has span "
            f"{config.span}: quantise it again with --span {config.span}"
        )
    if context is not None and not 1 <= context <= model.spec.context:
        raise DataError(
            f"{model.name}: the context is {context}, must be 1 to {model.spec.context}"
        )
    if config.rows != config.bus_bytes:
        raise DataError(
            f"config {config.name!r}: whole models need a bus of `rows` bytes, {config.rows}; this "
            f"one has {config.bus_bytes}"
        )
    graph = optimize(graph or graph_of(model.spec, model.name))
    layout = Layout(model, graph, config, context or model.spec.context, progress)
    if argmax and config.results_per_word < 2:
        raise DataError(f"config {config.name!r}: argmax needs a bus of 8 bytes or more")
    return _program(layout, argmax)


def _program(layout: Layout, argmax: bool) -> Program:
    """Lower, once for each number of columns, and encode."""
    model, config, memory = layout.model, layout.config, layout.memory
    spec = model.spec
    entries, text = [], b""
    parts: list[list[int]] = []
    for columns in sorted({1, config.cols}):
        for head in (True, False):
            emitter = Emitter(config, columns, model.name)
            found = _Lowering(layout, emitter, head, argmax).run()
            parts += [found] if head else []
            entries.append(Entry(columns, head, memory.end + len(text), emitter.labels))
            text += encode_program(emitter.instructions, config)
    assert all(found == parts[0] for found in parts)  # one list serves all programs
    start = memory.reserve(len(text))
    if memory.end >> config.addr_bits:
        raise DataError(
            f"{model.name} needs {memory.end} bytes of memory, config {config.name!r} "
            f"addresses {1 << config.addr_bits}: use a shorter context"
        )
    eos = model.config.get("eos_token_id")
    return Program(
        config=config,
        spec=spec,
        model=model.name,
        context=layout.context,
        memory_bytes=memory.end,
        sections={"weights": layout.weights, "program": (start, np.frombuffer(text, np.uint8))},
        entries=entries,
        logits=layout.logits,
        regions=layout.regions,
        argmax=parts[0] if argmax else [],
        eos=eos if isinstance(eos, int) and 0 <= eos < spec.vocab else None,
        files=dict(model.files),
    )


class _Lowering:
    """Writes one program: walks the graph, and keeps track of which words hold what."""

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

    def run(self) -> list[int]:
        """All operations; without the head, those up to the last norm. Gives the first token of
        each part of the head."""
        e, head = self.e, self.ops[-1]
        parts: list[int] = []
        assert isinstance(head, Linear)
        for key, address in self.layout.angles.items():
            e.label("rotary positions")
            self.tables[key] = e.angles(address, padded_width(key[1], self.layout.config))
        for index, op in enumerate(self.ops[:-1]):
            if not self.with_head and index == head.x:
                break
            e.label(op.module)
            self._lower(index, op)
        if self.with_head:
            e.label(head.module)
            stream, block = self.layout.streams[head.module], self.places[head.x]
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
                self._blocks(index)
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
        """Whether a vector enters matrix products: it is then made as an activation block."""
        used = [isinstance(self.ops[user], Linear) for user in self.users[index]]
        if any(used) and len(used) > 1:
            user = self.ops[self.users[index][1]]
            raise DataError(
                f"{self.layout.model.name}: {self.ops[index].module}: its result enters a matrix "
                f"product and {user.module}, which cannot be lowered"
            )
        return any(used)

    def _new(self, index: int, place: int) -> None:
        """A vector in a run of its own."""
        self.places[index] = self.runs[index] = place
        self.living[place] += 1

    def _inside(self, index: int, other: int, place: int) -> None:
        """A vector in the run of another."""
        self.places[index], self.runs[index] = place, self.runs[other]
        self.living[self.runs[index]] += 1

    def _free(self, index: int, op: Op) -> None:
        """Give back the words of what was used for the last time."""
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
        """Where a result goes: in place of an operand that is not needed any more."""
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
        self._finish(index, ACTIVATIONS[op.kind], self.places[op.x], {})

    def _finish(self, index: int, function: Function, src: int, fields: dict[str, int]) -> None:
        """The last instruction of an elementwise operation; a block where one is wanted."""
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
        """A block of the context."""
        e, layout = self.e, self.layout
        heads, cache = layout.heads[index], layout.caches[index]
        q, k, v = (self.places[value] for value in (op.q, op.k, op.v))
        if op.k not in self.stored:
            self._keys(index, op, k)
        e.label(f"{op.module}: values")
        e.append_values(v, heads, cache)
        e.label(f"{op.module}: attention")
        if op.rotary is not None:
            table = self.tables[op.rotary, heads.width]
            e.rotate(q, heads.queries * heads.padded, table, heads.padded)
        context = e.attend(q, heads, cache)
        self._blocks(index)
        self._new(index, e.context_block(context, heads))

    def _keys(self, index: int, op: Attention, place: int) -> None:
        e, heads = self.e, self.layout.heads[index]
        e.label(f"{op.module}: keys")
        if op.rotary is not None:
            table = self.tables[op.rotary, heads.width]
            e.rotate(place, heads.groups * heads.padded, table, heads.padded)
        e.append_keys(place, heads, self.layout.caches[index])

    def _linear(self, index: int, op: Linear) -> None:
        """Where keys are among the results they come first: they are sent to memory, byte by byte,
        while the others are computed."""
        e, layout = self.e, self.layout
        stream, block = layout.streams[op.module], self.places[op.x]
        result = e.scratch.take(e.words(stream.elements))
        self._new(index, result)
        found = self._keys_of(index)
        if found is None:
            e.linear(stream, block, result)
            return
        keys, attention = found
        user = self.ops[attention]
        assert isinstance(user, Attention)
        heads, rows = layout.heads[attention], layout.config.rows
        start = layout.offsets[keys]
        first, end = start // rows, -(-(start + heads.groups * heads.padded) // rows)
        e.linear(stream, block, result, first, end)
        self._keys(attention, user, result + start // layout.config.results_per_word)
        self.stored.add(keys)
        e.label(op.module)
        e.linear(stream, block, result, 0, first)
        e.linear(stream, block, result, end)

    def _keys_of(self, index: int) -> tuple[int, int] | None:
        """The part of a vector that is the keys of an attention, and that."""
        for part in self.users[index]:
            for user in self.users[part]:
                op = self.ops[user]
                if isinstance(self.ops[part], Split) and isinstance(op, Attention) and op.k == part:
                    return part, user
        return None
