"""Sum, peak and top of segments, against NumPy."""

import numpy as np
import pytest
from hardware import simulate

from golden.config import get_config
from golden.vector import SUM_BITS, wrapped
from hw.vector.reduce import VectorReduce, reduce_latency

SEED = 181
CONFIGS = {
    "one": get_config("tiny").replace(scratch_words=16),
    "four": get_config("ecp5").replace(scratch_words=16),
    "sixteen": get_config("sim").replace(scratch_words=16),
}


def random_segment(rng, lanes):
    """Results [words, lanes], and which of them count: all up to a place, or a window."""
    words = int(rng.integers(1, 7))
    width = int(rng.choice([2, 3, 31, 32, 56]))
    y = rng.integers(-(1 << width - 1), 1 << width - 1, (words, lanes))
    y = np.where(rng.random(y.shape) < 0.2, rng.choice([-1 << 31, (1 << 31) - 1, 0]), y)
    if rng.random() < 0.3:
        y[:] = rng.choice([-5, -1 << 31, 0])
    places, end = np.arange(words * lanes), int(rng.integers(1, words * lanes + 1))
    begin = rng.integers(end) if rng.random() < 0.4 else 0
    seen = ((begin <= places) & (places < end)).reshape(y.shape)
    return np.where(seen, y, 0), seen


@pytest.mark.parametrize("name", CONFIGS)
def test_sums_are_those_of_the_segment(name):
    print("seed", SEED)
    config, rng = CONFIGS[name], np.random.default_rng(SEED)
    dut = VectorReduce(config)
    lanes, late = config.results_per_word, reduce_latency(config)
    sidebands, ends, firsts = {}, {}, set()
    at = 2
    for number in range(70):
        y, seen = random_segment(rng, lanes)
        for index, (row, mask) in enumerate(zip(y.tolist(), seen, strict=True)):
            sideband = {"valid": 1, "first": int(index == 0), "last": int(index == len(y) - 1)}
            sidebands[at] = (
                sideband | {"index": index, "mask": int(mask @ (1 << np.arange(lanes)))},
                row,
            )
            if index == 0:
                firsts.add(at + late)
            last, at = at, at + 1 + int(rng.choice([0, 0, 3]) if number % 2 else 0)
        low = wrapped(y, 32)
        masked = np.where(seen, low, -1 << 32).reshape(-1)
        ends[last + late] = {
            "sum": int(wrapped(y.sum(), SUM_BITS)),
            "peak": int(np.abs(low).max()),
            "top": int(masked.max()),
            "where": int(masked.argmax()),
        }

    async def bench(ctx):
        known = None
        for cycle in range(at + late + 2):
            sideband, row = sidebands.get(cycle, (None, rng.integers(-9, 9, lanes).tolist()))
            if sideband is None:
                sideband = {name: int(rng.integers(2)) for name in ("first", "last", "mask")}
                sideband |= {"valid": 0, "index": 3}
            ctx.set(dut.sideband, {"step": 0, "second": 0, **sideband})
            for port, value in zip(dut.y, row, strict=True):
                ctx.set(port, value)
            assert ctx.get(dut.end) == (cycle in ends), cycle
            if cycle in firsts:
                known = None
            known = ends.get(cycle, known)
            if known:
                assert {name: ctx.get(getattr(dut, name)) for name in known} == known, cycle
            await ctx.tick()

    simulate(dut, bench, limit=2000)
