"""What hardware makes of positions and tokens, against `golden.positions.resolve`."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from golden import isa
from golden.config import CONFIGS
from golden.isa import FIELDS, Flag, Instruction, Opcode
from golden.positions import lengths, resolve
from hw.control.positions import Positions

TOP = (1 << 24) - 1
SEED = 11


def instructions(rng, config):
    """Legal instructions of all flags that look at positions, and plain ones; small capacities."""
    cols, by_byte = config.cols, isa.exact_log2(config.bus_bytes)
    lanes = {0, isa.exact_log2(config.results_per_word), by_byte}
    for _ in range(12):
        count, k = (int(rng.choice([1, 2, rng.integers(1, 100)])) for _ in range(2))
        index = {"immediate": int(rng.choice([1, 2, TOP, rng.integers(1, 1000)])), "k": k}
        address = int(rng.integers(1 << 12)) * config.bus_bytes
        for column in range(cols):
            for flags in (0, Flag.LENGTH, Flag.LENGTH_K, Flag.LENGTH | Flag.LENGTH_K):
                yield Instruction(
                    opcode=Opcode.MATMUL, flags=flags | Flag.BIAS, column=column + 1, count=count,
                    k=k, dst=config.scratch_words // 2,
                )  # fmt: skip
            for flags in (0, Flag.LENGTH):
                yield Instruction(
                    opcode=Opcode.VECTOR, flags=flags, column=column + 1, count=count, k=32,
                    segments=1,
                )  # fmt: skip
                yield Instruction(opcode=Opcode.LOAD, flags=flags, column=column, count=count)
            for flags in (Flag.INDEX, Flag.TOKEN):
                yield Instruction(
                    opcode=Opcode.LOAD, flags=flags, column=column, shift=by_byte, count=count,
                    address=address, **index,
                )  # fmt: skip
            for shift in lanes:
                yield Instruction(
                    opcode=Opcode.STORE, flags=Flag.INDEX, column=column, shift=shift, count=count,
                    address=address, **index,
                )  # fmt: skip
    yield Instruction(opcode=Opcode.FENCE)
    yield Instruction(opcode=Opcode.HALT)


def edges(i, config):
    """Positions around which an instruction begins to be far, the first and the last of all."""
    unit = {Opcode.MATMUL: config.rows, Opcode.LOAD: config.results_per_word}.get(i.opcode, 1)
    room = {i.count * unit, i.k, i.immediate}
    around = {n - i.column + d for n in room for d in (-2, -1, 0, 1)}
    return sorted({0, 1, TOP} | {p for p in around if 0 <= p <= TOP})


def cases(config):
    rng = np.random.default_rng(SEED)
    for i in instructions(rng, config):
        isa.check(i, config)
        for position in [*edges(i, config), *rng.integers(0, 1000, 2).tolist()]:
            near = i.immediate + rng.integers(-2, 2, config.cols)
            far = rng.integers(0, TOP + 1, config.cols)
            tokens = np.where(rng.random(config.cols) < 0.8, near, far).clip(0, TOP)
            yield i, position, tokens.tolist()


@pytest.mark.parametrize("name", CONFIGS)
def test_positions_are_those_of_the_definition(name):
    print("seed", SEED)
    config = CONFIGS[name]
    dut = Positions(config)
    counted = {"far": 0, "near": 0, "lanes": 0}

    async def bench(ctx):
        for i, position, tokens in cases(config):
            ctx.set(dut.operands, {field: int(getattr(i, field)) for field in FIELDS})
            ctx.set(dut.position, position)
            for port, token in zip(dut.tokens, tokens, strict=True):
                ctx.set(port, token)
            await ctx.tick().repeat(dut.latency)
            want = resolve(i, position, tokens, config)
            about = f"{i} at {position}, tokens {tokens}"
            assert ctx.get(dut.far) == want.far, about
            counted["far" if want.far else "near"] += 1
            if want.far:
                continue
            used = want.instruction
            assert (ctx.get(dut.count), ctx.get(dut.k)) == (used.count, used.k), about
            if i.flags & (Flag.INDEX | Flag.TOKEN):
                index = ctx.get(dut.index)
                assert (index, ctx.get(dut.lane)) == (want.index, want.lane), about
                assert i.address + index * i.k * config.bus_bytes == used.address, about
                counted["lanes"] += want.lane > 0

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    print(counted)
    assert all(n > 100 for n in counted.values())


def test_far_is_one_position_past_the_room():
    config = CONFIGS["ecp5"]
    rows, per_word = config.rows, config.results_per_word
    for i, room in (
        (Instruction(opcode=Opcode.MATMUL, flags=Flag.LENGTH, column=3, count=2, k=9), 2 * rows),
        (Instruction(opcode=Opcode.MATMUL, flags=Flag.LENGTH_K, column=3, count=2, k=9), 9),
        (Instruction(opcode=Opcode.VECTOR, flags=Flag.LENGTH, column=3, count=8), 8),
        (Instruction(opcode=Opcode.LOAD, flags=Flag.LENGTH, column=2, count=2), 2 * per_word),
        (Instruction(opcode=Opcode.STORE, flags=Flag.INDEX, column=2, count=2, immediate=7), 7),
    ):
        last = room - 3  # of three columns, or of the third
        assert not resolve(i, last, [0] * 4, config).far
        assert resolve(i, last + 1, [0] * 4, config).far
    token = Instruction(opcode=Opcode.LOAD, flags=Flag.TOKEN, column=1, immediate=7)
    assert not resolve(token, TOP, [9, 6, 9, 9], config).far
    assert resolve(token, 0, [0, 7, 0, 0], config).far


def test_each_column_of_a_vector_has_its_own_length():
    i = Instruction(opcode=Opcode.VECTOR, flags=Flag.LENGTH, column=3, count=40)
    assert lengths(i, 5).tolist() == [6, 7, 8]
    assert lengths(Instruction(opcode=Opcode.VECTOR, column=2, count=40), 5).tolist() == [40, 40]
