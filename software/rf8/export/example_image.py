"""A small program with its data and results: what the testbench and the board top run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from golden.config import RESULT_BITS, AccelConfig
from golden.format import in_span
from golden.interface import RunResult
from golden.isa import ErrorCode, Flag, Instruction, Opcode, block_words, check, encode_program
from golden.machine import run
from golden.stream import pack_tiles

SEED = 8
LENGTHS = (61, 29, 13, 7, 5, 3, 2, 1)
"""Dot products of these lengths are no multiple of anything in the machine."""
TILES = (3, 2)
"""Tiles of the product with layer bias, and of the one without."""


@dataclass(frozen=True)
class Image:
    """Memory before and after the program at ``program``, which ends with HALT.

    ``memory``: bytes before; ``expected``: what the program leaves at address 0, which is all that
    it writes. ``result`` has the golden machine's counts. The program at ``bad_program`` stops at
    ``bad_address`` with ``bad_code``.
    """

    config: AccelConfig
    memory: bytes
    expected: bytes
    program: int
    result: RunResult
    bad_program: int
    bad_address: int
    bad_code: ErrorCode

    @property
    def words(self) -> int:
        """Bus words of the memory."""
        return len(self.memory) // self.config.bus_bytes

    @property
    def result_words(self) -> int:
        """Bus words of the results."""
        return len(self.expected) // self.config.bus_bytes

    def hex(self, data: bytes) -> str:
        """``data`` for $readmemh: a bus word a line."""
        size = self.config.bus_bytes
        words = (data[at : at + size][::-1] for at in range(0, len(data), size))
        return "".join(f"{word.hex()}\n" for word in words)


def make_image(config: AccelConfig) -> Image:
    """The image for a machine; the same each time.

    A product with layer bias for all columns, a fence, then a product without for one column: dot
    products of odd lengths, several tiles, rows that saturate. Memory has the results first, then
    activations and weights, then the programs.

    Raises
    ------
    IllegalInstruction
        Where the machine does not address that much memory.
    """
    random = np.random.default_rng(SEED)
    per_tile = config.rows // config.results_per_word
    room = (config.scratch_words - TILES[0] * per_tile - 1) * config.acts_per_word
    fitting = [k for k in LENGTHS if k <= min(config.max_k, room)]
    products = (
        (fitting[0], TILES[0], config.cols, True),
        (fitting[min(1, len(fitting) - 1)], TILES[1], 1, False),
    )
    results = sum(tiles * per_tile * cols for _, tiles, cols, _ in products) * config.bus_bytes
    data = bytearray(results)
    text: list[Instruction] = []
    target = 0
    for k, tiles, cols, with_bias in products:
        text += _product(random, data, target, k, tiles, cols, with_bias, config)
        text.append(Instruction(opcode=Opcode.FENCE))
        target += tiles * per_tile * cols * config.bus_bytes
    text.append(Instruction(opcode=Opcode.HALT))
    for instruction in text:
        check(instruction, config)
    data += bytes(-len(data) % config.slot_bytes)
    program = len(data)
    data += encode_program(text, config)
    bad_program = len(data)
    # Zeros are no instruction.
    data += encode_program(text[:1], config) + bytes(config.slot_bytes)

    memory = np.frombuffer(bytes(data), np.uint8).copy()
    result = run(memory, program, config)
    stop = run(memory.copy(), bad_program, config)
    assert result.error is ErrorCode.NONE and stop.error is ErrorCode.ILLEGAL_INSTRUCTION
    return Image(
        config=config,
        memory=bytes(data),
        expected=memory[:results].tobytes(),
        program=program,
        result=result,
        bad_program=bad_program,
        bad_address=stop.error_address,
        bad_code=stop.error,
    )


def _product(
    random: np.random.Generator,
    data: bytearray,
    target: int,
    k: int,
    tiles: int,
    cols: int,
    with_bias: bool,
    config: AccelConfig,
) -> list[Instruction]:
    """Instructions of one product; operands go to the end of ``data``, results to ``target``."""
    words = block_words(k, config)
    stored = tiles * config.rows // config.results_per_word
    half = 1 << (config.act_bits - 1)
    text = []
    for column in range(cols):
        block = pack_block(random.integers(-half, half, k).tolist(), -10 - column % 3, config)
        load = {"column": column, "address": len(data), "count": words}
        text.append(Instruction(opcode=Opcode.LOAD, **load))
        data += block
    text.append(
        Instruction(
            opcode=Opcode.MATMUL,
            flags=Flag.BIAS if with_bias else 0,
            column=cols,
            shift=config.result_shift,
            address=len(data),
            count=tiles,
            k=k,
            dst=words,
        )
    )
    data += _stream(random, tiles, k, with_bias, config)
    for column in range(cols):
        address = target + column * stored * config.bus_bytes
        store = {"column": column, "address": address, "count": stored, "src": words}
        text.append(Instruction(opcode=Opcode.STORE, **store))
    return text


def pack_block(mantissas: Sequence[int], exponent: int, config: AccelConfig) -> bytes:
    """An activation vector as LOAD wants it: a word with the exponent, then the mantissas."""
    kind = "<i2" if config.act_bits == 16 else "i1"
    body = np.asarray(mantissas, kind).tobytes()
    words = block_words(len(mantissas), config)
    head = exponent.to_bytes(1, "little", signed=True).ljust(config.bus_bytes, b"\0")
    return (head + body).ljust(words * config.bus_bytes, b"\0")


def _stream(
    random: np.random.Generator, tiles: int, k: int, with_bias: bool, config: AccelConfig
) -> bytes:
    """Weights of all magnitudes; the exponents keep most results inside 32 bits, not the first."""
    n = tiles * config.rows
    codes = np.arange(256, dtype=np.uint8)
    codes = codes[in_span(codes, config.span)]
    exponents: NDArray[np.int8] = random.integers(-16, -7, n).astype(np.int8)
    exponents[0] = 20
    limit = 1 << (RESULT_BITS - 2)
    bias = random.integers(-limit, limit, n) if with_bias else None
    return pack_tiles(random.choice(codes, (n, k)), exponents, bias, config).tobytes()
