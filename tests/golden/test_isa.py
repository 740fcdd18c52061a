import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden import isa
from golden.config import CONFIGS
from golden.isa import (
    FIELDS,
    FLAGS,
    USES,
    After,
    Flag,
    Function,
    IllegalInstruction,
    Instruction,
    Opcode,
    Output,
)
from golden.stream import stream_beats, tile_slices

TINY, SIM = CONFIGS["tiny"], CONFIGS["sim"]
MATMUL = Instruction(
    opcode=Opcode.MATMUL, flags=1, column=2, shift=-3, address=0x1000, count=5, k=7, src=0, dst=9
)


LOAD = Instruction(opcode=Opcode.LOAD, column=1, address=0x40, count=24, dst=1000)
STORE = Instruction(opcode=Opcode.STORE, column=1, address=0x40, count=24, src=1000)
LANE = Instruction(
    opcode=Opcode.LOAD, flags=Flag.TOKEN, column=1, shift=2, address=0x2000, count=5, k=3, dst=7,
    immediate=50257,
)  # fmt: skip
VECTOR = Instruction(
    opcode=Opcode.VECTOR, flags=Flag.LENGTH | Flag.AMOUNT, column=2, shift=-16, count=10, k=32,
    src=1, dst=2, immediate=-2, other=3, other_stride=0x104, src_stride=0x105, dst_stride=0x106,
    function=Function.MULTIPLY, after=After.QUANTIZE, output=Output.BLOCK, segments=3,
)  # fmt: skip


@pytest.mark.parametrize(
    ("instruction", "words"),
    [
        (MATMUL, "010102fd 00100000 05000700 00000900" + 4 * " 00000000"),
        (LANE, "02100102 00200000 05000300 00000700 51c40000" + 3 * " 00000000"),
        (
            VECTOR,
            "062202f0 00000000 0a002000 01000200 feffffff 03000401 05010601 03040203",
        ),
        (Instruction(opcode=Opcode.HALT), "05000000" + 7 * " 00000000"),
    ],
)
def test_encoding_by_hand(instruction, words):
    data = bytes.fromhex(words)
    assert instruction.encode() == data
    assert isa.decode(data) == instruction


@st.composite
def instructions(draw):
    opcode = draw(st.sampled_from(Opcode))
    values = {}
    for name in USES[opcode]:
        _, width, signed = FIELDS[name]
        low, high = (-(1 << width - 1), (1 << width - 1) - 1) if signed else (0, (1 << width) - 1)
        values[name] = draw(st.integers(low, high))
    return Instruction(opcode=opcode, **values)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(instructions())
def test_round_trip(instruction):
    assert isa.decode(instruction.encode()) == instruction


def test_fields_do_not_overlap():
    bits = [bit for first, width, _ in FIELDS.values() for bit in range(first, first + width)]
    assert len(bits) == len(set(bits)) == 256


@pytest.mark.parametrize("data", [bytes(32), b"\x07" + bytes(31), bytes(31), b"\xff" * 32])
def test_no_instruction(data):
    with pytest.raises(IllegalInstruction):
        isa.decode(data)


@pytest.mark.parametrize("good", [MATMUL, LOAD, STORE, LANE, VECTOR], ids=lambda i: i.opcode.name)
def test_fields_without_use_must_be_zero(good):
    for name in set(FIELDS) - {*USES[good.opcode], "opcode"}:
        data = Instruction(**{**vars(good), name: 1}).encode()
        with pytest.raises(IllegalInstruction, match=f"{name} must be zero, is 1"):
            isa.decode(data)


@pytest.mark.parametrize("opcode", [Opcode.FENCE, Opcode.HALT])
@pytest.mark.parametrize("at", range(1, 32))
def test_bare_opcodes(opcode, at):
    data = bytearray(Instruction(opcode=opcode).encode())
    isa.check(isa.decode(bytes(data)), TINY)
    data[at] = 1
    with pytest.raises(IllegalInstruction, match="must be zero, is "):
        isa.decode(bytes(data))


