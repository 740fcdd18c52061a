"""The instruction set: dataclasses, their encoding and the rules that make one legal.

An instruction is eight little-endian 32-bit words (32 bytes) in a slot of
``AccelConfig.slot_bytes``. Hardware, golden machine and compiler take the layout from here.

======  =======================================================================================
word    fields, from the low bit
======  =======================================================================================
0       opcode 8, flags 8, column (LOAD, STORE) or number of columns 8, shift 8 (signed)
1       address in external memory, a multiple of the bus width
2       count 16 (tiles, scratchpad words, slices or elements), k 16
3       src 16, dst 16 (word addresses in the scratchpad)
4       immediate 32
5       other 16 (word address of the second operand), other_stride 16
6       src_stride 16, dst_stride 16 (words from one segment to the next)
7       function 8, after 8, output 8, segments 8
======  =======================================================================================

Scratchpad blocks. An activation vector of K elements is a block of ``1 + ceil(K / acts_per_word)``
words: the first holds the shared exponent (int8) in its low byte, the others the two's-complement
mantissas in order, the value being ``mantissa * 2**exponent``. A result vector is
``ceil(N / results_per_word)`` words of int32 with ``RESULT_FRAC`` fraction bits; its elements are
also what vector instructions work on.

Weight streams. A tile is ``rows`` output channels. In memory it is a run of slices of ``rows``
bytes: one slice of row exponents (int8), four slices of layer bias when the BIAS flag is set (byte
j of each row's little-endian int32), then K slices of RF8 codes, one for each input channel. The
tiles of an instruction follow each other without a gap; the next instruction's stream starts on a
new beat.

Positions. Instructions take lengths and places from the position that the host sets before it
starts a program, and from tokens (`golden.positions`): one program serves every token of a
sequence. Of a LOAD or STORE with INDEX or TOKEN, a lane of a beat is ``bus_bytes >> shift`` bytes.

Errors. A stopped machine tells the error and the instruction; what the instruction had written by
then is not defined. That the memory refused a STORE shows late: instructions after it, up to the
next LOAD, FENCE or HALT, may have been done. After an error `busy` stays until the bus has answered
what it owes: a memory that never answers needs a reset, and a host that fears one polls STATUS
instead of waiting for the interrupt. Not defined either: a program address that is no multiple of
the slot, and streams or transfers that pass the end of the address space.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from golden.config import INSTRUCTION_BYTES, RESULT_BITS, AccelConfig

SEGMENTS = 16
"""The most segments of a VECTOR instruction; each has registers of its own in each column."""


class Opcode(enum.IntEnum):
    """What an instruction does. 0 is no opcode, so that erased memory is no program."""

    MATMUL = 1
    LOAD = 2
    STORE = 3
    FENCE = 4
    HALT = 5
    VECTOR = 6


class Flag(enum.IntFlag):
    """Options of an instruction."""

    BIAS = 1
    """MATMUL: each tile carries a layer bias, added after scaling."""
    LENGTH = 2
    """MATMUL, LOAD, VECTOR: `count` is a capacity; what is used follows from the position."""
    LENGTH_K = 4
    """MATMUL: the same for `k`."""
    INDEX = 8
    """LOAD, STORE: the place in memory follows from the column's position."""
    TOKEN = 16
    """LOAD: the place in memory follows from the column's token."""
    AMOUNT = 32
    """VECTOR: the register `amount` is added to `shift`."""
    IMMEDIATE = 64
    """VECTOR: the factor is `immediate`, not the register."""
    WINDOW = 128
    """VECTOR, SHIFT or EXP2 with LENGTH: of each column only the last `immediate` elements count,
    1 or more; those before them become zero."""


INDEXED = Flag.INDEX | Flag.TOKEN
"""Flags of a LOAD or STORE whose place in memory follows from the position or the token."""

FLAGS: dict[Opcode, Flag] = {
    Opcode.MATMUL: Flag.BIAS | Flag.LENGTH | Flag.LENGTH_K,
    Opcode.LOAD: Flag.LENGTH | Flag.INDEX | Flag.TOKEN,
    Opcode.STORE: Flag.INDEX,
    Opcode.VECTOR: Flag.LENGTH | Flag.AMOUNT | Flag.IMMEDIATE | Flag.WINDOW,
    Opcode.FENCE: Flag(0),
    Opcode.HALT: Flag(0),
}
"""The flags that an opcode may have."""


