"""Compiler: an RF8 model to a program image for one accelerator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from golden.config import RESULT_BITS, RESULT_FRAC, AccelConfig, get_config
from golden.isa import After, Flag, Function, Opcode, encode_program, vector_words
from golden.layers import TURN_BITS, Block, block_quantize, rotary_steps
from golden.machine import pack_tiles
from rf8.errors import DataError
from rf8.graphs import graph_of
from rf8.ir import (
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
from rf8.lower import (
    ACTIVATIONS,
    Cache,
    Emitter,
    Heads,
    Stream,
    interleaved_rows,
    padded_width,
)
from rf8.model import Model, RF8Tensor
from rf8.program import Buffer, Entry, Program, Region

PAGE = 4096
"""Streams and buffers begin on multiples of this: no burst is cut short at their start."""

NORM_FRAC = 24
"""Fraction bits of norm weights before they become a block of 16-bit mantissas."""

Progress = Callable[[str, int, int], None]


def fixed_point(model: Model, name: str, frac: int = RESULT_FRAC) -> NDArray[np.int64]:
    """A norm weight or a bias as int32 fixed point, rounded half to even.

    Raises
    ------
    DataError
        Where a value does not fit.
    """
    scaled = np.rint(model.float_tensor(name).astype(np.float64) * 2.0**frac)
    limit = float(1 << (RESULT_BITS - 1))
    largest = float(np.abs(scaled).max())
    if largest >= limit:
        raise DataError(
            f"{model.name}: {name} reaches {largest / 2**frac:g}, must stay below "
            f"{limit / 2**frac:g}"
        )
    return scaled.astype(np.int64)


def norm_weight(model: Model, name: str) -> Block:
    """The weight of a norm, as `golden.layers` takes it."""
    return block_quantize(fixed_point(model, f"{name}.weight", NORM_FRAC), 16, NORM_FRAC)


def compile(
    model: Model,
    config: AccelConfig | str = "sim",
    *,
    context: int | None = None,
    graph: Graph | None = None,
    progress: Progress = lambda *_: None,
) -> Program:
    """Compile an RF8 model for the accelerator ``config``.

    ``context``: the most tokens of a sequence, for which memory and scratchpad are laid out; the
    model's own by default. ``graph``: what to lower, for instance of `rf8.frontend.export_graph`;
    that of the model's architecture by default.

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
    return _Build(model, graph, config, context or model.spec.context, progress).program()


@dataclass
class _Memory:
    """Lays out external memory; addresses ascend."""

    end: int = PAGE
    parts: list[tuple[int, NDArray[np.uint8]]] = field(default_factory=list)

    def reserve(self, size: int) -> int:
        """Address of ``size`` bytes that begin a page and are zero at the start."""
        address, self.end = self.end, pages(self.end + size)
        return address

    def put(self, data: NDArray[np.generic]) -> int:
        """Address of a copy of ``data``."""
        flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        address = self.reserve(flat.size)
        self.parts.append((address, flat))
        return address

    def section(self) -> tuple[int, NDArray[np.uint8]]:
        """All that was put, as one piece; nothing may have been reserved between."""
        first = self.parts[0][0]
        last, data = self.parts[-1]
        whole = np.zeros(last + data.size - first, np.uint8)
        for address, part in self.parts:
            whole[address - first : address - first + part.size] = part
        self.parts.clear()
        return first, whole


