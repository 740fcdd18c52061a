"""The registers of divisions and roots: each control by itself, and several in a cycle."""

import numpy as np
from hardware import simulate

from golden.vector import SUM_BITS
from hw.vector.scalar.epsilon import SQUARE_BITS
from hw.vector.scalar.steps import GUARD, INVERSE_BITS, REST_BITS, ROOT_BITS, ScalarSteps

SEED = 261
CONTROLS = ("clear", "load", "first", "carry", "shift", "trial", "root", "extra", "clear_rest")
CONTROLS += ("seed_rest", "move_rest", "set_divisor", "push_divisor", "pushed")


class Model:
    """The registers as integers; the next of each by the port's line in the docstring."""

    def __init__(self):
        self.bits = self.rest = self.divisor = 0

    def outputs(self, c):
        next_bit = self.bits >> SQUARE_BITS - 1 | c["extra"]
        subtrahend = 4 * self.divisor + 1 if c["root"] else self.divisor
        minuend = (2 * self.rest + next_bit) % (1 << REST_BITS)
        return minuend, minuend - subtrahend

    def step(self, c):
        minuend, difference = self.outputs(c)
        fits = difference >= 0
        if c["clear"]:
            bits = 0
        elif c["load"] and c["first"]:
            bits = c["sum"] << GUARD
        elif c["load"]:
            bits = self.bits + c["epsilon"] + c["carry"]
        elif c["shift"]:
            bits = 2 * self.bits + (fits and c["trial"] and not c["root"])
        else:
            bits = self.bits
        if c["clear_rest"]:
            self.rest = 0
        elif c["trial"] and fits:
            self.rest = difference
        elif c["trial"] or c["move_rest"]:
            self.rest = minuend
        if c["seed_rest"]:
            self.rest |= 1 << INVERSE_BITS - 2
        self.rest %= 1 << REST_BITS
        if c["set_divisor"]:
            self.divisor = c["new_divisor"]
        elif c["push_divisor"]:
            self.divisor = (2 * self.divisor + c["pushed"]) % (1 << ROOT_BITS)
        self.bits = bits % (1 << SQUARE_BITS)


def test_every_control():
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    dut, model = ScalarSteps(), Model()

    async def bench(ctx):
        rates = np.full(len(CONTROLS), 0.1)
        for cycle in range(3000):
            if cycle % 40 == 0:  # a few of them often, as a division has them
                rates = rng.choice([0, 0.03, 0.9], len(CONTROLS))
            bits = (rng.random(len(CONTROLS)) < rates).astype(int).tolist()
            c = dict(zip(CONTROLS, bits, strict=True))
            if model.bits and c["first"]:
                c["load"] = 0
            if model.rest:
                c["seed_rest"] = 0
            # A rest is below the divisor, or below twice a root and one: else it has no room.
            c |= {"sum": int(rng.integers(1 << SUM_BITS)), "epsilon": int(rng.integers(1 << 40))}
            c["new_divisor"] = int(rng.integers(1, 1 << ROOT_BITS))
            for name, value in c.items():
                ctx.set(getattr(dut, name), value)
            _, difference = model.outputs(c)
            assert ctx.get(dut.bits) == model.bits, cycle
            assert ctx.get(dut.one) == (difference >= 0), cycle
            assert ctx.get(dut.difference) == difference, cycle
            model.step(c)
            await ctx.tick()

    simulate(dut, bench, limit=4000)


def test_a_division_by_hand():
    """Bit after bit, quotient below and rest above."""
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    dut = ScalarSteps()

    async def bench(ctx):
        for _ in range(8):
            total, divisor = int(rng.integers(1 << SUM_BITS)), int(rng.integers(1, 1 << 16))
            for name in ("load", "first", "clear_rest", "set_divisor"):
                ctx.set(getattr(dut, name), 1)
            ctx.set(dut.sum, total)
            ctx.set(dut.new_divisor, divisor)
            await ctx.tick()
            for name in ("load", "first", "clear_rest", "set_divisor"):
                ctx.set(getattr(dut, name), 0)
            ctx.set(dut.trial, 1)
            ctx.set(dut.shift, 1)
            await ctx.tick().repeat(SUM_BITS)
            ctx.set(dut.trial, 0)
            ctx.set(dut.shift, 0)
            quotient = ctx.get(dut.bits) % (1 << SUM_BITS)
            assert quotient == total // divisor, (total, divisor)
            ctx.set(dut.clear, 1)
            await ctx.tick()
            ctx.set(dut.clear, 0)
            assert ctx.get(dut.bits) == 0

    simulate(dut, bench, limit=1000)
