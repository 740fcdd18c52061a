import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden import isa
from golden.config import CONFIGS
from golden.isa import FIELDS, USES, Flag, IllegalInstruction, Instruction, Opcode

TINY, SIM = CONFIGS["tiny"], CONFIGS["sim"]
MATMUL = Instruction(
    opcode=Opcode.MATMUL, flags=1, column=2, shift=-3, address=0x1000, count=5, k=7, src=0, dst=9
)


def test_encoding_by_hand():
    words = bytes.fromhex("010102fd 00100000 05000700 00000900".replace(" ", "")) + bytes(16)
    assert MATMUL.encode() == words
    assert isa.decode(words) == MATMUL


@st.composite
def instructions(draw):
    opcode = draw(st.sampled_from(Opcode))
    values = {}
    for name in USES[opcode]:
        _, width, signed = FIELDS[name]
        low, high = (-(1 << width - 1), (1 << width - 1) - 1) if signed else (0, (1 << width) - 1)
        values[name] = draw(st.integers(low, high))
    return Instruction(opcode=opcode, **values)


@settings(max_examples=300, derandomize=True)
@given(instructions())
def test_round_trip(instruction):
    assert isa.decode(instruction.encode()) == instruction


def test_fields_do_not_overlap():
    bits = [bit for first, width, _ in FIELDS.values() for bit in range(first, first + width)]
    assert len(bits) == len(set(bits)) == 128


@pytest.mark.parametrize("data", [bytes(32), b"\x06" + bytes(31), bytes(31), b"\xff" * 32])
def test_no_instruction(data):
    with pytest.raises(IllegalInstruction):
        isa.decode(data)


@pytest.mark.parametrize("at", range(16, 32))
def test_reserved_words_must_be_zero(at):
    data = bytearray(Instruction(opcode=Opcode.HALT).encode())
    data[at] = 1
    with pytest.raises(IllegalInstruction, match="words 4 to 7 must be zero"):
        isa.decode(bytes(data))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"address": 2}, "address must be a multiple of 4"),
        ({"count": 0}, "count must not be zero"),
        ({"flags": 2}, "unknown flag"),
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
    isa.check(MATMUL, TINY)
    with pytest.raises(IllegalInstruction, match=what):
        isa.check(Instruction(**{**vars(MATMUL), **changes}), TINY)


@pytest.mark.parametrize("opcode", [Opcode.LOAD, Opcode.STORE])
def test_illegal_moves(opcode):
    place = "dst" if opcode is Opcode.LOAD else "src"
    isa.check(Instruction(opcode=opcode, column=1, count=24, **{place: 1000}), TINY)
    with pytest.raises(IllegalInstruction, match="past word"):
        isa.check(Instruction(opcode=opcode, column=1, count=25, **{place: 1000}), TINY)
    with pytest.raises(IllegalInstruction, match="column must be below 2"):
        isa.check(Instruction(opcode=opcode, column=2, count=1), TINY)


def test_sizes_by_hand():
    assert isa.block_words(768, SIM) == 1 + 24
    assert isa.block_words(33, SIM) == 1 + 2
    assert isa.tile_slices(768, 0, SIM) == 769
    assert isa.tile_slices(768, Flag.BIAS, SIM) == 773
    wide = SIM.replace(rows=16, bus_bytes=64, burst_beats=64)
    matmul = Instruction(opcode=Opcode.MATMUL, column=1, count=3, k=10)
    assert isa.stream_beats(matmul, wide) == 9  # 33 slices, four a beat


def test_program_slots():
    program = [MATMUL, Instruction(opcode=Opcode.HALT)]
    assert len(isa.encode_program(program, TINY)) == 64
    text = isa.encode_program(program, SIM)
    assert len(text) == 128 and isa.decode(text[64:]).opcode is Opcode.HALT
    assert str(MATMUL).startswith("MATMUL flags=1 column=2 shift=-3 address=0x1000")


def test_values_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"LOAD: count is 65536, must be 0\.\.65535"):
        Instruction(opcode=Opcode.LOAD, count=65536).encode()
