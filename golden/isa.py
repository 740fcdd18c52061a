"""The instruction set: dataclasses, their encoding and the rules that make one legal.

An instruction is eight little-endian 32-bit words (32 bytes) in a slot of
``AccelConfig.slot_bytes``. Hardware, golden machine and compiler take the layout from here.

======  =======================================================================================
word    fields, from the low bit
======  =======================================================================================
0       opcode 8, flags 8, column (LOAD, STORE) or number of columns (MATMUL) 8, shift 8 (signed)
1       address in external memory, a multiple of the bus width
2       count 16 (tiles, or scratchpad words), k 16
3       src 16, dst 16 (word addresses in the scratchpad)
4 to 7  zero; kept for operands relative to the position
======  =======================================================================================

Scratchpad blocks. An activation vector of K elements is a block of ``1 + ceil(K / acts_per_word)``
words: the first holds the shared exponent (int8) in its low byte, the others the two's-complement
mantissas in order, the value being ``mantissa * 2**exponent``. A result vector is
``ceil(N / results_per_word)`` words of int32 with ``RESULT_FRAC`` fraction bits.

Weight streams. A tile is ``rows`` output channels. In memory it is a run of slices of ``rows``
bytes: one slice of row exponents (int8), four slices of layer bias when the BIAS flag is set (byte
j of each row's little-endian int32), then K slices of RF8 codes, one for each input channel. The
tiles of an instruction follow each other without a gap; the next instruction's stream starts on a
new beat.

Errors. A stopped machine tells the error and the instruction; what the instruction had written by
then is not defined. After an error `busy` stays until the bus has answered what it owes: a memory
that never answers needs a reset, and a host that fears one polls STATUS instead of waiting for the
interrupt. Not defined either: a program address that is no multiple of the slot, and streams or
transfers that pass the end of the address space.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from golden.config import BIAS_PLANES, INSTRUCTION_BYTES, AccelConfig


class Opcode(enum.IntEnum):
    """What an instruction does. 0 is no opcode, so that erased memory is no program."""

    MATMUL = 1
    LOAD = 2
    STORE = 3
    FENCE = 4
    HALT = 5


class Flag(enum.IntFlag):
    """Options of an instruction."""

    BIAS = 1
    """MATMUL: each tile carries a layer bias, added after scaling."""


FIELDS: dict[str, tuple[int, int, bool]] = {
    "opcode": (0, 8, False),
    "flags": (8, 8, False),
    "column": (16, 8, False),
    "shift": (24, 8, True),
    "address": (32, 32, False),
    "count": (64, 16, False),
    "k": (80, 16, False),
    "src": (96, 16, False),
    "dst": (112, 16, False),
}
"""Name -> (first bit, width, signed). The hardware decoder is made from this table."""


class ErrorCode(enum.IntEnum):
    """Why the machine stopped. Sticky until the next start."""

    NONE = 0
    ILLEGAL_INSTRUCTION = 1
    """Unknown opcode or flag, reserved bits set, or an operand outside the machine."""
    INVALID_WEIGHT = 2
    """A byte of a weight stream is no RF8 code, or lies below the machine's span."""
    BUS_READ = 3
    """The memory answered a read with an error."""
    BUS_WRITE = 4
    """The memory answered a write with an error."""
    WATCHDOG = 5
    """Nothing moved for as many cycles as the watchdog register allows."""
    ABORTED = 6
    """The host stopped the machine."""


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One decoded instruction. Fields that an opcode does not use are zero.

    Which fields an opcode uses is in ``USES``; `check` tells why an instruction is illegal.
    """

    opcode: Opcode
    flags: int = 0
    column: int = 0
    shift: int = 0
    address: int = 0
    count: int = 0
    k: int = 0
    src: int = 0
    dst: int = 0

    def encode(self) -> bytes:
        """The 32 bytes of this instruction.

        Raises
        ------
        ValueError
            Where a field does not fit its bits.
        """
        word = 0
        for name, (first, width, signed) in FIELDS.items():
            value = int(getattr(self, name))
            low, high = (-(1 << (width - 1)), 1 << (width - 1)) if signed else (0, 1 << width)
            if not low <= value < high:
                raise ValueError(
                    f"{self.opcode.name}: {name} is {value}, must be {low}..{high - 1}"
                )
            word |= (value & ((1 << width) - 1)) << first
        return word.to_bytes(INSTRUCTION_BYTES, "little")

    def __str__(self) -> str:
        used = USES[self.opcode]
        parts = []
        for name in used:
            value = getattr(self, name)
            parts.append(f"{name}={value:#x}" if name == "address" else f"{name}={int(value)}")
        return " ".join([self.opcode.name, *parts])


USES: dict[Opcode, tuple[str, ...]] = {
    Opcode.MATMUL: ("flags", "column", "shift", "address", "count", "k", "src", "dst"),
    Opcode.LOAD: ("column", "address", "count", "dst"),
    Opcode.STORE: ("column", "address", "count", "src"),
    Opcode.FENCE: (),
    Opcode.HALT: (),
}


class IllegalInstruction(ValueError):
    """An instruction that the machine would refuse; the message says which rule it breaks."""


def decode(data: bytes) -> Instruction:
    """The instruction in the first 32 bytes of ``data``.

    Raises
    ------
    IllegalInstruction
        For an unknown opcode or bits that must be zero.
    """
    if len(data) < INSTRUCTION_BYTES:
        raise IllegalInstruction(f"{len(data)} bytes, an instruction has {INSTRUCTION_BYTES}")
    word = int.from_bytes(data[:INSTRUCTION_BYTES], "little")
    values: dict[str, int] = {}
    for name, (first, width, signed) in FIELDS.items():
        value = (word >> first) & ((1 << width) - 1)
        if signed and value >> (width - 1):
            value -= 1 << width
        values[name] = value
    if values["opcode"] not in Opcode._value2member_map_:
        raise IllegalInstruction(f"opcode {values['opcode']:#04x} is none of this machine's")
    if word >> 128:
        raise IllegalInstruction("words 4 to 7 must be zero")
    opcode = Opcode(values.pop("opcode"))
    for name, value in values.items():
        if value and name not in USES[opcode]:
            raise IllegalInstruction(f"{opcode.name}: {name} must be zero, is {value}")
    return Instruction(opcode=opcode, **values)


def check(instruction: Instruction, config: AccelConfig) -> None:
    """Raise `IllegalInstruction` where the machine of ``config`` would stop at ``instruction``."""
    i, depth = instruction, config.scratch_words

    def need(ok: bool, what: str) -> None:
        if not ok:
            raise IllegalInstruction(f"{i}: {what}")

    if i.opcode in (Opcode.FENCE, Opcode.HALT):
        return
    need(i.address % config.bus_bytes == 0, f"address must be a multiple of {config.bus_bytes}")
    need(i.address >> config.addr_bits == 0, f"address needs more than {config.addr_bits} bits")
    need(i.count > 0, "count must not be zero")
    if i.opcode is Opcode.MATMUL:
        need(i.flags in (0, Flag.BIAS), "unknown flag")
        need(1 <= i.column <= config.cols, f"columns must be 1 to {config.cols}")
        need(1 <= i.k <= config.max_k, f"k must be 1 to {config.max_k}")
        need(i.src + block_words(i.k, config) <= depth, f"source ends past word {depth}")
        need(
            i.dst * config.results_per_word + i.count * config.rows
            <= depth * config.results_per_word,
            f"destination ends past word {depth}",
        )
        results = -(-i.count * config.rows // config.results_per_word)
        need(
            i.src + block_words(i.k, config) <= i.dst or i.dst + results <= i.src,
            "source and destination overlap",
        )
    else:
        need(i.column < config.cols, f"column must be below {config.cols}")
        start = i.dst if i.opcode is Opcode.LOAD else i.src
        need(start + i.count <= depth, f"ends past word {depth}")


def block_words(k: int, config: AccelConfig) -> int:
    """Scratchpad words of an activation vector of ``k`` elements, exponent included."""
    return 1 + -(-k // config.acts_per_word)


def tile_slices(k: int, flags: int, config: AccelConfig) -> int:
    """Weight slices of one tile: header and ``k`` slices of codes."""
    return (BIAS_PLANES if flags & Flag.BIAS else 1) + k


def stream_beats(instruction: Instruction, config: AccelConfig) -> int:
    """Bus beats of a MATMUL's weight stream."""
    slices = instruction.count * tile_slices(instruction.k, instruction.flags, config)
    return -(-slices // config.slices_per_beat)


def encode_program(instructions: list[Instruction], config: AccelConfig) -> bytes:
    """The instructions in their slots, in order."""
    slot = config.slot_bytes
    return b"".join(i.encode().ljust(slot, b"\0") for i in instructions)


# The control registers (AXI4-Lite, 32 bits each): name -> (byte offset, meaning). Counters are 64
# bits, low word first, cleared by a start.
REGISTERS: dict[str, tuple[int, str]] = {
    "ID": (0x00, "read only: 0x52463801, the letters RF8 and the version of this map"),
    "CONFIG": (0x04, "read only: rows 8, cols 8, act_bits 8, bus_bytes 8, from the low bit"),
    "CONTROL": (0x08, "write: bit 0 starts, bit 1 stops (error ABORTED)"),
    "STATUS": (0x0C, "read only: bit 0 busy, bit 1 done, bit 2 error; 15..8 error code"),
    "ERROR_ADDRESS": (0x10, "read only: address of the instruction that stopped the machine"),
    "PROGRAM": (0x14, "address of the first instruction, a multiple of the slot"),
    "WATCHDOG": (0x18, "cycles without progress after which the machine stops; 0: never"),
    "INTERRUPT": (0x1C, "bit 0 enables the interrupt: high while done or error is and busy is not"),
}
COUNTERS: dict[str, str] = {
    "cycles": "clock cycles from start to stop",
    "matmul": "cycles in which a MATMUL was under way",
    "load": "cycles in which a LOAD was under way",
    "store": "cycles in which a STORE was under way",
    "stall_weights": "of the matmul cycles: the array waited for the weight stream",
    "stall_drain": "of the matmul cycles: the array waited for the bins of the tile before",
    "slices": "weight slices multiplied",
    "column_slices": "the same, counted once for each active column: `rows` MACs each",
    "read_weights": "bus beats read by the weight fetch",
    "read_other": "bus beats read by instruction fetch and LOAD",
    "written": "bus beats written",
}
"""Counters from offset 0x40 on, in this order, eight bytes each: name -> meaning."""

COUNTER_BASE = 0x40
IDENTITY = 0x52463801


def counter_offset(name: str) -> int:
    """Byte offset of the low word of a counter."""
    return COUNTER_BASE + 8 * list(COUNTERS).index(name)
