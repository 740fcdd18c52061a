"""The multiplier of a lane: products, sums of two, and interpolation."""

import numpy as np
from hardware import simulate

from golden.arith import shift_round_half_even
from golden.vector import SINE_BITS, wrapped
from hw.vector.decoder import STEP_BITS
from hw.vector.lane.multiplier import LOW_BITS, SUM_BITS, VectorMultiplier

SEED = 211
ENDS = (0, 1, -1, (1 << 31) - 1, -(1 << 31), 1 << 15, 1 << 16, -(1 << 16), 65535)


def factor(rng, bits):
    value = int(rng.choice(ENDS)) if rng.random() < 0.3 else int(rng.integers(-(1 << 31), 1 << 31))
    return int(wrapped(np.int64(value), bits))


def test_totals_are_exact():
    """A step each cycle or less often, each of a random kind."""
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    dut = VectorMultiplier()
    counts = {"product": 0, "second": 0, "table": 0, "tie": 0, "kept": 0}

    async def bench(ctx):
        total = None
        kind, x, y, low = None, 0, 0, 0
        may_add = False
        for _ in range(1500):
            # The controls of the factors of the cycle before.
            before = kind, x, y, low
            ctx.set(dut.step, kind is not None)
            ctx.set(dut.second, int(kind == "second"))
            ctx.set(dut.table, int(kind == "table"))
            ctx.set(dut.low, low if kind == "table" else 0)
            kind = rng.choice(["product", "product", "table", "second", None])
            kind = "second" if may_add and rng.random() < 0.5 else kind
            low = 0
            if kind == "table":  # a step of 16 bits at most, of the way as far as to its end
                x, y = factor(rng, 16), int(rng.integers((1 << STEP_BITS) + 1))
                if rng.random() < 0.3:
                    y = 1 << STEP_BITS - 1
                low = int(rng.integers(-(1 << LOW_BITS - 1), 1 << LOW_BITS - 1))
            else:
                x, y = factor(rng, 32), factor(rng, 32)
            if kind == "second" and not may_add:
                kind = "product"
            if rng.random() < 0.5 and kind in ("product", "second"):
                y = factor(rng, SINE_BITS)
            may_add = kind == "product" and abs(x * y) < 1 << SUM_BITS - 1
            ctx.set(dut.x, x)
            ctx.set(dut.y, y)
            await ctx.tick()
            kind_before, x_before, y_before, low_before = before
            product = x_before * y_before
            found = ctx.get(dut.total)
            if kind_before == "table":
                rounded = int(shift_round_half_even(np.int64(product), STEP_BITS))
                assert found >> STEP_BITS == low_before + rounded, before
                counts["tie"] += product % (1 << STEP_BITS) == 1 << STEP_BITS - 1
                total = found
            elif kind_before == "second":
                total += product
            elif kind_before == "product":
                total = product
            counts[kind_before or "kept"] += 1
            assert total is None or found == total, before

    simulate(dut, bench, limit=2000)
    print(counts)
    assert all(n > 5 for n in counts.values())