class Function(enum.IntEnum):
    """What a VECTOR instruction computes of elements a (`src`) and b (`other`): y.

    S is ``2**(shift + amount)``, the second only with AMOUNT; rounding is half to even. y saturates
    to `k` bits where nothing else is said; where that is 32, the counter `saturated` tells how many
    elements did.
    """

    SHIFT = 0
    """round(a * S)"""
    SHIFT_EACH = 1
    """round(a * S * 2**b)"""
    SCALE = 2
    """round(a * factor * S)"""
    MULTIPLY = 3
    """round(a * b * S)"""
    ADD = 4
    """round(a * S) + b"""
    SUBTRACT = 5
    """round(a * S) - factor"""
    SQUARE = 6
    """a * a, which does not saturate; for `sum`, output NONE"""
    EXP2 = 7
    """2**(a - top) with EXP_FRAC fraction bits, a and top Q16, a at most top"""
    LENGTHS = 8
    """bit_length(a) + b where a is above 0, else -128"""
    GELU = 9
    """gelu(a), Q16"""
    GELU_TANH = 10
    """gelu(a) in its tanh form, Q16"""
    SILU = 11
    """silu(a), Q16"""
    RELU = 12
    """max(a, 0)"""
    ANGLE = 13
    """a * position + b, modulo 2**32"""
    SINE = 14
    """sine of a, TURN_BITS bits of a turn, with SINE_FRAC fraction bits"""
    ROTATE = 15
    """round((a * b + a' * b') * S), 32 bits: a' is the element whose index differs from that of a
    in the bit `k`, b' comes from `immediate` words after b, and b repeats after as many words"""
    CODE = 16
    """the RF8 code of a with CODE_FRAC fraction bits, at bias 0 and the machine's span"""
    RESIDUE = 17
    """a less the value of its RF8 code, with CODE_FRAC fraction bits"""
    TANH = 18
    """tanh(a), Q16"""


class After(enum.IntEnum):
    """What a VECTOR instruction computes at the end of each segment, from the sum, the peak
    (largest magnitude) and the top (largest) of its y: new values of the segment's registers."""

    NONE = 0
    MEAN = 1
    """factor = round(sum / count)"""
    ALIGN = 2
    """amount = -max(bit_length(peak) - (NORM_BITS - 1), -8)"""
    ROOT = 3
    """factor and amount so that SCALE divides by the root mean square of values whose squares add
    up to sum, which ALIGN has aligned; epsilon is in `immediate`"""
    QUANTIZE = 4
    """amount = -max(bit_length(peak) - (act_bits - 1), 0); exponent = -amount - `immediate`"""
    RECIPROCAL = 5
    """1 / sum = factor * 2**-(INVERSE_FRAC + size)"""
    LIFT = 6
    """exponent = top - (act_bits - 1); amount = -exponent; then exponent = exponent - size"""
    CODE = 7
    """amount = CODE_FRAC - bias, exponent = bias - RESULT_FRAC with the `row_bias` of peak"""
    AMOUNT = 8
    """amount = top + `immediate`"""


class Output(enum.IntEnum):
    """What a VECTOR instruction writes of y to `dst`, for each segment."""

    WORDS = 0
    """y as int32 elements"""
    NONE = 1
    """nothing; registers are set all the same"""
    BLOCK = 2
    """a word that holds the register `exponent`, then y as mantissas of act_bits bits: a block, as
    MATMUL takes it"""
    MANTISSAS = 3
    """y as mantissas of act_bits bits, without the word with the exponent"""
    CODES = 4
    """a word that holds the register `exponent`, then y as bytes"""
    ROW = 5
    """a word that holds the register `exponent`, then y as int32 elements"""
    TOP = 6
    """one word: the largest element of y, and the index of the first one that is as large (an
    argmax). Illegal with ROTATE, and on machines whose words have one element"""


