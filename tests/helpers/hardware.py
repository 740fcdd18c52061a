"""Runs components of `hw` in Amaranth's own simulator."""

from amaranth.sim import Simulator

from golden.isa import FIELDS


def simulate(dut, *benches, limit):
    """Run ``benches``, each a coroutine function of the simulator's context, to their ends.

    Raises
    ------
    AssertionError
        After ``limit`` cycles: something that should have come has not.
    """
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)

    async def stop(ctx):
        for _ in range(limit):
            await ctx.tick()
        raise AssertionError(f"not done after {limit} cycles")

    for bench in benches:
        simulator.add_testbench(bench)
    simulator.add_testbench(stop, background=True)
    simulator.run()


def word_of(fields):
    """An instruction as an integer; ``fields`` are values by name, which need not be legal."""
    word = 0
    for name, value in fields.items():
        first, width, _ = FIELDS[name]
        word |= (int(value) & (1 << width) - 1) << first
    return word
