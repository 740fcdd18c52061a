"""Quotients, roots and inverses, against `golden.layers`."""

import numpy as np
from hardware import simulate, word_of

from golden import layers
from golden.arith import saturate
from golden.isa import After, Opcode
from golden.vector import EPSILON_BITS, SUM_BITS
from hw.vector.scalar.divider import ScalarDivider

SEED = 251
MOST = (1 << SUM_BITS - 1) - 1
CYCLES = {After.MEAN: 60, After.ROOT: 170, After.RECIPROCAL: 57}
"""From start to done, at most."""


def hard_sum(rng):
    ends = (0, 1, -1, MOST, -MOST - 1, (1 << 24) - 1, 1 << 24, (1 << 24) + 1, 1 << 54)
    if rng.random() < 0.2:
        return int(rng.choice(ends))
    return int(rng.integers(-MOST - 1, MOST + 1) >> rng.integers(0, SUM_BITS - 1))


def random_case(rng, after):
    """sum, count, amount, immediate"""
    count = int(rng.choice([1, 2, 3, 64, 65535, rng.integers(1, 65536)]))
    total = hard_sum(rng)
    if after is After.MEAN and rng.random() < 0.5:  # halves, and what lies beside them
        count = min(count + (count & 1), 65534)
        whole = int(rng.integers(-(1 << 32), 1 << 32) >> rng.integers(0, 33))
        if rng.random() < 0.4:  # rounded, the largest result or one too many
            whole = int(rng.choice([(1 << 31) - 1, (1 << 31) - 2, -(1 << 31), -(1 << 31) - 1]))
        total = whole * count + count // 2 + int(rng.integers(-1, 2))
    exponent, mantissa = int(rng.integers(-70, -10)), int(rng.integers(1 << EPSILON_BITS))
    if rng.random() < 0.3:
        mantissa = 0
    return total, count, int(rng.integers(-8, 9)), exponent << 24 | mantissa


def expected(after, total, count, amount, word):
    """Value, and what of the others counts."""
    if after is After.MEAN:
        quotient = layers.divide_round_half_even(np.int64(total), count)
        return {"value": int(saturate(quotient, 32))}
    positive = np.int64(max(0, total))
    if after is After.ROOT:
        mantissa = word & (1 << EPSILON_BITS) - 1
        args = np.array([count]), np.array([amount]), mantissa, word >> 24
        factor, power = layers.root_factor(positive[None], *args)
        return {"value": int(factor[0]), "dropped": int(power[0]) + 17}
    least = np.maximum(positive, np.int64(1) << np.int64(layers.EXP_FRAC))
    inverse, size = layers.reciprocal(least)
    return {"value": int(inverse), "size": int(size)}


def test_values_are_those_of_the_definition():
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    dut = ScalarDivider()
    longest = dict.fromkeys(CYCLES, 0)

    async def bench(ctx):
        for number in range(100):
            after = [After.MEAN, After.MEAN, After.RECIPROCAL, After.RECIPROCAL, After.ROOT][
                number % 5
            ]
            case = total, count, amount, word = random_case(rng, after)
            fields = {"opcode": Opcode.VECTOR, "after": after, "immediate": word}
            ctx.set(dut.operands.as_value(), word_of(fields))
            ctx.set(dut.amount, amount)
            ctx.set(dut.count, count)
            await ctx.tick()
            ctx.set(dut.sum, total)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            ctx.set(dut.sum, hard_sum(rng))
            cycles = 1
            while not ctx.get(dut.done):
                await ctx.tick()
                cycles += 1
            assert cycles <= CYCLES[after], (after, cycles)
            longest[after] = max(longest[after], cycles)
            value = ctx.get(dut.value)
            if ctx.get(dut.large):
                value = -(1 << 31) if ctx.get(dut.minus) else (1 << 31) - 1
            want = expected(after, *case)
            found = {"value": value, **{n: ctx.get(getattr(dut, n)) for n in [*want][1:]}}
            assert found == want, (after, case)
            await ctx.tick()
            assert not ctx.get(dut.done)

    simulate(dut, bench, limit=9000)
    assert longest == CYCLES
