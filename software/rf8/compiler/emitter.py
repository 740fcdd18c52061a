"""The emitter: writes the instructions of an operation.

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

    A place is the address of a word of the scratchpad; a vector lies at the same place in every
    column's bank. Words are taken from and given back to ``scratch``.

    Parameters
    ----------
    config: the accelerator
    columns: tokens that the program computes side by side
    model: its name, for errors
    instructions: what has been written so far
    labels: (number of the first instruction, name) of each part, in order
    """

    config: AccelConfig
    columns: int
    model: str
    instructions: list[Instruction] = field(default_factory=list)
    labels: list[tuple[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scratch = Scratchpad(self.config.scratch_words, self.model)

    def label(self, name: str) -> None:
        """The instructions from here on belong to the part ``name``."""
        self.labels.append((len(self.instructions), name))

    def emit(self, opcode: Opcode, **fields: int) -> None:
        """Write one instruction.

        Raises
        ------
        IllegalInstruction
            Where the machine would refuse it: a mistake of the compiler.
        """
        instruction = Instruction(opcode=opcode, **fields)
        check(instruction, self.config)
        self.instructions.append(instruction)

    def words(self, elements: int) -> int:
        """How many words of the scratchpad ``elements`` int32 elements take."""
        return vector_words(elements, self.config)

    # Single instructions.

    def vector(
        self, function: Function, count: int, src: int, dst: int | None = None, **fields: int
    ) -> None:
        """Write a VECTOR instruction of ``count`` elements at ``src``, with its results at ``dst``,
        or for its registers alone where ``dst`` is None. ``fields``: others than the usual ones, of
        one segment and 32-bit words."""
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
        """Load ``words`` words from ``address`` to ``dst`` in every column's bank."""
        for column in range(self.columns):
            self.emit(Opcode.LOAD, column=column, address=address, count=words, dst=dst)

    def matmul(
        self, stream: Stream, src: int, dst: int, first: int = 0, tiles: int | None = None
    ) -> None:
        """Multiply a matrix, or ``tiles`` of its tiles from number ``first`` on, by the block at
        ``src``. A ``first`` other than 0 needs tiles of whole beats.
        """
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
        """The row of an RF8 embedding for each column's token or position, as Q16 elements at
        ``dst``.

        ``limit``: rows of the table; ``by``: `Flag.TOKEN` or `Flag.INDEX`.
        """
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
        """Make an activation block at ``dst`` of the ``count`` elements at ``src``, whose exponent
        an instruction with `After.QUANTIZE` has put into the registers."""
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
        """The same in words of its own, whose place is returned."""
        block = self.scratch.take(block_words(count, self.config))
        self.block(src, count, block)
        return block

    def norm(
        self, x: int, width: int, gamma: Block, places: tuple[int, int | None], epsilon: float
    ) -> int:
        """Write a LayerNorm or an RMSNorm (`golden.layers`) of the vector ``x``; returns the place
        of its result, an activation block.

        ``gamma``: the norm's weight, whose exponent goes into the instructions. ``places``:
        addresses in memory of its mantissas and of beta, which is None for an RMSNorm."""
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
        """Write a matrix product, or that of the tiles from ``first`` to ``end``, whose results lie
        within ``result`` where those of the whole matrix would.
        """
        end = stream.tiles if end is None else end
        words = self.config.rows // self.config.results_per_word
        if first < end:
            self.matmul(stream, block, result + first * words, first, end - first)

    def soft_cap(self, x: int, count: int, cap: float, **fields: int) -> None:
        """Write `golden.layers.soft_cap` of ``count`` elements at ``x``, in place. ``fields``: as
        of `vector`; of flags only LENGTH is of use."""
        down, up = layers.cap_factors(cap)
        by = {**fields, "flags": fields.get("flags", 0) | Flag.IMMEDIATE}
        self.vector(Function.SCALE, count, x, x, immediate=down, shift=-layers.DOWN_FRAC, **by)
        self.vector(Function.TANH, count, x, x, **fields)
        self.vector(Function.SCALE, count, x, x, immediate=up, shift=-layers.UP_FRAC, **by)

    def head(
        self, stream: Stream, block: int, logits: Buffer, vocab: int, argmax: bool
    ) -> list[int]:
        """Write the last matrix product and send its results to memory, as many tiles at a time as
        the scratchpad has room for; with ``argmax`` only the largest result of each part, and its
        index.

        Returns the number of the first result of each part.
        """
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
        """Write the end of the program."""
        self.emit(Opcode.HALT)
