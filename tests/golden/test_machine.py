"""The golden machine against plain integer arithmetic."""

from fractions import Fraction

import numpy as np
import pytest

from golden import isa
from golden.config import CONFIGS
from golden.format import INTEGERS, is_valid
from golden.isa import ErrorCode, Flag, Instruction, Opcode
from golden.machine import GoldenMachine, run
from golden.stream import pack_tiles, unpack_tiles

SEED = 7
TINY = CONFIGS["tiny"]
VALID = np.flatnonzero(is_valid(np.arange(256, dtype=np.uint8))).astype(np.uint8)


def random_codes(random, shape, span=16):
    allowed = [c for c in VALID if c == 0 or (c >> 3 & 15) >= 16 - span]
    return random.choice(np.array(allowed, np.uint8), shape)


def put(memory, address, data):
    raw = np.frombuffer(bytes(data), np.uint8)
    memory[address : address + raw.size] = raw


def block(x, exponent, config):
    words = np.zeros((isa.block_words(len(x), config), config.bus_bytes), np.uint8)
    words[0, 0] = np.int8(exponent).view(np.uint8)
    data = np.asarray(x, "<i2" if config.act_bits == 16 else "i1").tobytes()
    words[1:].reshape(-1)[: len(data)] = np.frombuffer(data, np.uint8)
    return words.tobytes()


