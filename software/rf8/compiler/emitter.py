"""Lowering: a model's operations to instructions, and its tensors to places in memory.

A value is a vector of one token in each column's bank of the scratchpad. The definition of every
operation here is `golden.layers`; what is written is the same integers in VECTOR instructions.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from golden import layers
from golden.config import RESULT_BITS, RESULT_FRAC, AccelConfig
from golden.isa import (
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
from golden.layers import Block
from rf8.compiler.scratchpad import Scratchpad
from rf8.compiler.tensors import Stream
from rf8.program.image import Buffer


def strides(src: int, other: int, dst: int) -> dict[str, int]:
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