@pytest.mark.parametrize("good", [MATMUL, LOAD, STORE, VECTOR], ids=lambda i: i.opcode.name)
@pytest.mark.parametrize("bit", range(8))
def test_flags(good, bit):
    """A flag is another opcode's, or nobody's."""
    flagged = Instruction(**{**vars(good), "flags": good.flags | 1 << bit})
    if FLAGS[good.opcode] & 1 << bit:
        assert good.opcode is not Opcode.MATMUL or isa.check(flagged, TINY) is None
        return
    with pytest.raises(IllegalInstruction, match="unknown flag"):
        isa.check(flagged, TINY)


def illegal(good, config=TINY, **changes):
    """The message about a legal instruction with something changed."""
    isa.check(good, config)
    with pytest.raises(IllegalInstruction) as found:
        isa.check(Instruction(**{**vars(good), **changes}), config)
    return str(found.value).split(": ", 1)[1]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"address": 2}, "address must be a multiple of 4"),
        ({"count": 0}, "count must not be zero"),
        ({"column": 0}, "columns must be 1 to 2"),
        ({"column": 3}, "columns must be 1 to 2"),
        ({"k": 0}, "k must be 1 to 1024"),
        ({"k": 1025}, "k must be 1 to 1024"),
        ({"src": 1020}, "source ends past word 1024"),
        ({"dst": 1005}, "destination ends past word 1024"),
        ({"count": 300}, "destination ends past word 1024"),
        ({"dst": 4}, "source and destination overlap"),
        ({"src": 28}, "source and destination overlap"),
    ],
)
def test_illegal_matmul(changes, what):
    assert illegal(MATMUL, **changes) == what


@pytest.mark.parametrize("good", [LOAD, STORE], ids=lambda i: i.opcode.name)
@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"count": 25}, "ends past word 1024"),
        ({"column": 2}, "column must be below 2"),
        ({"count": 0}, "count must not be zero"),
        ({"address": 0x41}, "address must be a multiple of 4"),
        ({"shift": 2}, "shift, k and immediate need an index"),
        ({"k": 1}, "shift, k and immediate need an index"),
        ({"immediate": 1}, "shift, k and immediate need an index"),
    ],
)
def test_illegal_moves(good, changes, what):
    assert illegal(good, **changes) == what


def test_addresses_beyond_the_bus():
    small = TINY.replace(addr_bits=20)
    for good in (MATMUL, LOAD, STORE, LANE):
        assert illegal(good, small, address=1 << 20) == "address needs more than 20 bits"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"flags": Flag.TOKEN | Flag.INDEX}, "INDEX and TOKEN exclude each other"),
        ({"flags": Flag.TOKEN | Flag.LENGTH}, "LENGTH and an index exclude each other"),
        ({"flags": Flag.INDEX | Flag.LENGTH}, "LENGTH and an index exclude each other"),
        ({"immediate": 0}, "immediate, the limit of the index, must be above 0"),
        ({"immediate": -1}, "immediate, the limit of the index, must be above 0"),
        ({"shift": 0}, r"shift must be one of [2]"),
        ({"shift": 1}, r"shift must be one of [2]"),
        ({"shift": 3}, r"shift must be one of [2]"),
        ({"dst": 1020}, "ends past word 1024"),
    ],
)
def test_illegal_lanes(changes, what):
    assert illegal(LANE, **changes) == what


def test_lanes_of_a_store():
    wide = TINY.replace(rows=4, bus_bytes=16)  # four elements in a word
    good = Instruction(opcode=Opcode.STORE, flags=Flag.INDEX, count=9, k=1, immediate=8)
    for shift in (0, 2, 4):  # a beat, an element, a byte
        isa.check(Instruction(**{**vars(good), "shift": shift}), wide)
    for shift in (-1, 1, 3, 5):
        assert illegal(good, wide, shift=shift) == "shift must be one of [0, 2, 4]"
    # Nine beats are a word with one element, and two words with four each.
    in_lanes = Instruction(**{**vars(good), "shift": 2, "src": 1021})
    assert isa.moved_words(in_lanes, wide) == 3
    assert illegal(in_lanes, wide, count=10) == "ends past word 1024"
    assert illegal(in_lanes, wide, shift=0) == "ends past word 1024"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"column": 0}, "columns must be 1 to 2"),
        ({"column": 3}, "columns must be 1 to 2"),
        ({"count": 0}, "count must not be zero"),
        ({"function": len(Function)}, "unknown function"),
        ({"after": 9}, "unknown after"),
        ({"output": 7}, "unknown output"),
        ({"output": Output.TOP}, "TOP needs words of two elements or more"),
        ({"segments": 0}, "segments must be 1 to 16"),
        ({"segments": 17}, "segments must be 1 to 16"),
        ({"k": 1}, "k must be 2 to 32 bits"),
        ({"k": 33}, "k must be 2 to 32 bits"),
        # Ten elements are ten words of tiny: the last segment's end where the scratchpad does.
        ({"src": 493}, "source ends past word 1024"),
        ({"src_stride": 507}, "source ends past word 1024"),
        ({"other": 495}, "second source ends past word 1024"),
        # A block of ten 16-bit mantissas is six words.
        ({"dst": 495}, "destination ends past word 1024"),
    ],
)
def test_illegal_vector(changes, what):
    assert illegal(VECTOR, **changes) == what


