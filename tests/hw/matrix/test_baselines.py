"""Lanes of other formats in the array: exact dot products, every code among the weights."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from golden.baselines import INTEGERS
from hw.matrix.baselines import kind_of
from sim.benches.aligned import Aligned

VARIANTS = [
    ("int8", 8, {"style": "booth"}),
    ("int8", 8, {"style": "rows"}),
    ("int8", 8, {"style": "multiply"}),
    ("int8", 16, {"style": "booth"}),
    ("e4m3", 8, {"align": 2}),
    ("e5m2", 8, {"align": 3}),
    ("pot", 8, {"align": 2}),
    ("apot2", 8, {"align": 4}),
]


@pytest.mark.parametrize(("name", "act_bits", "choice"), VARIANTS)
def test_dot_products_are_exact(name, act_bits, choice):
    array = Aligned(kind=kind_of(name, rows=2, cols=1, act_bits=act_bits, max_k=512, **choice))
    simulator = Simulator(array)
    simulator.add_clock(1e-6)
    rng = np.random.default_rng(3)
    low = -(1 << act_bits - 1)
    expected, found = [], []

    async def feed(ctx):
        ctx.set(array.active, 1)
        for k in (256, 256, 30, 2, 1):
            codes = np.stack([rng.permutation(256)[:k] for _ in range(2)], axis=1)
            x = np.where(rng.random(k) < 0.2, low, rng.integers(low, -low, k))
            ctx.set(array.feed.valid, 0)
            await ctx.tick()
            for n in range(k):
                while ctx.get(array.feed.hold) or (n == k - 1 and ctx.get(array.feed.busy)):
                    ctx.set(array.feed.valid, 0)
                    await ctx.tick()
                ctx.set(array.feed.valid, 1)
                ctx.set(array.feed.last, n == k - 1)
                ctx.set(array.feed.x[0], int(x[n]))
                for row in range(2):
                    ctx.set(array.slice.bytes[row], int(codes[n, row]))
                await ctx.tick()
            ctx.set(array.feed.valid, 0)
            expected.extend((INTEGERS[name][codes].T @ x).tolist())
        for _ in range(80):
            await ctx.tick()

    async def watch(ctx):
        async for _, _, valid, dot in ctx.tick().sample(array.results.valid, array.results.dot[0]):
            if valid:
                found.append(dot)

    simulator.add_testbench(feed)
    simulator.add_testbench(watch, background=True)
    simulator.run()
    assert found == expected
