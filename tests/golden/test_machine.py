"""The golden machine against plain integer arithmetic."""

from fractions import Fraction

import numpy as np
import pytest

from golden import isa
from golden.config import CONFIGS
from golden.isa import ErrorCode, Instruction, Opcode
from golden.machine import Machine, pack_tiles, run, unpack_tiles
from golden.rf8 import INTEGERS, is_valid

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
    result = Machine(memory, config, engine).run(0)

    assert result.error is ErrorCode.NONE and result.instructions == len(program)
    assert result.read_weights * config.bus_bytes == stream.size
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
    machine = Machine(memory, TINY)
    machine.run(0)
    assert memory[2048:2052].view("<i4")[0] == 0
    memory[1028] = 1 << 3  # W = 32 from now on
    machine.run(0)
    assert memory[2048:2052].view("<i4")[0] == 32 << 8
