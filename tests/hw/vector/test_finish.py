"""The end of segments: registers and headers in order, and what the next segment waits for."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hardware import simulate, word_of
from vector_control import control_of

from golden.config import get_config
from golden.isa import FIELDS, HEADED, After, Instruction, Opcode, Output
from golden.vector import Registers, _after
from hw.vector.finish import SPACING, VectorFinish
from hw.vector.scalar.unit import LONG

SEED = 291
CONFIG = get_config("ecp5")
DRAIN = 24
"""Cycles from a segment's last read to its sums."""
APART = 4
"""Cycles from one last read to the next, at least."""
SHORT = 6
"""Cycles from the sums to the registers, where nothing is divided."""
VECTOR = Instruction(opcode=Opcode.VECTOR, column=2, count=8, k=32, segments=3)
NAMES = ("factor", "amount", "exponent", "size")


def random_segment(rng):
    return {
        "factor": int(rng.integers(-(1 << 31), 1 << 31)),
        "amount": int(rng.integers(-8, 9)),
        "exponent": int(rng.integers(-128, 128)),
        "size": int(rng.integers(56)),
        "count": int(rng.integers(1, 1 << 16)),
        "sum": int(rng.integers(-(1 << 55), 1 << 55) >> rng.integers(0, 56)),
        "peak": int(rng.integers(1 << 31) >> rng.integers(0, 32)),
        "top": int(rng.integers(-(1 << 31), 1 << 31) >> rng.integers(0, 32)),
    }


def after(i, segment):
    """The segment's registers when the instruction is done with it."""
    registers = Registers.cleared(CONFIG)
    for name in (*NAMES, "sum", "peak", "top"):
        getattr(registers, name)[:] = segment[name]
    _after(i, registers, np.s_[:1, :1], np.full((1, 1), segment["count"], np.int64), CONFIG)
    return {name: int(getattr(registers, name)[0, 0]) for name in NAMES}


async def run(ctx, dut, rng, i):
    """All segments of an instruction; how often it was pending when a segment wanted to leave."""
    ctx.set(dut.operands.as_value(), word_of({name: int(getattr(i, name)) for name in FIELDS}))
    ctx.set(dut.control, control_of(i, CONFIG))
    ctx.set(dut.end, 0)
    ctx.set(dut.leave, 0)
    await ctx.tick()
    ctx.set(dut.start, 1)
    await ctx.tick()
    ctx.set(dut.start, 0)
    await ctx.tick()
    order = [(c, s) for c in range(i.column) for s in range(i.segments)]
    segments = {place: random_segment(rng) for place in order}
    computes = i.after != After.NONE
    headed = i.output in HEADED or i.output == Output.TOP
    alone = i.after in LONG or (computes and headed)  # the next one waits for all of it
    left, free = [*order], 0
    ends, sets = {}, {}
    waiting = None  # whose header is to be written
    finished, completed, left_at = 0, -1, -99
    stalls = 0
    cycle = 0
    while finished < len(order):
        # The reader.
        pending = ctx.get(dut.pending)
        if left_at >= 0 and cycle >= left_at + 2:
            if not computes:
                want = alone
            elif alone:
                want = finished < len(order) - len(left)
            else:
                want = cycle < left_at + SPACING
            assert pending == want, (cycle, left_at)
        stalls += bool(left and cycle >= free and pending)
        leave = bool(left) and cycle >= free and not pending
        if left_at == cycle - 1:
            known = segments[order[len(order) - len(left) - 1]]
            ctx.set(dut.before, {name: known[name] for name in NAMES})
            ctx.set(dut.count, known["count"])
        ctx.set(dut.leave, leave)
        if leave:
            ends[cycle + DRAIN] = left.pop(0)
            left_at, free = cycle, cycle + APART + int(rng.choice([0, 0, 0, 5]))
        # The sums.
        place = ends.pop(cycle, None)
        ctx.set(dut.end, place is not None)
        if place:
            ended = place
            for name in ("sum", "peak", "top"):
                ctx.set(getattr(dut, name), segments[place][name])
        # The writer, which finds a cycle for a header before the next segment's sums come.
        header = ctx.get(dut.header)
        assert header == (waiting is not None), cycle
        taken = bool((header and rng.random() < 0.6) or waiting == cycle - 2)
        ctx.set(dut.taken, taken)
        if taken and i.output != Output.TOP:
            assert ctx.get(dut.exponent) == after(i, segments[ended])["exponent"], (i, ended)
        found = ctx.get(dut.set)
        if i.after not in LONG:
            assert found == (cycle in sets), cycle
        if found:
            assert (ctx.get(dut.column), ctx.get(dut.segment)) == ended, i
            registers = ctx.get(dut.registers)
            assert {n: registers[n] for n in NAMES} == after(i, segments[ended]), (i, ended)
        if place and computes:
            sets[cycle + SHORT] = place
        complete = taken or (found and not headed) or bool(place and not computes and not headed)
        if complete:
            finished += 1
            completed = cycle
        assert ctx.get(dut.done) == (complete and finished == len(order)), cycle
        if taken:
            waiting = None
        elif headed and (found or (place and not computes)):
            waiting = cycle + 1
        await ctx.tick()
        cycle += 1
    assert completed == cycle - 1
    return stalls


@pytest.mark.parametrize("output", [Output.NONE, Output.BLOCK, Output.TOP])
def test_registers_headers_and_who_waits(output):
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    dut = VectorFinish(CONFIG)

    async def bench(ctx):
        for kind, long in product(After, (False, True)):
            few = kind in LONG
            immediate = int(rng.integers(1 << 20)) - (30 << 24)
            i = replace(
                VECTOR, after=kind, output=output, column=1 + (long and not few),
                segments=2 if few else 3 + 5 * long, immediate=immediate,
            )  # fmt: skip
            stalls = await run(ctx, dut, rng, i)
            assert bool(stalls) == (kind is not After.NONE) or few, i

    simulate(dut, bench, limit=10_000)