class _Build:
    """One compilation."""

    def __init__(
        self, model: Model, graph: Graph, config: AccelConfig, context: int, progress: Progress
    ) -> None:
        self.model, self.graph, self.config = model, graph, config
        self.context, self.progress = context, progress
        self.memory = _Memory()
        self.users = graph.users()
        self.heads = {index: self._heads(op) for index, op in graph.attentions()}
        self.offsets: dict[int, int] = {}  # of splits, in elements of the laid-out vector
        self.streams: dict[str, Stream] = {}
        self.norms: dict[int, tuple[Block, tuple[int, int | None]]] = {}
        self.caches: dict[int, Cache] = {}
        self.angles: dict[tuple[Rotary, int], int] = {}

    def program(self) -> Program:
        """Lay out, lower, encode."""
        model, config, memory = self.model, self.config, self.memory
        spec = model.spec
        self._check_sizes()
        vocab = -(-spec.vocab // config.rows) * config.rows
        size = pages(vocab * RESULT_BITS // 8)
        logits = Buffer(memory.reserve(config.cols * size), size)
        regions = [Region("logits", logits.address, config.cols * size)]
        self._put_caches(regions)
        self._put_constants()
        weights = memory.section()

        entries, text = [], b""
        for columns in sorted({1, config.cols}):
            for head in (True, False):
                emitter = Emitter(config, columns, model.name)
                _Lowering(self, emitter, logits if head else None).run()
                entries.append(Entry(columns, head, memory.end + len(text), emitter.labels))
                text += encode_program(emitter.instructions, config)
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
            context=self.context,
            memory_bytes=memory.end,
            sections={"weights": weights, "program": (start, np.frombuffer(text, np.uint8))},
            entries=entries,
            logits=logits,
            regions=regions,
            eos=eos if isinstance(eos, int) and 0 <= eos < spec.vocab else None,
            files=dict(model.files),
        )

    def _heads(self, op: Attention) -> Heads:
        width = op.width // op.heads
        padded = padded_width(width, self.config)
        return Heads(op.heads, op.kv_heads, width, padded, self.context)

    def _check_sizes(self) -> None:
        model, config = self.model, self.config
        found = [self.graph.ops[op.x].width for op in self.graph.ops if isinstance(op, Linear)]
        found += [self.context, *(2 * heads.padded for heads in self.heads.values())]
        found += [heads.queries * heads.stride(config) for heads in self.heads.values()]
        if max(found) > config.max_k:
            raise DataError(
                f"{model.name} has dot products of {max(found)} elements, config {config.name!r} "
                f"does {config.max_k} at most: use a config with a larger max_k, or a shorter "
                "context"
            )

    # Memory.

    def _put_caches(self, regions: list[Region]) -> None:
        config = self.config
        for layer, (index, heads) in enumerate(self.heads.items()):
            cache = Cache([], [], [])
            first = self.memory.end
            for _ in range(heads.groups):
                tiles = -(-heads.context // config.rows)
                size = tiles * (1 + 2 * heads.padded) * config.rows
                cache.keys.append(self.memory.reserve(size))
                size = (1 + heads.context) * config.rows
                count = heads.tiles(config)
                cache.values.append([self.memory.reserve(size) for _ in range(count)])
                size = vector_words(heads.context, config) * config.bus_bytes
                cache.biases.append(self.memory.reserve(size))
            name = f"layer {layer}, keys and values"
            regions.append(Region(name, first, self.memory.end - first))
            self.caches[index] = cache

    def _put_constants(self) -> None:
        """Everything that programs only read: matrices, norms, angles."""
        ops = self.graph.ops
        for index, op in enumerate(ops):
            self.progress(op.module, index, len(ops))
            match op:
                case Linear():
                    self._put_linear(index, op)
                case Norm():
                    self._put_norm(index, op)
                case Attention(rotary=Rotary() as rotary):
                    key = rotary, self.heads[index].width
                    if key not in self.angles:
                        self.angles[key] = self._put_angles(*key)
        for op in ops:  # after the head's: they may be the same
            if isinstance(op, Embedding) and op.weight not in self.streams:
                self.streams[op.weight] = self._put_matrix([(op.weight, None)])

    def _put_linear(self, index: int, op: Linear) -> None:
        splits = [i for i in self.users[index] if isinstance(self.graph.ops[i], Split)]
        rows = self._split_rows(splits) if splits else None
        columns = None
        source = self.graph.ops[op.x]
        if isinstance(source, Attention):
            columns = self._context_columns(self.heads[op.x])
        parts = [(weight, bias) for weight, bias, _ in op.parts]
        self.streams[op.module] = stream = self._put_matrix(parts, rows, columns)
        if rows is None and columns is None and len(parts) == 1 and not stream.bias:
            self.streams[parts[0][0]] = stream  # an embedding may be the same matrix

    def _split_rows(self, splits: list[int]) -> NDArray[np.int64]:
        """Rows of a matrix whose results are cut into parts, each from a word's start; heads are
        padded, and pairs that turn are neighbours. Notes where the parts begin."""
        found: list[NDArray[np.int64]] = []
        first = place = 0
        for index in sorted(splits, key=lambda i: self._split(i).part):
            op = self._split(index)
            self.offsets[index] = place
            rows = self._part_rows(index, op.width)
            found.append(np.where(rows < 0, -1, rows + first))
            first, place = first + op.width, place + len(rows)
        return np.concatenate(found)

    def _split(self, index: int) -> Split:
        op = self.graph.ops[index]
        assert isinstance(op, Split)
        return op

    def _part_rows(self, index: int, width: int) -> NDArray[np.int64]:
        (user,) = self.users[index]
        op = self.graph.ops[user]
        if not isinstance(op, Attention):
            whole = vector_words(width, self.config) * self.config.results_per_word
            return np.concatenate([np.arange(width), np.full(whole - width, -1)])
        heads = self.heads[user]
        order = np.arange(heads.width)
        if index != op.v and op.rotary is not None and op.rotary.pairing == "halves":
            order = interleaved_rows(heads.width)
        rows = np.full((width // heads.width, heads.padded), -1)
        rows[:, : heads.width] = np.arange(len(rows))[:, None] * heads.width + order
        return rows.reshape(-1)

    def _context_columns(self, heads: Heads) -> NDArray[np.int64] | None:
        """Columns of the matrix that follows attention, where heads are padded to words."""
        stride, width = heads.stride(self.config), heads.width
        if stride == width:
            return None
        columns = np.full((heads.queries, stride), -1)
        columns[:, :width] = np.arange(heads.queries * width).reshape(-1, width)
        return columns.reshape(-1)

    def _put_matrix(
        self,
        parts: list[tuple[str, str | None]],
        rows: NDArray[np.int64] | None = None,
        columns: NDArray[np.int64] | None = None,
    ) -> Stream:
        """A stream of matrices and biases on top of each other.

        ``rows``, ``columns``: which row or column comes where, -1 for one of zeros.
        """
        model, config = self.model, self.config
        tensors = [model.tensors[weight] for weight, _ in parts]
        matrices = [tensor for tensor in tensors if isinstance(tensor, RF8Tensor)]
        assert len(matrices) == len(tensors)
        codes = np.concatenate([matrix.codes for matrix in matrices])
        exponents = np.concatenate([matrix.bias for matrix in matrices])
        bias: NDArray[np.int64] | None = None
        if any(name is not None for _, name in parts):
            pieces = []
            for (_, name), matrix in zip(parts, matrices, strict=True):
                none = np.zeros(len(matrix.codes), np.int64)
                pieces.append(none if name is None else fixed_point(model, name))
            bias = np.concatenate(pieces)
        if rows is not None:
            empty = rows < 0
            codes, exponents = codes[rows], exponents[rows]
            codes[empty], exponents[empty] = 0, 0
            bias = None if bias is None else np.where(empty, 0, bias[rows])
        if columns is not None:
            codes = codes[:, columns]
            codes[:, columns < 0] = 0
        address = self.memory.put(pack_tiles(codes, exponents, bias, config))
        tiles = -(-len(codes) // config.rows)
        return Stream(address, codes.shape[1], tiles, bias is not None, tiles * config.rows)

    def _put_norm(self, index: int, op: Norm) -> None:
        gamma = norm_weight(self.model, op.weight.removesuffix(".weight"))
        beta = None if op.bias is None else self._put_elements(fixed_point(self.model, op.bias))
        self.norms[index] = gamma, (self._put_elements(gamma.mantissa), beta)

    def _put_elements(self, values: NDArray[np.int64]) -> int:
        words = vector_words(len(values), self.config)
        elements = np.zeros(words * self.config.results_per_word, "<i4")
        elements[: len(values)] = values
        return self.memory.put(elements)

    def _put_angles(self, rotary: Rotary, width: int) -> int:
        """Steps and offsets of `Emitter.angles`: cosines, then sines, the first of a pair's
        negative."""
        padded = padded_width(width, self.config)
        steps = np.zeros(padded, np.int64)
        steps[:width] = np.repeat(rotary_steps(width, rotary.theta), 2)
        quarter, half = 1 << (TURN_BITS - 2), 1 << (TURN_BITS - 1)
        sines = np.where(np.arange(padded) % 2 == 0, half, 0)
        offsets = np.concatenate([np.full(padded, quarter), sines])
        return self.memory.put(np.concatenate([steps, steps, offsets]).astype(np.uint32))


class _Lowering:
    """Writes one program: walks the graph, and keeps track of which words hold what."""

    def __init__(self, build: _Build, emitter: Emitter, logits: Buffer | None) -> None:
        self.build, self.e, self.logits = build, emitter, logits
        self.ops, self.users = build.graph.ops, build.users
        self.places: dict[int, int] = {}
        self.tables: dict[tuple[Rotary, int], int] = {}
        self.last = [max(used, default=len(self.ops)) for used in self.users]
        # A run of words is free when all vectors are done for that lie in it.
        self.runs: dict[int, int] = {}
        self.living: Counter[int] = Counter()

    def run(self) -> None:
        """All operations; without logits, those up to the last norm."""
        e, head = self.e, self.ops[-1]
        assert isinstance(head, Linear)
        for key, address in self.build.angles.items():
            e.label("rotary positions")
            self.tables[key] = e.angles(address, padded_width(key[1], self.build.config))
        for index, op in enumerate(self.ops[:-1]):
            if self.logits is None and index == head.x:
                break
            e.label(op.module)
            self._lower(index, op)
        if self.logits is not None:
            e.label(head.module)
            e.head(self.build.streams[head.module], self.places[head.x], self.logits)
        e.halt()

    def _lower(self, index: int, op: Op) -> None:
        e, build = self.e, self.build
        match op:
            case Embedding():
                self._new(index, e.scratch.take(e.words(op.width)))
                limit = build.model.spec.vocab if op.by == "token" else build.context
                by = Flag.TOKEN if op.by == "token" else Flag.INDEX
                e.embed(build.streams[op.weight], limit, by, self.places[index])
            case Norm():
                gamma, places = build.norms[index]
                self._blocks(index)
                self._new(index, e.norm(self.places[op.x], op.width, gamma, places, op.epsilon))
            case Linear():
                self._new(index, e.linear(build.streams[op.module], self.places[op.x]))
            case Split():
                offset = build.offsets[index] // build.config.results_per_word
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
                f"{self.build.model.name}: {self.ops[index].module}: its result enters a matrix "
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
        e, build = self.e, self.build
        heads, cache = build.heads[index], build.caches[index]
        q, k, v = (self.places[value] for value in (op.q, op.k, op.v))
        e.label(f"{op.module}: keys and values")
        if op.rotary is not None:
            table = self.tables[op.rotary, heads.width]
            e.rotate(q, heads.queries * heads.padded, table, heads.padded)
            e.rotate(k, heads.groups * heads.padded, table, heads.padded)
        e.append_keys(k, heads, cache)
        e.append_values(v, heads, cache)
        e.emit(Opcode.FENCE)
        e.label(f"{op.module}: attention")
        context = e.attend(q, heads, cache)
        self._blocks(index)
        self._new(index, e.context_block(context, heads))


def pages(size: int) -> int:
    """``size`` in bytes, rounded up to whole pages."""
    return -(-size // PAGE) * PAGE
