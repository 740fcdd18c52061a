"""Columns and segments, against two loops."""

import numpy as np
import pytest
from hardware import simulate

from golden.config import get_config
from golden.isa import SEGMENTS
from hw.vector.segment_counter import SegmentCounter

SEED = 161


@pytest.mark.parametrize("cols", [1, 3, 16])
def test_segments_within_columns(cols):
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    dut = SegmentCounter(get_config("tiny").replace(cols=cols))
    shapes = [(1, 1), (cols, 1), (1, SEGMENTS), (cols, 3), (max(1, cols - 1), 2), (cols, 16)]

    async def bench(ctx):
        for columns, segments in shapes:
            ctx.set(dut.columns, columns)
            ctx.set(dut.segments, segments)
            ctx.set(dut.start, 1)
            ctx.set(dut.step, int(rng.integers(2)))
            await ctx.tick()
            ctx.set(dut.start, 0)
            for column in range(columns):
                for segment in range(segments):
                    if (column, segment) == (0, 0):  # what follows from the instruction is late
                        ctx.set(dut.step, 0)
                        await ctx.tick()
                    while True:
                        step = int(rng.random() < 0.6)
                        ctx.set(dut.step, step)
                        assert ctx.get(dut.column) == column
                        assert ctx.get(dut.segment) == segment
                        assert ctx.get(dut.turn) == (segment == segments - 1)
                        last = (column, segment) == (columns - 1, segments - 1)
                        assert ctx.get(dut.end) == last
                        if step and last:
                            break
                        await ctx.tick()
                        if step:
                            break

    simulate(dut, bench, limit=5000)