HEADED = (Output.BLOCK, Output.CODES, Output.ROW)
"""Outputs that begin with a word with the exponent."""

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
    "immediate": (128, 32, True),
    "other": (160, 16, False),
    "other_stride": (176, 16, False),
    "src_stride": (192, 16, False),
    "dst_stride": (208, 16, False),
    "function": (224, 8, False),
    "after": (232, 8, False),
    "output": (240, 8, False),
    "segments": (248, 8, False),
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
    POSITION = 7
    """The position or a token is beyond what the instruction has room for."""


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
    immediate: int = 0
    other: int = 0
    other_stride: int = 0
    src_stride: int = 0
    dst_stride: int = 0
    function: int = 0
    after: int = 0
    output: int = 0
    segments: int = 0

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
        names = {"function": Function, "after": After, "output": Output}
        parts = []
        for name in USES[self.opcode]:
            value = int(getattr(self, name))
            if name in names and value in names[name]._value2member_map_:
                parts.append(f"{name}={names[name](value).name}")
            elif name == "flags":
                parts.append(f"flags={'|'.join(f.name or '' for f in Flag(value)) or 0}")
            elif name in EXTRAS and not value:
                continue
            else:
                parts.append(f"{name}={value:#x}" if name == "address" else f"{name}={value}")
        return " ".join([self.opcode.name, *parts])


EXTRAS = ("immediate", "other", "other_stride", "src_stride", "dst_stride")
"""Fields that are left out of an instruction's text where they are zero."""

