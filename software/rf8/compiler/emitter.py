"""Lowering: a model's operations to instructions, and its tensors to places in memory.

A value is a vector of one token in each column's bank of the scratchpad. The definition of every
operation here is `golden.layers`; what is written is the same integers in VECTOR instructions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from golden import layers
from golden.config import RESULT_BITS, RESULT_FRAC, AccelConfig
from golden.isa import (
    SEGMENTS,
    After,
    Flag,
    Function,
    Instruction,
    Opcode,
    Output,
    block_words,
    check,
    exact_log2,
    vector_words,
)
from golden.layers import QUERY_FRAC, SCALE_BITS, Block
from rf8.compiler.scratchpad import Scratchpad
from rf8.compiler.tensors import Cache, Heads, Stream
from rf8.program.image import Buffer


def _strides(src: int, other: int, dst: int) -> dict[str, int]:
    """Words from one segment to the next."""
    return {"src_stride": src, "other_stride": other, "dst_stride": dst}


@dataclass
class Emitter:
    """Writes the instructions of one program, for ``columns`` tokens at once.

    ``labels``: (number of the first instruction, name) of each part, in order.
    """

    config: AccelConfig
    columns: int
    model: str
    instructions: list[Instruction] = field(default_factory=list)
    labels: list[tuple[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scratch = Scratchpad(self.config.scratch_words, self.model)

    def label(self, name: str) -> None:
        """What follows belongs to ``name``."""
        self.labels.append((len(self.instructions), name))

    def emit(self, opcode: Opcode, **fields: int) -> None:
        """One instruction, checked."""
        instruction = Instruction(opcode=opcode, **fields)
        check(instruction, self.config)
        self.instructions.append(instruction)

    def words(self, elements: int) -> int:
        """Scratchpad words of int32 elements."""
        return vector_words(elements, self.config)

    # Single instructions.

    def vector(
        self, function: Function, count: int, src: int, dst: int | None = None, **fields: int
    ) -> None:
        """A VECTOR instruction; without ``dst`` it writes nothing."""
        given = {"k": RESULT_BITS, "segments": 1, "output": Output.WORDS, **fields}
        if dst is None:
            given["output"] = Output.NONE
        self.emit(
            Opcode.VECTOR,
            function=function,
            column=self.columns,
            count=count,
            src=src,
            dst=dst or 0,
            **given,
        )

    def load(self, address: int, words: int, dst: int) -> None:
        """The same words to every column's bank."""
        for column in range(self.columns):
            self.emit(Opcode.LOAD, column=column, address=address, count=words, dst=dst)

    def matmul(
        self, stream: Stream, src: int, dst: int, first: int = 0, tiles: int | None = None
    ) -> None:
        """Tiles from ``first`` on of a matrix times the block at ``src``; the matrix has no bias
        planes or whole beats in a tile."""
        config = self.config
        tiles = stream.tiles if tiles is None else tiles
        slices = (5 if stream.bias else 1) + stream.inputs
        self.emit(
            Opcode.MATMUL,
            flags=Flag.BIAS if stream.bias else 0,
            column=self.columns,
            shift=config.result_shift,
            address=stream.address + first * slices * config.rows,
            count=tiles,
            k=stream.inputs,
            src=src,
            dst=dst,
        )

    # Operations.

    def embed(self, table: Stream, limit: int, by: Flag, dst: int) -> None:
        """Row `token` or `position` of an RF8 embedding, as Q16."""
        width, config = table.inputs, self.config
        row = self.scratch.take(1 + self.words(width))
        for column in range(self.columns):
            self.emit(
                Opcode.LOAD,
                flags=by,
                column=column,
                shift=exact_log2(config.bus_bytes),
                address=table.address,
                count=1 + width,
                k=1 + width,
                dst=row,
                immediate=limit,
            )
        # A code's integer is in units of 2**-4 of its row's bias.
        lift = RESULT_FRAC - 4
        self.vector(Function.SHIFT, 1, row, after=After.AMOUNT, immediate=lift)
        self.vector(Function.SHIFT, width, row + 1, dst, flags=Flag.AMOUNT)
        self.scratch.free(row)

    def block(self, src: int, count: int, dst: int) -> None:
        """An activation block of values whose QUANTIZE has been done."""
        self.vector(
            Function.SHIFT,
            count,
            src,
            dst,
            output=Output.BLOCK,
            flags=Flag.AMOUNT,
            k=self.config.act_bits,
        )

    def quantized(self, src: int, count: int) -> int:
        """A new block of the values at ``src``, whose QUANTIZE has been done."""
        block = self.scratch.take(block_words(count, self.config))
        self.block(src, count, block)
        return block

    def norm(
        self, x: int, width: int, gamma: Block, places: tuple[int, int | None], epsilon: float
    ) -> int:
        """LayerNorm where ``places``, of gamma and beta in memory, has both; else RMSNorm. Gives a
        block."""
        words, mantissa_exponent = self.words(width), layers.split_epsilon(epsilon)
        gamma_at, beta_at = places
        y, weight = self.scratch.take(words), self.scratch.take(words)
        # Before anything else: soon the bus is busy with the weights of the next MATMUL.
        self.load(gamma_at, words, weight)
        source = offset = x
        if beta_at is not None:
            offset = self.scratch.take(words)
            self.load(beta_at, words, offset)
        if beta_at is not None:
            self.vector(Function.SHIFT, width, x, after=After.MEAN)
            self.vector(Function.SUBTRACT, width, x, y, after=After.ALIGN)
            source = y
        else:
            self.vector(Function.SHIFT, width, x, after=After.ALIGN)
        self.vector(Function.SHIFT, width, source, y, flags=Flag.AMOUNT, k=layers.NORM_BITS)
        epsilon_word = mantissa_exponent[0] | (mantissa_exponent[1] & 0xFF) << 24
        epsilon_word -= (epsilon_word >> 31) << 32
        self.vector(Function.SQUARE, width, y, after=After.ROOT, immediate=epsilon_word)
        self.vector(Function.SCALE, width, y, y, flags=Flag.AMOUNT)
        shift = int(gamma.exponent[0]) + RESULT_FRAC - layers.NORMAL_FRAC
        quantize: dict[str, int] = {"after": After.QUANTIZE, "immediate": RESULT_FRAC}
        last = quantize if beta_at is None else {}
        self.vector(Function.MULTIPLY, width, y, y, other=weight, shift=shift, **last)
        if beta_at is not None:
            self.vector(Function.ADD, width, y, y, other=offset, **quantize)
            self.scratch.free(offset)
        block = self.quantized(y, width)
        self.scratch.free(y, weight)
        return block

    def linear(
        self, stream: Stream, block: int, result: int, first: int = 0, end: int | None = None
    ) -> None:
        """Results of a matrix, or of its tiles from ``first`` to ``end``, in their place among
        ``result``."""
        end = stream.tiles if end is None else end
        words = self.config.rows // self.config.results_per_word
        if first < end:
            self.matmul(stream, block, result + first * words, first, end - first)

    # Attention.

    def angles(self, steps_at: int, width: int) -> int:
        """Cosines and signed sines of this position, for `rotate`; ``steps_at``: steps, then
        offsets, of both, in memory."""
        count = 2 * self.words(width) * self.config.results_per_word
        words = self.words(count)
        table, offsets = self.scratch.take(words), self.scratch.take(words)
        self.load(steps_at, words, table)
        self.load(steps_at + words * self.config.bus_bytes, words, offsets)
        self.vector(Function.ANGLE, count, table, table, other=offsets)
        self.vector(Function.SINE, count, table, table)
        self.scratch.free(offsets)
        return table

    def rotate(self, x: int, count: int, table: int, width: int) -> None:
        """Rotary positions in place: pairs are neighbours, heads follow each other."""
        self.vector(
            Function.ROTATE,
            count,
            x,
            x,
            other=table,
            k=1,
            immediate=self.words(width),
            shift=-layers.SINE_FRAC,
        )

    def _runs(self, heads: int) -> Sequence[range]:
        """Heads in runs that have registers."""
        return [range(h, min(h + SEGMENTS, heads)) for h in range(0, heads, SEGMENTS)]

    def queries(self, q: int, heads: Heads) -> int:
        """Blocks of all heads' queries, each twice, for both codes of a key.

        Between its passes stands the FENCE after which keys and values are read: STOREs have time
        to end before it, and weights to come after it.
        """
        padded, words = heads.padded, self.words(heads.padded)
        each = block_words(2 * padded, self.config)
        blocks = self.scratch.take(heads.queries * each)
        factor = layers.query_factor(heads.width)
        for run in self._runs(heads.queries):
            src, dst, many = q + run.start * words, blocks + run.start * each, len(run)
            self.vector(
                Function.SCALE,
                padded,
                src,
                src,
                flags=Flag.IMMEDIATE,
                immediate=factor,
                shift=QUERY_FRAC - RESULT_FRAC - SCALE_BITS,
                segments=many,
                **_strides(words, 0, words),
            )
            # A pass of its own: `immediate` is taken.
            self.vector(
                Function.SHIFT,
                padded,
                src,
                after=After.QUANTIZE,
                immediate=QUERY_FRAC,
                segments=many,
                **_strides(words, 0, 0),
            )
            if run.start == 0:
                self.emit(Opcode.FENCE)
            second = dst + block_words(padded, self.config)
            for output, place in ((Output.BLOCK, dst), (Output.MANTISSAS, second)):
                self.vector(
                    Function.SHIFT,
                    padded,
                    src,
                    place,
                    output=output,
                    flags=Flag.AMOUNT,
                    k=self.config.act_bits,
                    segments=many,
                    **_strides(words, 0, each),
                )
        return blocks

    def _to_codes(self, x: int, many: int, heads: Heads) -> None:
        """Fixed point for codes, in place; leaves the biases in the registers."""
        words = self.words(heads.padded)
        strides = _strides(words, 0, words)
        self.vector(Function.SHIFT, heads.padded, x, after=After.CODE, segments=many, **strides)
        self.vector(Function.SHIFT, heads.padded, x, x, flags=Flag.AMOUNT, segments=many, **strides)

    def append_keys(self, k: int, heads: Heads, cache: Cache) -> None:
        """Encode the keys of all heads and store them at their position."""
        config, words = self.config, self.words(heads.padded)
        slices = 1 + 2 * heads.padded
        each = 1 + 2 * words
        for run in self._runs(heads.groups):
            src, many = k + run.start * words, len(run)
            rows = self.scratch.take(many * each)
            self._to_codes(src, many, heads)
            common: dict[str, int] = {"segments": many}
            self.vector(
                Function.CODE, heads.padded, src, rows, output=Output.ROW,
                **_strides(words, 0, each), **common,
            )  # fmt: skip
            self.vector(
                Function.RESIDUE, heads.padded, src, src, **_strides(words, 0, words), **common
            )
            self.vector(
                Function.CODE, heads.padded, src, rows + 1 + words,
                **_strides(words, 0, each), **common,
            )  # fmt: skip
            for number, group in enumerate(run):
                self.store_indexed(
                    cache.keys[group],
                    slices,
                    rows + number * each,
                    exact_log2(config.bus_bytes),
                    slices,
                    heads,
                )
            self.scratch.free(rows)

    def append_values(self, v: int, heads: Heads, cache: Cache) -> None:
        """Encode the values of all heads and store them at their position."""
        config, words = self.config, self.words(heads.padded)
        each = 1 + -(-heads.padded // config.bus_bytes)
        for run in self._runs(heads.groups):
            src, many = v + run.start * words, len(run)
            rows = self.scratch.take(many * each)
            self._to_codes(src, many, heads)
            self.vector(
                Function.CODE,
                heads.padded,
                src,
                rows,
                output=Output.CODES,
                segments=many,
                **_strides(words, 0, each),
            )
            for number, group in enumerate(run):
                row = rows + number * each
                for tile, address in enumerate(cache.values[group]):
                    # Past the slice of exponents, which are zero.
                    first = address + config.bus_bytes
                    self.store_indexed(first, 1, row + 1 + tile, 0, 1, heads)
                lanes = exact_log2(config.results_per_word)
                self.store_indexed(cache.biases[group], 1, row, lanes, 1, heads)
            self.scratch.free(rows)

    def store_indexed(
        self, address: int, count: int, src: int, shift: int, stride: int, heads: Heads
    ) -> None:
        """From each column to its position's place."""
        for column in range(self.columns):
            self.emit(
                Opcode.STORE,
                flags=Flag.INDEX,
                column=column,
                shift=shift,
                address=address,
                count=count,
                k=stride,
                src=src,
                immediate=heads.context,
            )

    def attend(self, q: int, heads: Heads, cache: Cache) -> int:
        """The context vectors of all heads, one after the other.

        Heads are taken in groups as large as the scratchpad has room for.
        """
        config, context = self.config, heads.context
        blocks = self.queries(q, heads)
        each = block_words(2 * heads.padded, config)
        stride = self.words(heads.stride(config))
        result = self.scratch.take(heads.queries * stride)

        tiles = -(-context // config.rows)
        scores = self.words(tiles * config.rows)
        share = block_words(context, config)
        raw = self.words(heads.tiles(config) * config.rows)
        a_head = scores + self.words(context) + share + raw
        most = min(SEGMENTS, heads.queries, max(1, self.scratch.room() // a_head))
        for first in range(0, heads.queries, most):
            run = range(first, min(first + most, heads.queries))
            self._attend(run, blocks, each, result, stride, heads, cache)
        self.scratch.free(blocks)
        return result

    def context_block(self, context: int, heads: Heads) -> int:
        """An activation block of what `attend` gave, which it frees."""
        count = heads.queries * heads.stride(self.config)
        self.vector(Function.SHIFT, count, context, after=After.QUANTIZE, immediate=RESULT_FRAC)
        block = self.quantized(context, count)
        self.scratch.free(context)
        return block

    def _attend(
        self,
        run: range,
        blocks: int,
        each: int,
        result: int,
        stride: int,
        heads: Heads,
        cache: Cache,
    ) -> None:
        config, context, many = self.config, heads.context, len(run)
        tiles = -(-context // config.rows)
        score_words, bias_words = self.words(tiles * config.rows), self.words(context)
        share_words = block_words(context, config)
        per_tile = config.rows // config.results_per_word
        channel_tiles = heads.tiles(config)
        scores = self.scratch.take(many * score_words)
        biases = self.scratch.take(many * bias_words)
        shares = self.scratch.take(many * share_words)
        raw = self.scratch.take(many * channel_tiles * per_tile)
        shared = heads.queries // heads.groups

        for number, head in enumerate(run):
            self.emit(
                Opcode.MATMUL,
                flags=Flag.LENGTH,
                column=self.columns,
                shift=config.result_shift,
                address=cache.keys[head // shared],
                count=tiles,
                k=2 * heads.padded,
                src=blocks + head * each,
                dst=scores + number * score_words,
            )
        for number, head in enumerate(run):
            for column in range(self.columns):
                self.emit(
                    Opcode.LOAD,
                    flags=Flag.LENGTH,
                    column=column,
                    address=cache.biases[head // shared],
                    count=bias_words,
                    dst=biases + number * bias_words,
                )
        length: dict[str, int] = {"flags": Flag.LENGTH, "segments": many}
        strides = _strides(score_words, bias_words, score_words)
        self.vector(Function.SHIFT, context, scores, **strides, **length)
        self.vector(
            Function.EXP2, context, scores, scores,
            after=After.RECIPROCAL, **strides, **length,
        )  # fmt: skip
        self.vector(
            Function.LENGTHS, context, scores,
            other=biases, after=After.LIFT, **strides, **length,
        )  # fmt: skip
        self.vector(
            Function.SHIFT_EACH,
            context,
            scores,
            shares,
            other=biases,
            output=Output.BLOCK,
            k=config.act_bits,
            flags=Flag.LENGTH | Flag.AMOUNT,
            segments=many,
            **_strides(score_words, bias_words, share_words),
        )
        for number, head in enumerate(run):
            for tile, address in enumerate(cache.values[head // shared]):
                self.emit(
                    Opcode.MATMUL,
                    flags=Flag.LENGTH_K,
                    column=self.columns,
                    shift=config.result_shift,
                    address=address,
                    count=1,
                    k=context,
                    src=shares + number * share_words,
                    dst=raw + (number * channel_tiles + tile) * per_tile,
                )
        self.vector(
            Function.SCALE,
            heads.width,
            raw,
            result + run.start * stride,
            shift=-layers.INVERSE_FRAC,
            segments=many,
            **_strides(channel_tiles * per_tile, 0, stride),
        )
        self.scratch.free(scores, biases, shares, raw)

    def head(
        self, stream: Stream, block: int, logits: Buffer, vocab: int, argmax: bool
    ) -> list[int]:
        """Results of a matrix to memory, as many tiles at a time as the scratchpad has room for; or
        with ``argmax`` the largest of each part and its place. Gives each part's first result."""
        config = self.config
        per_tile = config.rows // config.results_per_word
        pair = self.scratch.take(1) if argmax else None
        most = max(1, self.scratch.room() // per_tile)
        if argmax:
            most = min(most, (1 << 15) // config.rows)  # a VECTOR counts in 16 bits
        parts = []
        result = self.scratch.take(min(most, stream.tiles) * per_tile)
        for number, first in enumerate(range(0, stream.tiles, most)):
            tiles = min(most, stream.tiles - first)
            self.matmul(stream, block, result, first, tiles)
            parts.append(first * config.rows)
            if pair is not None:
                count = min(tiles * config.rows, vocab - first * config.rows)
                self.vector(Function.SHIFT, count, result, pair, output=Output.TOP)
                for column in range(self.columns):
                    place = logits.address + column * logits.stride + number * config.bus_bytes
                    self.emit(Opcode.STORE, column=column, address=place, count=1, src=pair)
                continue
            for column in range(self.columns):
                place = logits.address + column * logits.stride
                self.emit(
                    Opcode.STORE,
                    column=column,
                    address=place + first * per_tile * config.bus_bytes,
                    count=tiles * per_tile,
                    src=result,
                )
        self.scratch.free(result)
        return parts

    def halt(self) -> None:
        """The program's end."""
        self.emit(Opcode.HALT)
