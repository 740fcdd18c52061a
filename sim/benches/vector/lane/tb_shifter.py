"""The shifter of a lane of the vector unit, against `golden.vector.scaled`."""

import numpy as np
from cocotb.triggers import RisingEdge

from golden.arith import GUARD_BITS
from golden.vector import scaled
from hw.vector.decoder import LEFT_BITS
from hw.vector.lane.shifter import MOST, VectorShifter
from sim.benches.harness import Run, bench_test

CONFIGURATIONS = f"values of 64 bits, distances of 0 to {MOST}"


def parts():
    return {"shifter": VectorShifter()}


@bench_test(limit=500_000, part=["shifter"])
async def shifts(run: Run) -> None:
    """Every distance, with ties and bounds."""
    rng = run.rng
    right = np.repeat(np.arange(MOST + 1), 60)
    power = LEFT_BITS - right
    kinds = rng.integers(0, 4, right.size)
    width = rng.integers(1, 63, right.size)
    value = rng.integers(-(1 << 62), 1 << 62, right.size) >> (62 - width)
    half = np.int64(1) << (-power - 1).clip(0, 60)
    ties = (rng.integers(-64, 64, right.size) * 2 + 1) * half.clip(max=1 << 54)
    ties += rng.integers(-1, 2, right.size)
    top = np.int64(1) << (GUARD_BITS - 1 - power).clip(0, 62)
    edge = (top + rng.integers(-2, 3, right.size)).clip(max=1 << 62)
    value = np.select(
        [kinds == 0, kinds == 1], [ties, edge * rng.choice([-1, 1], right.size)], value
    )
    value[::60], value[1::60], value[2::60] = 1 << 62, -(1 << 62), 0
    dut = await run.start(wrap=0, cut=0)
    most = (1 << (GUARD_BITS - 1)) - 1
    found = []
    for number in range(len(value) + 1 + VectorShifter.latency):
        dut.right.value = int(right[min(number, len(value) - 1)])
        dut.value.value = int(value[min(max(number - 1, 0), len(value) - 1)])
        await RisingEdge(dut.clk)
        if number > VectorShifter.latency:
            result = dut.whole.value.to_signed() + int(dut.up.value)
            if int(dut.over.value):
                result = -most - 1 if int(dut.minus.value) else most
            found.append(min(result, most))  # rounding may have carried it out
    run.check(found, scaled(value, power), "results")