def test_the_last_places_of_a_vector():
    fits = {"src": 1024 - 10 - 2 * 0x105, "other": 1024 - 10 - 2 * 0x104}
    fits["dst"] = 1024 - 6 - 2 * 0x106
    for name, start in fits.items():
        good = Instruction(**{**vars(VECTOR), name: start})
        assert illegal(good, **{name: start + 1}).endswith("ends past word 1024")
    # What is not read, or not written, may be anywhere.
    isa.check(Instruction(**{**vars(VECTOR), "function": Function.SHIFT, "other": 0xFFFF}), TINY)
    isa.check(Instruction(**{**vars(VECTOR), "output": Output.NONE, "dst": 0xFFFF}), TINY)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"k": 0}, "k must be a power of two, count a multiple of twice that"),
        ({"k": 3}, "k must be a power of two, count a multiple of twice that"),
        ({"k": 8}, "k must be a power of two, count a multiple of twice that"),
        ({"count": 28}, "k must be a power of two, count a multiple of twice that"),
        ({"immediate": 0}, "immediate must be 1 to 1024"),
        ({"immediate": -1}, "immediate must be 1 to 1024"),
        ({"immediate": 1025}, "immediate must be 1 to 1024"),
        ({"immediate": 9}, "second source ends past word 1024"),
    ],
)
def test_illegal_rotation(changes, what):
    fields = {"function": Function.ROTATE, "count": 24, "k": 4, "immediate": 8}
    good = Instruction(**{**vars(VECTOR), **fields, "other": 1024 - 16 - 2 * 0x104})
    assert illegal(good, **changes) == what


def test_words_of_a_vector():
    """33 elements on a bus of 16 bytes."""
    wide = TINY.replace(bus_bytes=16)
    words = {
        Output.WORDS: 9, Output.NONE: 0, Output.BLOCK: 1 + 5, Output.MANTISSAS: 5,
        Output.CODES: 1 + 3, Output.ROW: 1 + 9, Output.TOP: 1,
    }  # fmt: skip
    for output, number in words.items():
        i = Instruction(opcode=Opcode.VECTOR, count=33, output=output)
        assert isa.output_words(i, wide) == number
    assert isa.vector_words(33, wide) == 9


def test_sizes_by_hand():
    assert isa.block_words(768, SIM) == 1 + 24
    assert isa.block_words(33, SIM) == 1 + 2
    assert tile_slices(768, 0, SIM) == 769
    assert tile_slices(768, Flag.BIAS, SIM) == 773
    wide = SIM.replace(rows=16, bus_bytes=64, burst_beats=64)
    matmul = Instruction(opcode=Opcode.MATMUL, column=1, count=3, k=10)
    assert stream_beats(matmul, wide) == 9  # 33 slices, four a beat


def test_program_slots():
    program = [MATMUL, Instruction(opcode=Opcode.HALT)]
    assert len(isa.encode_program(program, TINY)) == 64
    text = isa.encode_program(program, SIM)
    assert len(text) == 128 and isa.decode(text[64:]).opcode is Opcode.HALT
    assert str(MATMUL).startswith("MATMUL flags=BIAS column=2 shift=-3 address=0x1000")


def test_values_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"LOAD: count is 65536, must be 0\.\.65535"):
        Instruction(opcode=Opcode.LOAD, count=65536).encode()
