"""The combiner: Horner's rule over random bins, of which some are void."""

import numpy as np
import pytest
from hardware import simulate

from golden.config import get_config
from hw.matrix.combine import Combiner

SEED = 111
TINY = get_config("tiny").replace(max_k=64)
CONFIGS = {
    config.name: config
    for config in (
        TINY,
        TINY.replace(name="one_bin", align=4),
        TINY.replace(name="one_bin_short", align=3, span=8, act_bits=8, cols=3),
        TINY.replace(name="two_bins", align=3, span=12, rows=8, bus_bytes=8, cols=1),
        TINY.replace(name="five_bins", align=1, span=10, act_bits=8),
        TINY.replace(name="eight_bins", align=0, span=8, rows=2, cols=4),
        TINY.replace(name="all_bins", align=0, span=16, rows=2),
    )
}


def signed(value, bits):
    value &= (1 << bits) - 1
    return value - (value >> (bits - 1) << bits)


@pytest.mark.parametrize("name", CONFIGS)
def test_sums_come_from_the_highest_bin_down(name):
    """Rows come in any order, but none twice in a row, with pauses in ``enable``."""
    print("seed", SEED)
    config, rng = CONFIGS[name], np.random.default_rng(SEED)
    dut = Combiner(config)
    # A bin may hold the largest value only if the sum of all bins still fits.
    bound = 1 << (config.bin_bits - 2)
    due = {}  # cycle -> what the sum must be
    compared = 0

    async def bench(ctx):
        nonlocal compared
        cycle = 0

        async def tick():
            nonlocal cycle, compared
            if cycle in due:
                assert ctx.get(dut.sum) == due.pop(cycle), cycle
                compared += 1
            await ctx.tick()
            cycle += 1

        before = None
        for _ in range(20):
            totals = [0] * config.rows
            for index in reversed(range(config.bins)):
                order = rng.permutation(config.rows).tolist()
                if order[0] == before:
                    order.reverse()
                before = order[-1]
                for row in order:
                    bins = rng.integers(-bound, bound, config.rows).tolist()
                    for port, value in zip(dut.bins, bins, strict=True):
                        ctx.set(port, value)
                    while rng.random() < 0.2:
                        ctx.set(dut.enable, 0)
                        await tick()
                    live = bool(rng.random() < 0.7)
                    shifted = totals[row] << (1 << config.align)
                    totals[row] = shifted + (bins[row] if live else 0)
                    ctx.set(dut.row, row)
                    ctx.set(dut.pick, int(live) << row)
                    ctx.set(dut.top, index == config.bins - 1)
                    ctx.set(dut.enable, 1)
                    due[cycle + dut.latency] = signed(totals[row], config.acc_bits)
                    await tick()
        ctx.set(dut.enable, 0)
        for _ in range(dut.latency + 1):
            await tick()

    simulate(dut, bench, limit=5000)
    assert compared == 20 * config.rows * config.bins
