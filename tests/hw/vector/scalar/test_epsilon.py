"""Epsilon in units of the mean square, for mantissas and powers of all sizes."""

import numpy as np
from hardware import simulate

from golden.arith import shift_round_half_even
from golden.config import RESULT_FRAC
from golden.vector import AMOUNT_MAX, EPSILON_BITS
from hw.vector.scalar.epsilon import LEFT_MOST, ScalarEpsilon

SEED = 241


def test_values_are_shifted_and_rounded():
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    dut = ScalarEpsilon()
    wanted = [*range(-40, 48), -200, 200]

    async def bench(ctx):
        for power in wanted:
            amount = int(rng.integers(-AMOUNT_MAX, AMOUNT_MAX + 1))
            exponent = power - 2 * (RESULT_FRAC + amount) - 6
            if not -128 <= exponent < 128:
                amount = 0 if abs(power) < 100 else int(np.sign(power)) * AMOUNT_MAX
                exponent = power - 2 * (RESULT_FRAC + amount) - 6
            power = 2 * (RESULT_FRAC + amount) + 6 + exponent
            mantissa = int(rng.integers(1 << EPSILON_BITS))
            if rng.random() < 0.6 and -EPSILON_BITS < power < 0:  # a tie, or one beside it
                mantissa = (mantissa >> -power << -power) + (1 << -power - 1)
                mantissa += int(rng.integers(-1, 2))
                mantissa = min(mantissa, (1 << EPSILON_BITS) - 1)
            ctx.set(dut.word, exponent << 24 | mantissa)
            ctx.set(dut.amount, amount)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            await ctx.tick().repeat(LEFT_MOST)
            if power >= 0:
                want = mantissa << min(power, LEFT_MOST)
            else:
                want = int(shift_round_half_even(np.int64(mantissa), min(-power, 62)))
            for _ in range(4):  # and there it stays
                found = ctx.get(dut.value) + ctx.get(dut.carry)
                assert found == want, (mantissa, exponent, amount)
                await ctx.tick()

    simulate(dut, bench, limit=5000)
