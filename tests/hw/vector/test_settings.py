"""The settings of a segment: what they are, and that they come with its words."""

from dataclasses import replace

import numpy as np
from hardware import simulate, word_of
from vector_control import control_of, settings_of

from golden.config import get_config
from golden.isa import FIELDS, Flag, Function, Instruction, Opcode
from hw.vector.settings import VectorSettings

SEED = 171
CONFIG = get_config("ecp5")
HAND = 6
"""Cycles from `take` to `hand`, as the reader and the pipeline make them."""
NEXT = 4
"""Cycles from one `take` to the next, at least."""
VECTOR = Instruction(opcode=Opcode.VECTOR, column=1, count=8, k=32, segments=1)


def segment(rng):
    """Registers, top and place."""
    registers = {
        "factor": int(rng.integers(-(1 << 31), 1 << 31)),
        "amount": int(rng.integers(-63, 64)),
        "exponent": int(rng.integers(-128, 128)),
        "size": int(rng.integers(56)),
    }
    return registers, int(rng.integers(-(1 << 31), 1 << 31)), int(rng.integers(1 << 25))


def test_each_segment_gets_its_own():
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    dut = VectorSettings()

    async def bench(ctx):
        for function in (*Function, *Function):
            flags = int(rng.integers(2)) * Flag.AMOUNT | int(rng.integers(2)) * Flag.IMMEDIATE
            i = replace(
                VECTOR, function=function, flags=int(flags), shift=int(rng.integers(-128, 128)),
                immediate=int(rng.integers(-(1 << 31), 1 << 31)),
            )  # fmt: skip
            ctx.set(dut.operands.as_value(), word_of({n: int(getattr(i, n)) for n in FIELDS}))
            ctx.set(dut.control, control_of(i, CONFIG))
            await ctx.tick()
            takes, at = {}, 0
            for _ in range(5):
                takes[at] = segment(rng)
                at += NEXT + int(rng.choice([0, 0, 1, 7]))
            want = {take + HAND: settings_of(i, *known) for take, known in takes.items()}
            last = {}
            for cycle in range(max(takes) + HAND + 5):
                registers, top, place = takes.get(cycle) or segment(rng)
                ctx.set(dut.take, cycle in takes)
                ctx.set(dut.registers, registers)
                ctx.set(dut.top, top)
                ctx.set(dut.place, place)
                ctx.set(dut.hand, cycle in want)
                if cycle - 1 in takes:
                    taken, known = ctx.get(dut.taken), takes[cycle - 1][0]
                    assert {name: taken[name] for name in known} == known
                # Those that were handed over last stay.
                for late, names in ((2, ("base",)), (3, ("distance", "constant", "minus"))):
                    if cycle - late in want:
                        last |= {name: want[cycle - late][name] for name in names}
                found = ctx.get(dut.settings)
                assert {name: found[name] for name in last} == last, (i, cycle)
                await ctx.tick()

    simulate(dut, bench, limit=5000)
