"""The emitter: writes the instructions of an operation.

A value is a vector of one token in each column's bank of the scratchpad. The definition of every
operation here is `golden.layers`; what is written is the same integers in VECTOR instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from golden.layers import Block
from rf8.compiler.scratchpad import Scratchpad
from rf8.compiler.tensors import Stream
from rf8.graph.ir import Norm
from rf8.program.image import Buffer


def scale_fields(factor: float) -> dict[str, int]:
    """Fields of a SCALE by a constant."""
    mantissa, exponent = layers.split_factor(factor)
    return {"flags": Flag.IMMEDIATE, "immediate": mantissa, "shift": exponent}


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

    def embed(self, table: Stream, limit: int, by: Flag, dst: int, drop: int = 0) -> None:
        """The row of an RF8 embedding for each column's token or position, as Q16 elements at
        ``dst``, times ``2**-drop``.

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
        lift = RESULT_FRAC - 4 - drop
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
        self,
        op: Norm,
        gamma: Block,
        places: tuple[int, int | None],
        x: int,
        y: int,
        elements: int,
        *,
        block: bool,
    ) -> None:
        """Write a LayerNorm or an RMSNorm (`golden.layers`) of the ``elements`` at ``x`` to ``y``.

        ``gamma``: the norm's weight, whose exponent goes into the instructions. ``places``:
        addresses in memory of its mantissas and of beta, or None. ``block``: the last pass leaves
        the exponent of an activation block of the result in the registers; not of several parts.
        """
        apart = self.words(elements // op.parts)
        words, weight = self.words(op.width // op.parts), self.scratch.take(apart)
        gamma_at, beta_at = places
        # Before anything else: soon the bus is busy with the weights of the next MATMUL.
        self.load(gamma_at, words, weight)
        offset = None
        if beta_at is not None:
            offset = self.scratch.take(apart)
            self.load(beta_at, words, offset)
        for first in range(0, op.parts, SEGMENTS):
            many = min(SEGMENTS, op.parts - first)
            at = first * apart
            self._norm(op, gamma, weight, offset, x + at, y + at, many, apart, block)
        self.scratch.free(weight)
        if offset is not None:
            self.scratch.free(offset)

    def _norm(
        self,
        op: Norm,
        gamma: Block,
        weight: int,
        offset: int | None,
        x: int,
        y: int,
        many: int,
        apart: int,
        block: bool,
    ) -> None:
        """The passes of ``many`` norms, ``apart`` words from one to the next."""
        count, source = op.width // op.parts, x
        several: dict[str, int] = {"segments": many, **strides(apart, 0, apart)}
        if many == 1:
            several = {}
        mantissa, exponent = layers.split_epsilon(op.epsilon)
        if op.center:
            self.vector(Function.SHIFT, count, x, after=After.MEAN, **several)
            self.vector(Function.SUBTRACT, count, x, y, after=After.ALIGN, **several)
            source = y
        else:
            self.vector(Function.SHIFT, count, x, after=After.ALIGN, **several)
        self.vector(
            Function.SHIFT, count, source, y, flags=Flag.AMOUNT, k=layers.NORM_BITS, **several
        )
        epsilon_word = mantissa | (exponent & 0xFF) << 24
        epsilon_word -= (epsilon_word >> 31) << 32
        self.vector(Function.SQUARE, count, y, after=After.ROOT, immediate=epsilon_word, **several)
        self.vector(Function.SCALE, count, y, y, flags=Flag.AMOUNT, **several)
        shift = int(gamma.exponent[0]) + RESULT_FRAC - layers.NORMAL_FRAC
        last: dict[str, int] = {}
        if block and op.parts == 1:
            last = {"after": After.QUANTIZE, "immediate": RESULT_FRAC}
        first = {} if offset is not None else last
        self.vector(Function.MULTIPLY, count, y, y, other=weight, shift=shift, **first, **several)
        if offset is not None:
            self.vector(Function.ADD, count, y, y, other=offset, **last, **several)

    def scale(self, factor: float, x: int, count: int) -> None:
        """Multiply ``count`` elements at ``x`` by a constant, in place (`golden.layers.scale`)."""
        self.vector(Function.SCALE, count, x, x, **scale_fields(factor))

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
        self,
        stream: Stream,
        block: int,
        logits: Buffer,
        vocab: int,
        argmax: bool,
        finish: Sequence[Callable[[Emitter, int, int], None]] = (),
    ) -> list[int]:
        """Write the last matrix product and send its results to memory, as many tiles at a time as
        the scratchpad has room for; with ``argmax`` only the largest result of each part, and its
        index. ``finish``: what else is done to the results, given the emitter, place and count.

        Returns the number of the first result of each part.
        """
        config = self.config
        per_tile = config.rows // config.results_per_word
        pair = self.scratch.take(1) if argmax else None
        most = max(1, self.scratch.room() // per_tile)
        if argmax or finish:
            most = min(most, (1 << 15) // config.rows)  # a VECTOR counts in 16 bits
        parts = []
        result = self.scratch.take(min(most, stream.tiles) * per_tile)
        for number, first in enumerate(range(0, stream.tiles, most)):
            tiles = min(most, stream.tiles - first)
            self.matmul(stream, block, result, first, tiles)
            parts.append(first * config.rows)
            for change in finish:
                change(self, result, tiles * config.rows)
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
