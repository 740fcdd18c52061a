"""The drain, against the schedule that its docstring promises."""

import numpy as np
import pytest
from hardware import simulate

from golden.config import get_config
from hw.matrix.drain import Drain

SEED = 101
TINY = get_config("tiny")
CONFIGS = {
    config.name: config
    for config in (
        TINY.replace(name="one_bin", align=4),
        TINY.replace(name="two_bins", align=3, span=12, rows=8, bus_bytes=8),
        TINY.replace(name="five_bins", align=1, span=10),
        TINY.replace(name="all_bins", align=0, span=16, rows=2),
    )
}


def schedule(capture, config, delay):
    """Cycles in which things happen to a tile that is complete in cycle ``capture``.

    Gives those of ``hold``, of ``take`` with the bin, and of each row and bin that is combined.
    """
    bins, rows = config.bins, config.rows
    first = capture if bins == 1 else capture + 4
    takes = {first + n * rows: bins - 1 - n for n in range(bins)}
    holds = [] if bins == 1 else [take - 2 for take in takes]
    combined = {
        take + delay + 1 + row: (row, bin) for take, bin in takes.items() for row in range(rows)
    }
    return holds, takes, combined


@pytest.mark.parametrize("delay", [0, 1])
@pytest.mark.parametrize("name", CONFIGS)
def test_bins_and_rows_leave_when_they_must(name, delay):
    print("seed", SEED)
    config, rng = CONFIGS[name], np.random.default_rng(SEED)
    dut = Drain(config, delay=delay)
    captures, holds, takes, combined = set(), set(), {}, {}
    at = 1
    for _ in range(8):
        at += int(rng.choice([0, 0, 1, 2, rng.integers(9)]))
        captures.add(at)
        held, taken, rows = schedule(at, config, delay)
        holds.update(held)
        takes |= taken
        combined |= rows
        at = max(rows) + 4  # the next tile's last slice waits for the last row

    async def bench(ctx):
        for cycle in range(at + 10):
            ctx.set(dut.capture, cycle in captures)
            assert ctx.get(dut.hold) == (cycle in holds), cycle
            if config.bins > 1:
                assert ctx.get(dut.next_hold) == (cycle + 1 in holds), cycle
                assert ctx.get(dut.steal) == (cycle - 1 in holds), cycle
            if config.bins > 1 and cycle + 1 in takes:
                assert ctx.get(dut.read_bin) == takes[cycle + 1], cycle
            assert ctx.get(dut.take) == (cycle in takes), cycle
            assert ctx.get(dut.out) == (cycle in combined), cycle
            row, bin = combined.get(cycle, (None, None))
            if row is not None:
                assert (ctx.get(dut.row), ctx.get(dut.bin)) == (row, bin), cycle
            assert ctx.get(dut.last) == ((row, bin) == (config.rows - 1, 0)), cycle
            following = combined.get(cycle + 1)
            assert ctx.get(dut.next_pick) == (1 << following[0] if following else 0), cycle
            if following:
                assert ctx.get(dut.next_bin) == following[1], cycle
            await ctx.tick()

    simulate(dut, bench, limit=3000)
    assert len(combined) == 8 * config.rows * config.bins