@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(
    "changes",
    [{}, {"span": 8}, {"act_bits": 8}, {"rows": 4, "bus_bytes": 16}, {"cols": 3, "span": 12}],
)
def test_matrix_product_against_rationals(changes, with_bias, engine):
    config = TINY.replace(**changes)
    random = np.random.default_rng(SEED)
    n, k = 11, 23
    codes = random_codes(random, (n, k), config.span)
    exponents = random.integers(-20, -8, n).astype(np.int8)
    bias = random.integers(-(2**20), 2**20, n) if with_bias else None
    half = 1 << config.act_bits - 1
    xs = random.integers(-half, half, (config.cols, k))
    powers = [-9, -12, -3][: config.cols]
    shift = config.result_shift

    memory = np.zeros(1 << 16, np.uint8)
    stream = pack_tiles(codes, exponents, bias, config)
    put(memory, 0x8000, stream)
    tiles = -(-n // config.rows)
    words = isa.block_words(k, config)
    out_words = tiles * config.rows // config.results_per_word
    program = []
    for column, (x, power) in enumerate(zip(xs, powers, strict=True)):
        put(memory, 0x1000 + column * 0x400, block(x, power, config))
        program.append(
            Instruction(opcode=Opcode.LOAD, column=column, address=0x1000 + column * 0x400,
                        count=words, dst=3)
        )  # fmt: skip
    product = Instruction(
        opcode=Opcode.MATMUL, flags=int(with_bias), column=config.cols, shift=shift,
        address=0x8000, count=tiles, k=k, src=3, dst=words + 3,
    )  # fmt: skip
    program.append(product)
    for column in range(config.cols):
        program.append(
            Instruction(opcode=Opcode.STORE, column=column, address=0x4000 + column * 0x400,
                        count=out_words, src=words + 3)
        )  # fmt: skip
    program.append(Instruction(opcode=Opcode.HALT))
    put(memory, 0, isa.encode_program(program, config))
    result = GoldenMachine(memory, config, engine).run(0)

    assert result.error is ErrorCode.NONE and result.counters["instructions"] == len(program)
    assert result.counters["read_weights"] * config.bus_bytes == stream.size
    for column in range(config.cols):
        found = memory[0x4000 + column * 0x400 :][: 4 * n].view("<i4")
        for row in range(n):
            weights = [int(INTEGERS[c]) for c in codes[row]]
            dot = sum(w * int(x) for w, x in zip(weights, xs[column], strict=True))
            # Q16 value of dot * 2**(b - 4 + activation exponent)
            scale = int(exponents[row]) - 4 + powers[column] + 16
            exact = round(dot * Fraction(2) ** scale) + (0 if bias is None else int(bias[row]))
            assert found[row] == max(-(2**31), min(2**31 - 1, exact))


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("n", [1, 3, 4, 5, 8, 17])
def test_tiles_round_trip(n, with_bias):
    random = np.random.default_rng(SEED)
    k = 9
    codes = random_codes(random, (n, k))
    exponents = random.integers(-128, 128, n).astype(np.int8)
    bias = random.integers(-(2**31), 2**31, n) if with_bias else None
    stream = pack_tiles(codes, exponents, bias, TINY)
    tiles = -(-n // TINY.rows)
    instruction = Instruction(opcode=Opcode.MATMUL, flags=int(with_bias), count=tiles, k=k)
    back = unpack_tiles(stream, instruction, TINY)
    assert (back.weights[:n] == INTEGERS[codes]).all() and (back.weights[n:] == 0).all()
    assert (back.exponents[:n] == exponents).all()
    assert (back.bias[:n] == (0 if bias is None else bias)).all()


HALT = Instruction(opcode=Opcode.HALT)


def ends(instructions, memory=None):
    memory = np.zeros(4096, np.uint8) if memory is None else memory
    put(memory, 0, isa.encode_program(instructions, TINY))
    result = run(memory, 0, TINY)
    return result.error, result.error_address


def test_errors_name_code_and_address():
    load = Instruction(opcode=Opcode.LOAD, address=4000, count=100)
    store = Instruction(opcode=Opcode.STORE, address=4092, count=2)
    product = Instruction(opcode=Opcode.MATMUL, column=1, address=1024, count=1, k=4, dst=8)
    illegal = Instruction(opcode=Opcode.LOAD, address=3, count=1)
    assert ends([HALT]) == (ErrorCode.NONE, 0)
    assert ends([load, HALT]) == (ErrorCode.BUS_READ, 0)
    assert ends([product, store, HALT]) == (ErrorCode.BUS_WRITE, 32)
    assert ends([illegal]) == (ErrorCode.ILLEGAL_INSTRUCTION, 0)
    assert ends([product]) == (ErrorCode.ILLEGAL_INSTRUCTION, 32)  # zeros follow
    memory = np.zeros(4096, np.uint8)
    memory[1024 + 4 + 5] = 0x80
    assert ends([product, HALT], memory) == (ErrorCode.INVALID_WEIGHT, 0)
    assert run(np.zeros(16, np.uint8), 0, TINY).error is ErrorCode.BUS_READ


def test_codes_below_the_span_are_invalid():
    config = TINY.replace(span=8)
    memory = np.zeros(4096, np.uint8)
    product = Instruction(opcode=Opcode.MATMUL, column=1, address=1024, count=1, k=1, dst=8)
    put(memory, 0, isa.encode_program([product, HALT], config))
    memory[1024 + 4] = 8 << 3
    assert run(memory, 0, config).error is ErrorCode.NONE
    memory[1024 + 4] = 7 << 3
    assert run(memory, 0, config).error is ErrorCode.INVALID_WEIGHT


def test_kept_weights_are_only_those_of_constant_memory():
    memory = np.zeros(4096, np.uint8)
    product = Instruction(
        opcode=Opcode.MATMUL, column=1, shift=8, address=1024, count=1, k=1, dst=5
    )
    store = Instruction(opcode=Opcode.STORE, address=2048, count=4, src=5)
    load = Instruction(opcode=Opcode.LOAD, address=3072, count=2)
    put(memory, 0, isa.encode_program([load, product, store, HALT], TINY))
    put(memory, 3072, block([1], 0, TINY))
    machine = GoldenMachine(memory, TINY)
    machine.run(0)
    assert memory[2048:2052].view("<i4")[0] == 0
    memory[1028] = 1 << 3  # W = 32 from now on
    machine.run(0)
    assert memory[2048:2052].view("<i4")[0] == 32 << 8


# Positions: bytes and addresses worked out by hand.

WIDE = TINY.replace(bus_bytes=16)
"""16 bytes a beat: four elements, or a byte of each of 16 positions."""


def machine_with(*instructions):
    """A machine with a program at 0 and nothing else."""
    memory = np.zeros(0x2000, np.uint8)
    put(memory, 0, isa.encode_program([*instructions, HALT], WIDE))
    return GoldenMachine(memory, WIDE)


def lane(flags, **fields):
    return Instruction(opcode=Opcode.LOAD, flags=flags, shift=4, **fields)


def test_load_of_a_lane():
    load = lane(Flag.TOKEN, column=1, address=0x1000, count=7, k=7, immediate=50, dst=3)
    machine = machine_with(load)
    # Token 37 is lane 5 of the third group of seven beats: from 0x1000 + 2 * 7 * 16 on.
    codes = [0x00, 0x08, 0x88, 0x7E, 0x80, 0x0F]  # 0, 16 << 1, its negative, 30 << 15, two invalid
    for beat, byte in enumerate([0xFD, *codes]):
        machine.memory[0x10E0 + 16 * beat + 5] = byte
    machine.scratch[1] = 0xAA
    assert machine.run(0, tokens=[99, 37]).error is ErrorCode.NONE
    words = machine.scratch[1].view("<i4")
    assert words[3].tolist() == [-3, 0, 0, 0]
    assert words[4].tolist() == [0, 32, -32, 30 << 15]
    assert words[5].tolist() == [0, 0, 0, 0]  # two invalid codes, and nothing more
    assert (machine.scratch[1, [2, 6]] == 0xAA).all() and not machine.scratch[0].any()


def test_a_narrow_span_does_not_change_what_is_loaded():
    machine = machine_with(lane(Flag.INDEX, count=2, address=0x1000, immediate=1))
    machine.config = WIDE.replace(span=8)
    machine.memory[0x1010] = 0x09  # below the span: no weight, but a number
    assert machine.run(0).error is ErrorCode.NONE
    assert machine.scratch[0].view("<i4")[1].tolist() == [17 << 1, 0, 0, 0]


def test_load_at_a_position():
    machine = machine_with(lane(Flag.INDEX, column=1, address=0x1000, count=1, k=3, immediate=40))
    machine.memory[0x1000 + 16 * 3 + 4] = 77  # position 19, column 1: the second group, lane 4
    assert machine.run(0, position=19).error is ErrorCode.NONE
    assert machine.scratch[1, 0].view("<i4").tolist() == [77, 0, 0, 0]
    assert machine.run(0, position=38).error is ErrorCode.NONE
    assert machine.run(0, position=39).error is ErrorCode.POSITION


@pytest.mark.parametrize(
    ("shift", "address", "columns", "data"),
    [
        # Position 21, column 1: all of each beat, 22 groups of two beats on.
        (0, 0x1000 + 22 * 2 * 16, slice(0, 16), None),
        # A group of 4 positions, lane 2: elements.
        (2, 0x1000 + 5 * 2 * 16, slice(8, 12), [0, 4, 5, 6, 7, 8]),
        # A group of 16 positions, lane 6: bytes.
        (4, 0x1000 + 1 * 2 * 16, slice(6, 7), [0, 4, 5, 6, 7, 8]),
    ],
)
def test_store_at_a_position(shift, address, columns, data):
    store = Instruction(
        opcode=Opcode.STORE, flags=Flag.INDEX, column=1, shift=shift, address=0x1000, count=6, k=2,
        src=1, immediate=23,
    )  # fmt: skip
    machine = machine_with(store)
    machine.memory[0x1000:] = 0xEE
    elements = np.arange(0x01020300, 0x01020300 + 24, dtype="<i4")
    machine.scratch[1, 1:7] = elements.view(np.uint8).reshape(6, 16)
    before = machine.memory.copy()
    result = machine.run(0, position=21)
    assert (result.error, result.counters["written"]) == (ErrorCode.NONE, 6)
    beats = machine.memory[address : address + 6 * 16].reshape(6, 16)
    if data is None:
        assert (beats == machine.scratch[1, 1:7]).all()
    else:  # element 0 of the first word, then all of the second and one of the third
        width = columns.stop - columns.start
        assert (beats[:, columns] == elements[data].view(np.uint8).reshape(6, 4)[:, :width]).all()
        beats[:, columns] = 0xEE
        assert (machine.memory == before).all()
    assert machine.run(0, position=22).error is ErrorCode.POSITION


def test_load_of_as_many_as_there_are():
    load = Instruction(
        opcode=Opcode.LOAD, flags=Flag.LENGTH, column=1, address=0x1000, count=3, dst=2
    )
    machine = machine_with(load)
    machine.memory[0x1000:0x1030] = 7
    # Column 1 of position 3 has seen 5 tokens, which are two words.
    assert machine.run(0, position=3).error is ErrorCode.NONE
    assert (machine.scratch[1, 2:4] == 7).all() and not machine.scratch[1, 4].any()
    assert machine.run(0, position=10).error is ErrorCode.NONE
    assert (machine.scratch[1, 2:5] == 7).all()
    assert machine.run(0, position=11).error is ErrorCode.POSITION


@pytest.mark.parametrize(
    ("flags", "cut"),
    [
        (Flag.LENGTH, {"count": 2}),  # 5 rows: two tiles of four
        (Flag.LENGTH_K, {"k": 5}),
        (Flag.LENGTH | Flag.LENGTH_K, {"count": 2, "k": 5}),
    ],
)
def test_matmul_of_as_many_as_there_are(flags, cut):
    """It is a smaller MATMUL, to the last beat that is read."""
    random = np.random.default_rng(SEED)
    fields = {"column": 2, "address": 0x1000, "count": 3, "k": 9, "src": 0, "dst": 8, "shift": 9}
    room = Instruction(opcode=Opcode.MATMUL, flags=flags, **fields)
    small = Instruction(opcode=Opcode.MATMUL, **{**fields, **cut})
    machines = [machine_with(room), machine_with(small)]
    stream = random_codes(random, 0x200)
    scratch = random.integers(0, 4, machines[0].scratch.shape)
    for machine in machines:
        machine.memory[0x1000:0x1200] = stream
        machine.scratch[:] = scratch
    results = [machine.run(0, position=3) for machine in machines]  # 5 with the second column
    assert results[0] == results[1] and results[0].error is ErrorCode.NONE
    assert (machines[0].scratch == machines[1].scratch).all()
    last = 7 if flags & Flag.LENGTH_K else 10  # that leaves room: 9 for k, 12 rows
    assert machines[0].run(0, position=last).error is ErrorCode.NONE
    result = machines[0].run(0, position=last + 1)
    assert (result.error, result.error_address) == (ErrorCode.POSITION, 0)


def test_length_of_a_vector():
    vector = Instruction(
        opcode=Opcode.VECTOR, flags=Flag.LENGTH, column=2, count=6, k=32, segments=1, dst=8
    )
    machine = machine_with(vector)
    assert machine.run(0, position=4).error is ErrorCode.NONE
    assert machine.run(0, position=5).error is ErrorCode.POSITION


def test_what_is_illegal_is_not_too_far():
    load = Instruction(opcode=Opcode.LOAD, flags=Flag.LENGTH, address=1, count=1)
    machine = machine_with(load)
    assert machine.run(0, position=1000).error is ErrorCode.ILLEGAL_INSTRUCTION


def test_the_index_may_lead_out_of_the_memory():
    load = lane(Flag.INDEX, address=0x1000, count=1, k=0xFFFF, immediate=0x7FFFFFFF)
    machine = machine_with(load)
    assert machine.run(0, position=(1 << 24) - 1).error is ErrorCode.BUS_READ
    assert machine.run(0, position=3).error is ErrorCode.NONE


def test_what_the_machine_cannot_have_is_refused():
    memory = np.zeros(1 << 12, np.uint8)
    with pytest.raises(ValueError, match="engine is 'cuda', must be numpy or torch"):
        GoldenMachine(memory, CONFIGS["tiny"], engine="cuda")
    machine = GoldenMachine(memory, CONFIGS["tiny"])
    with pytest.raises(ValueError, match="3 tokens, the machine has 2 columns"):
        machine.run(0, tokens=[1, 2, 3])
