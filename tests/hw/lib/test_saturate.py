"""Saturation, for all 8-bit values and all widths."""

import pytest
from amaranth.hdl import Module, Signal, signed, unsigned
from amaranth.sim import Simulator

from golden import arith
from hw.lib.saturate import limit, saturate


@pytest.mark.parametrize("bits", range(1, 11))
def test_every_value(bits):
    m = Module()
    value = Signal(signed(8))
    y = Signal(signed(12))
    m.d.comb += y.eq(saturate(value, bits))
    found = []

    async def bench(ctx):
        for n in range(-128, 128):
            ctx.set(value, n)
            found.append(ctx.get(y))

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    assert found == [int(arith.saturate(n, bits)) for n in range(-128, 128)]
    assert len(saturate(value, bits)) == min(8, bits)


@pytest.mark.parametrize("bits", [1, 2, 8, 32])
def test_limits(bits):
    m = Module()
    sign, y = Signal(), Signal(unsigned(bits))
    m.d.comb += y.eq(limit(sign, bits))
    found = []

    async def bench(ctx):
        for n in (0, 1):
            ctx.set(sign, n)
            found.append(ctx.get(y))

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    assert found == [(1 << bits - 1) - 1, 1 << bits - 1]