USES: dict[Opcode, tuple[str, ...]] = {
    Opcode.MATMUL: ("flags", "column", "shift", "address", "count", "k", "src", "dst"),
    Opcode.LOAD: ("flags", "column", "shift", "address", "count", "k", "dst", "immediate"),
    Opcode.STORE: ("flags", "column", "shift", "address", "count", "k", "src", "immediate"),
    Opcode.VECTOR: (
        *("function", "after", "output", "flags", "column", "segments", "shift", "count", "k"),
        *("src", "src_stride", "other", "other_stride", "dst", "dst_stride", "immediate"),
    ),
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
    opcode = Opcode(values.pop("opcode"))
    for name, value in values.items():
        if value and name not in USES[opcode]:
            raise IllegalInstruction(f"{opcode.name}: {name} must be zero, is {value}")
    return Instruction(opcode=opcode, **values)


READS_OTHER = {
    Function.SHIFT_EACH,
    Function.MULTIPLY,
    Function.ADD,
    Function.LENGTHS,
    Function.ANGLE,
    Function.ROTATE,
}
"""The functions with an operand b."""

WINDOWED = {Function.SHIFT, Function.EXP2}
"""The functions that may have a window."""


def check(instruction: Instruction, config: AccelConfig) -> None:
    """Raise `IllegalInstruction` where the machine of ``config`` would stop at ``instruction``."""
    i, depth = instruction, config.scratch_words

    def need(ok: bool, what: str) -> None:
        if not ok:
            raise IllegalInstruction(f"{i}: {what}")

    need(i.flags & ~int(FLAGS[i.opcode]) == 0, "unknown flag")
    if i.opcode in (Opcode.FENCE, Opcode.HALT):
        return
    need(i.count > 0, "count must not be zero")
    if i.opcode in (Opcode.MATMUL, Opcode.VECTOR):
        need(1 <= i.column <= config.cols, f"columns must be 1 to {config.cols}")
    if i.opcode is Opcode.VECTOR:
        _check_vector(i, config, need)
        return
    need(i.address % config.bus_bytes == 0, f"address must be a multiple of {config.bus_bytes}")
    need(i.address >> config.addr_bits == 0, f"address needs more than {config.addr_bits} bits")
    if i.opcode is Opcode.MATMUL:
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
        return
    need(i.column < config.cols, f"column must be below {config.cols}")
    start = i.dst if i.opcode is Opcode.LOAD else i.src
    need(start + moved_words(i, config) <= depth, f"ends past word {depth}")
    indexed = i.flags & INDEXED
    if not indexed:
        need((i.shift, i.k, i.immediate) == (0, 0, 0), "shift, k and immediate need an index")
        return
    need(indexed in (Flag.INDEX, Flag.TOKEN), "INDEX and TOKEN exclude each other")
    need(not i.flags & Flag.LENGTH, "LENGTH and an index exclude each other")
    need(i.immediate > 0, "immediate, the limit of the index, must be above 0")
    bytes_, elements = exact_log2(config.bus_bytes), exact_log2(config.results_per_word)
    shifts = {bytes_} if i.opcode is Opcode.LOAD else {0, elements, bytes_}
    need(i.shift in shifts, f"shift must be one of {sorted(shifts)}")


def exact_log2(value: int) -> int:
    """The exponent of a power of two."""
    return value.bit_length() - 1


def _check_vector(i: Instruction, config: AccelConfig, need: Callable[[bool, str], None]) -> None:
    depth, words = config.scratch_words, vector_words(i.count, config)
    for name, kind in (("function", Function), ("after", After), ("output", Output)):
        need(getattr(i, name) in kind._value2member_map_, f"unknown {name}")
    need(1 <= i.segments <= SEGMENTS, f"segments must be 1 to {SEGMENTS}")
    rotate = i.function == Function.ROTATE
    if rotate:
        pairs = i.k > 0 and i.k & (i.k - 1) == 0 and i.count % (2 * i.k) == 0
        need(pairs, "k must be a power of two, count a multiple of twice that")
        need(0 < i.immediate <= depth, f"immediate must be 1 to {depth}")
    else:
        need(2 <= i.k <= RESULT_BITS, f"k must be 2 to {RESULT_BITS} bits")
    if i.flags & Flag.WINDOW:
        need(i.function in WINDOWED, "WINDOW is for SHIFT and EXP2 only")
        need(bool(i.flags & Flag.LENGTH), "WINDOW needs LENGTH")
        need(i.immediate > 0, "immediate, the window, must be above 0")
    if i.output == Output.TOP:
        need(not rotate, "TOP is not for ROTATE")
        need(config.results_per_word > 1, "TOP needs words of two elements or more")

    def fits(start: int, stride: int, words: int) -> bool:
        return start + (i.segments - 1) * stride + words <= depth

    need(fits(i.src, i.src_stride, words), f"source ends past word {depth}")
    if i.function in READS_OTHER:
        read = 2 * i.immediate if rotate else words
        need(fits(i.other, i.other_stride, read), f"second source ends past word {depth}")
    if i.output != Output.NONE:
        written = output_words(i, config)
        need(fits(i.dst, i.dst_stride, written), f"destination ends past word {depth}")


def vector_words(count: int, config: AccelConfig) -> int:
    """Scratchpad words of ``count`` int32 elements."""
    return -(-count // config.results_per_word)


def output_words(instruction: Instruction, config: AccelConfig) -> int:
    """Words that a VECTOR instruction writes in a segment, at most."""
    if instruction.output == Output.TOP:
        return 1
    per_word = {
        Output.NONE: 0,
        Output.WORDS: config.results_per_word,
        Output.ROW: config.results_per_word,
        Output.BLOCK: config.acts_per_word,
        Output.MANTISSAS: config.acts_per_word,
        Output.CODES: config.bus_bytes,
    }[Output(instruction.output)]
    if not per_word:
        return 0
    head = instruction.output in HEADED
    return head - (-instruction.count // per_word)


def moved_words(instruction: Instruction, config: AccelConfig) -> int:
    """Scratchpad words of a LOAD or STORE: with lanes, a word for the first beat and elements."""
    if instruction.flags & INDEXED and instruction.shift > 0:
        return 1 + vector_words(instruction.count - 1, config)
    return instruction.count


def block_words(k: int, config: AccelConfig) -> int:
    """Scratchpad words of an activation vector of ``k`` elements, exponent included."""
    return 1 + -(-k // config.acts_per_word)


def encode_program(instructions: list[Instruction], config: AccelConfig) -> bytes:
    """The instructions in their slots, in order."""
    slot = config.slot_bytes
    return b"".join(i.encode().ljust(slot, b"\0") for i in instructions)
