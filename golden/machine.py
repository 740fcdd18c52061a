"""The machine: runs programs on a memory. This is the definition of the instruction set.

Hardware must leave the same bytes in memory. Timing, queues and the bus are not modelled; the order
of instructions is, and everything that stops the machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, get_args

import numpy as np
from numpy.typing import NDArray

from golden import isa, vector
from golden.arith import EXACT_FLOAT64, Int64, rescale, saturate
from golden.config import MAX_SIGNIFICAND, RESULT_BITS, AccelConfig
from golden.format import INTEGERS
from golden.interface import RunResult
from golden.isa import INDEXED, ErrorCode, Instruction, Opcode
from golden.positions import resolve
from golden.stream import Bytes, Tiles, stream_beats, unpack_tiles
from golden.vector import Registers

_INDEXED = int(INDEXED)
Engine = Literal["numpy", "torch"]


COUNTED = ("read_weights", "written", "slices", "column_slices", "saturated", "instructions")
"""What this machine counts: counters of the hardware, and ``instructions`` that were begun."""


class _Stop(Exception):
    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code.name)
        self.code = code


class _Product(Protocol):
    def prepare(self, weights: NDArray[np.float64]) -> Any: ...
    def matmul(self, weights: Any, x: NDArray[np.float64]) -> Int64: ...


class _Numpy:
    """Exact products with NumPy."""

    def prepare(self, weights: NDArray[np.float64]) -> Any:
        return weights

    def matmul(self, weights: Any, x: NDArray[np.float64]) -> Int64:
        product: Int64 = (weights @ x).astype(np.int64)
        return product


class _Torch:
    """The same products with torch, which uses all cores."""

    def prepare(self, weights: NDArray[np.float64]) -> Any:
        import torch

        return torch.from_numpy(weights)

    def matmul(self, weights: Any, x: NDArray[np.float64]) -> Int64:
        import torch

        vectors = torch.from_numpy(np.ascontiguousarray(x))
        if vectors.shape[1] == 1:
            dots = torch.mv(weights, vectors[:, 0])[:, None]
        else:
            dots = weights @ vectors
        product: Int64 = dots.to(torch.int64).numpy()
        return product


@dataclass
class GoldenMachine:
    """One accelerator with its external memory: a `golden.interface.Machine`.

    Parameters
    ----------
    memory: uint8 [bytes]; programs read and write it in place
    config: the accelerator
    engine: "numpy", or "torch", which is bit-identical and faster
    constant: ranges (start, end) of memory that neither programs nor the host change after the
        first run; their instructions and weights are unpacked once and kept, at 8 bytes a weight
    """

    memory: Bytes
    config: AccelConfig
    engine: Engine = "numpy"
    constant: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        config = self.config
        if self.engine not in get_args(Engine):
            known = " or ".join(get_args(Engine))
            raise ValueError(f"engine is {self.engine!r}, must be {known}")
        self.scratch = np.zeros((config.cols, config.scratch_words, config.bus_bytes), np.uint8)
        self._product: _Product = _Torch() if self.engine == "torch" else _Numpy()
        self.registers = Registers.cleared(config)
        self._position, self._tokens = 0, [0] * config.cols
        self._counters: dict[str, int] = {}
        self._kept: dict[Instruction, Tiles] = {}
        self._decoded: dict[int, Instruction] = {}
        # Every partial sum of a dot product is below this, whatever the order of addition.
        largest = (MAX_SIGNIFICAND << (config.span - 1)) << (config.act_bits - 1)
        if config.max_k * largest >= EXACT_FLOAT64:
            raise OverflowError(f"config {config.name!r}: sums are not exact in float64")

    def run(self, program: int, position: int = 0, tokens: Sequence[int] = ()) -> RunResult:
        """As of `golden.interface.Machine`; ``counters`` has `COUNTED`."""
        if len(tokens) > self.config.cols:
            raise ValueError(f"{len(tokens)} tokens, the machine has {self.config.cols} columns")
        self._position = position
        self._tokens[: len(tokens)] = map(int, tokens)
        self._counters = dict.fromkeys(COUNTED, 0)
        for address in self._addresses(program):
            try:
                if self._step(address):
                    return RunResult(counters=self._counters)
            except _Stop as stop:
                return RunResult(stop.code, address, self._counters)
        raise AssertionError("unreachable")

    def written_at(self, address: int) -> None:
        """There is no clock."""

    def close(self) -> None:
        """There is nothing to free."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def _addresses(self, start: int) -> Iterator[int]:
        while True:
            yield start
            start += self.config.slot_bytes

    def _read(self, address: int, size: int) -> Bytes:
        if address + size > self.memory.size:
            raise _Stop(ErrorCode.BUS_READ)
        return self.memory[address : address + size]

    def _step(self, address: int) -> bool:
        legal = self._instruction(address)
        self._counters["instructions"] += 1
        resolved = resolve(legal, self._position, self._tokens, self.config)
        if resolved.far:
            raise _Stop(ErrorCode.POSITION)
        i = resolved.instruction
        if i.opcode is Opcode.LOAD:
            self._load(i, resolved.lane)
        elif i.opcode is Opcode.STORE:
            self._store(i, resolved.lane)
        elif i.opcode is Opcode.MATMUL:
            self._matmul(i)
        elif i.opcode is Opcode.VECTOR:
            state = (self.scratch, self.registers, self._position, self.config)
            self._counters["saturated"] += vector.execute(i, *state)
        return i.opcode is Opcode.HALT

    def _load(self, i: Instruction, lane: int) -> None:
        config, count = self.config, i.count
        beats = self._read(i.address, count * config.bus_bytes).reshape(count, config.bus_bytes)
        bank = self.scratch[i.column]
        if not i.flags & _INDEXED:
            bank[i.dst : i.dst + count] = beats
            return
        column = beats[:, lane]
        elements = np.zeros(isa.moved_words(i, config) * config.results_per_word, "<i4")
        elements[0] = column.view(np.int8)[0]
        elements[config.results_per_word :][: count - 1] = INTEGERS[column[1:]]
        words = elements.view(np.uint8).reshape(-1, config.bus_bytes)
        bank[i.dst : i.dst + len(words)] = words

    def _store(self, i: Instruction, lane: int) -> None:
        config, address = self.config, i.address
        size = i.count * config.bus_bytes
        if address + size > self.memory.size:
            raise _Stop(ErrorCode.BUS_WRITE)
        bank = self.scratch[i.column, i.src : i.src + isa.moved_words(i, config)]
        target = self.memory[address : address + size].reshape(i.count, config.bus_bytes)
        self._counters["written"] += i.count
        if i.shift == 0:
            target[:] = bank
            return
        width = config.bus_bytes >> i.shift
        elements = bank.reshape(-1, 4)[:, :width]
        per_word = config.results_per_word
        chosen = np.concatenate([elements[:1], elements[per_word:]])[: i.count]
        target[:, lane * width : (lane + 1) * width] = chosen

    def _is_constant(self, address: int, size: int) -> bool:
        return any(low <= address and address + size <= high for low, high in self.constant)

    def _instruction(self, address: int) -> Instruction:
        if address in self._decoded:
            return self._decoded[address]
        data = self._read(address, self.config.slot_bytes).tobytes()
        try:
            i = isa.decode(data)
            isa.check(i, self.config)
        except isa.IllegalInstruction:
            raise _Stop(ErrorCode.ILLEGAL_INSTRUCTION) from None
        if self._is_constant(address, self.config.slot_bytes):
            self._decoded[address] = i
        return i

    def _tiles(self, i: Instruction) -> Tiles:
        if i in self._kept:
            return self._kept[i]
        size = stream_beats(i, self.config) * self.config.bus_bytes
        stream = self._read(i.address, size)
        try:
            tiles = unpack_tiles(stream, i, self.config)
        except ValueError:
            raise _Stop(ErrorCode.INVALID_WEIGHT) from None
        tiles = Tiles(self._product.prepare(tiles.weights), tiles.exponents, tiles.bias)
        if self._is_constant(i.address, size):
            self._kept[i] = tiles
        return tiles

    def _matmul(self, i: Instruction) -> None:
        config = self.config
        tiles = self._tiles(i)
        blocks = self.scratch[: i.column, i.src : i.src + isa.block_words(i.k, config)]
        exponents = blocks[:, 0, 0].view(np.int8).astype(np.int64)  # [columns]
        kind = "<i2" if config.act_bits == 16 else "i1"
        mantissas = np.ascontiguousarray(blocks[:, 1:]).reshape(i.column, -1).view(kind)[:, : i.k]
        dots = self._product.matmul(tiles.weights, mantissas.T.astype(np.float64))  # [N, columns]
        scale = tiles.exponents[:, None] + exponents + i.shift
        exact = rescale(dots, scale, tiles.bias[:, None])
        results = saturate(exact, RESULT_BITS)
        self._counters["saturated"] += int(np.count_nonzero(results != exact))
        words = np.ascontiguousarray(results.astype("<i4").T).view(np.uint8)
        words = words.reshape(i.column, -1, config.bus_bytes)
        self.scratch[: i.column, i.dst : i.dst + words.shape[1]] = words
        self._counters["read_weights"] += stream_beats(i, config)
        self._counters["slices"] += i.count * i.k
        self._counters["column_slices"] += i.count * i.k * i.column


def run(
    memory: Bytes,
    program: int,
    config: AccelConfig,
    position: int = 0,
    tokens: Sequence[int] = (),
) -> RunResult:
    """Run the program at address ``program`` on ``memory``, in place, from a cleared machine."""
    return GoldenMachine(memory, config).run(program, position, tokens)
