"""Arguments of tables: looked up and interpolated, they give what the golden functions give."""

import numpy as np
import pytest
from hardware import simulate
from vector_control import control_of

from golden import layers
from golden.arith import shift_round_half_even
from golden.config import get_config
from golden.isa import Function, Instruction, Opcode
from hw.vector.decoder import CURVES, STEP_BITS
from hw.vector.lane.table_argument import EXP2_BITS, SINE_FIRST, TableArgument
from hw.vector.tables import _rows

SEED = 221
CONFIG = get_config("tiny")
ROWS = _rows()
LARGEST = (1 << 31) - 1
LATE = {"magnitude": 1, "address": 2, "whole": 3, "beyond": 3, "rest": 4}
"""Cycles from ``a`` to each output."""


def elements(rng, count):
    """Of all magnitudes, about powers of two and at the ends; a sixth are multiples of 2**9."""
    values = rng.integers(-(1 << 31), 1 << 31, count) >> rng.integers(0, 32, count)
    near = (1 << rng.integers(0, 31, count)) + rng.integers(-2, 3, count)
    values = np.where(rng.random(count) < 0.3, near * rng.choice([-1, 1], count), values)
    values = np.where(rng.random(count) < 0.16, values & ~511, values)
    values[:4] = 0, LARGEST, -LARGEST, -LARGEST - 1
    return values.clip(-LARGEST - 1, LARGEST).tolist()


def interpolated(found):
    """What a lane makes of an entry; beyond the table it leaves the value out, not the step."""
    low, step = ROWS[found["address"]]
    part = int(shift_round_half_even(np.int64(step * found["rest"]), STEP_BITS))
    return part if found["beyond"] else low + part


async def run(ctx, dut, values, bases):
    """All outputs that belong to each element."""
    seen = []
    for n in range(len(values) + max(LATE.values())):
        ctx.set(dut.a, values[min(n, len(values) - 1)])
        ctx.set(dut.base, bases[min(n, len(bases) - 1)])
        seen.append({name: ctx.get(getattr(dut, name)) for name in LATE})
        await ctx.tick()
    return [{name: seen[n + late][name] for name, late in LATE.items()} for n in range(len(values))]


@pytest.mark.parametrize("function", [*CURVES, Function.EXP2, Function.TANH, Function.SINE])
def test_entries_and_fractions_give_the_function(function):
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    dut = TableArgument()
    values = elements(rng, 400)
    top = int(rng.integers(-(1 << 20), 1 << 20))
    base = {Function.EXP2: top, Function.SINE: 1 << SINE_FIRST - 1}.get(function, 0)
    if function is Function.EXP2:
        values = [max(-LARGEST - 1, min(top - abs(v) // 64, top)) for v in values]
        values += [top - n for n in range(3)] + [top + 1, top + 1000]

    async def bench(ctx):
        i = Instruction(opcode=Opcode.VECTOR, function=function, k=32)
        ctx.set(dut.control, control_of(i, CONFIG))
        for a, found in zip(values, await run(ctx, dut, values, [base]), strict=True):
            if function in CURVES:
                assert found["magnitude"] == abs(a), a
                ramp = max(a, 0)
                want = int(layers.activate(np.int64(a), _name(function))) - ramp
                assert found["whole"] == 0
                assert interpolated(found) == want, a
            elif function is Function.TANH:
                assert found["whole"] == 0
                assert interpolated(found) == (1 << 16) - abs(int(layers.tanh(np.int64(a)))), a
            elif function is Function.SINE:
                assert not found["beyond"] and found["whole"] == 0
                assert interpolated(found) == int(layers.sine(np.int64(a))), a
            else:
                below = max(top - a, 0)
                assert found["whole"] == min(below >> EXP2_BITS, 31), a
                mantissa = below & (1 << EXP2_BITS) - 1
                assert interpolated(found) == int(layers.EXP2(np.int64(mantissa))), a

    simulate(dut, bench, limit=1000)


def _name(function):
    return next(n for n, known in layers.ACTIVATIONS.items() if known.function == function)


def test_the_magnitude_of_others():
    dut = TableArgument()
    values = elements(np.random.default_rng(SEED), 100)

    async def bench(ctx):
        i = Instruction(opcode=Opcode.VECTOR, function=Function.LENGTHS, k=32)
        ctx.set(dut.control, control_of(i, CONFIG))
        found = await run(ctx, dut, values, [0])
        assert [f["magnitude"] for f in found] == [abs(v) for v in values]

    simulate(dut, bench, limit=200)
