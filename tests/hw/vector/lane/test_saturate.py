"""The end of a lane: sums and their saturation, to every number of bits."""

import numpy as np
from hardware import simulate
from vector_control import control_of

from golden.arith import GUARD_BITS, saturate
from golden.config import get_config
from golden.isa import Function, Instruction, Opcode
from golden.vector import SUM_BITS, wrapped
from hw.vector.lane.saturate import VectorSaturate

SEED = 201
CONFIG = get_config("tiny")
GUARD, RESULT = 1 << GUARD_BITS - 1, 1 << 31


def cases(rng, k, count):
    """Values of the shifter and what is added, about the bounds of ``k`` bits; a row for each."""
    bound = 1 << k - 1
    target = rng.choice([bound, -bound], count) + rng.integers(-2, 3, count)
    added = rng.choice([0, 0, 1, -1, RESULT - 1, -RESULT, RESULT], count)
    whole = np.where(rng.random(count) < 0.6, target - added, rng.integers(-GUARD, GUARD, count))
    whole = np.where(rng.random(count) < 0.1, rng.choice([GUARD - 1, -GUARD, 0], count), whole)
    whole = whole.clip(-GUARD, GUARD - 1)
    bits = rng.integers(2, size=(count, 5)) & (rng.random((count, 5)) < [1, 0.3, 1, 0.3, 0.9])
    high = rng.integers(1 << 24, size=count)
    return np.column_stack([whole, added, bits, high]).tolist()


def total_of(whole, added, up, negate):
    return added - (whole + up) if negate else whole + added + up


def expected(function, k, whole, added, up, over, minus, negate, keep, high):
    if not keep:
        return 0
    total = total_of(whole, added, up, negate)
    if function is Function.SQUARE:
        return int(wrapped(np.int64(high << 32 | total & (1 << 32) - 1), SUM_BITS))
    if function is Function.ANGLE:
        return int(wrapped(np.int64(total), 32))
    if over:
        return -(1 << k - 1) if minus else (1 << k - 1) - 1
    return int(saturate(np.int64(total), k))


def leaves(function, k, whole, added, up, over, minus, negate, keep, high):
    """Whether y counts as saturated to 32 bits."""
    if k < 32 or not keep or function in (Function.SQUARE, Function.ANGLE):
        return 0
    total = total_of(whole, added, up, negate)
    return int(over or total != saturate(np.int64(total), 32))


def test_every_bound():
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    dut = VectorSaturate()
    kinds = [(Function.SHIFT, k) for k in range(2, 33)]
    kinds += [(function, 32) for function in (Function.SQUARE, Function.ANGLE, Function.ROTATE)]

    async def bench(ctx):
        for function, k in kinds:
            i = Instruction(opcode=Opcode.VECTOR, function=function, k=k)
            ctx.set(dut.control, control_of(i, CONFIG))
            rows = cases(rng, k, 60)
            found = []
            for n in range(len(rows) + dut.latency):
                whole, added, up, over, minus, negate, _, _ = rows[min(n, len(rows) - 1)]
                over = 0 if function in (Function.SQUARE, Function.ANGLE) else over
                for name, value in (("whole", whole), ("added", added), ("up", up)):
                    ctx.set(getattr(dut, name), value)
                ctx.set(dut.over, over)
                ctx.set(dut.negate, negate)
                ctx.set(dut.minus, minus)
                if n:  # a cycle later
                    *_, keep, high = rows[min(n - 1, len(rows) - 1)]
                    ctx.set(dut.keep, keep)
                    ctx.set(dut.high, high)
                if n >= dut.latency:
                    found.append((ctx.get(dut.y), ctx.get(dut.saturated)))
                await ctx.tick()
            for row, (y, saturated) in zip(rows, found, strict=True):
                assert y == expected(function, k, *row), (function, k, row)
                assert saturated == leaves(function, k, *row), (function, k, row)

    simulate(dut, bench, limit=5000)
