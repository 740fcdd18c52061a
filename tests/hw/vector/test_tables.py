"""Tables of the vector unit, read by more ports than share a memory."""

import numpy as np
from amaranth.sim import Simulator

from golden.isa import Function
from hw.vector.decoder import CURVES, TABLES
from hw.vector.tables import INDEX_BITS, LATENCY, READERS, SHORT_BITS, VectorTables

PORTS = READERS + 3
READS = 300
SHORT = (Function.EXP2, Function.TANH)


def test_every_port_reads_the_tables():
    rng = np.random.default_rng(5)
    dut = VectorTables(PORTS)
    rows = rng.integers(0, 1 << INDEX_BITS, size=(READS, PORTS))
    picks = rng.integers(0, len(CURVES) + 1, size=(READS, PORTS))
    rows[picks == len(CURVES)] %= 2 << SHORT_BITS  # EXP2 and TANH, the first of the short ones
    seen = []

    async def bench(ctx):
        for cycle in range(READS + LATENCY):
            for port in range(PORTS):
                if cycle < READS:
                    ctx.set(
                        dut.address[port], int(rows[cycle, port] | picks[cycle, port] << INDEX_BITS)
                    )
            if cycle >= LATENCY:
                seen.append(
                    [(ctx.get(e), ctx.get(x)) for e, x in zip(dut.entry, dut.extra, strict=True)]
                )
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()

    for row, pick, found in zip(rows, picks, seen, strict=True):
        for at, table, (entry, extra) in zip(row, pick, found, strict=True):
            short = table == len(CURVES)
            function = CURVES[table] if not short else SHORT[at >> SHORT_BITS]
            at = at % (1 << SHORT_BITS) if short else at
            values = TABLES[function].values.tolist()
            value, step = entry.low, entry.step
            if short:  # the entry has the low bits, without a sign
                value = value % (1 << 18) | extra.low << 18
                step = step % (1 << 9) | extra.step << 9
                assert function is Function.EXP2 or value <= 1 << 16
            assert (value, step) == (values[at], values[at + 1] - values[at])
