"""The scalar unit: what VECTOR instructions compute at the end of a segment."""

import numpy as np
from cocotb.triggers import RisingEdge

from golden.config import get_config
from golden.isa import After, Instruction, Opcode
from golden.vector import AMOUNT_MAX, SUM_BITS, Registers, _after
from hw.vector.scalar.unit import ScalarUnit
from sim.benches.harness import Run, bench_test, signed
from sim.benches.vectors import EDGES, LARGEST, hard_elements

TINY = get_config("tiny")
SCALARS = {"scalar8": 8, "scalar16": 16}
CONFIGURATIONS = "mantissas of 8 and 16 bits"


def parts():
    return {name: ScalarUnit(TINY.replace(act_bits=bits)) for name, bits in SCALARS.items()}


def hard_sums(rng: np.random.Generator, count: int) -> np.ndarray:
    width = rng.integers(1, SUM_BITS, count)
    values = rng.integers(-(1 << (SUM_BITS - 1)), 1 << (SUM_BITS - 1), count)
    values = values >> (SUM_BITS - width)
    near = (np.int64(1) << width.clip(max=SUM_BITS - 2)) + rng.integers(-3, 4, count)
    values = np.where(rng.random(count) < 0.3, near * rng.choice([-1, 1], count), values)
    ends = (0, 1, -1, (1 << 55) - 1, -(1 << 55), (1 << 24) - 1, 1 << 24, (1 << 24) + 1)
    return np.where(rng.random(count) < 0.1, rng.choice(ends, count), values)


@bench_test(limit=2_000_000, part=list(SCALARS), after=[a.name for a in After][1:])
async def scalars(run: Run, after: str) -> None:
    """The end of a segment, for sums, peaks and tops of all magnitudes."""
    rng, config = run.rng, TINY.replace(act_bits=SCALARS[run.part])
    cases = 400 if After[after] in (After.MEAN, After.ROOT, After.RECIPROCAL) else 250
    dut = await run.start(load=0, start=0)
    before = dict(zip(("factor", "amount", "exponent", "size"), (32, 7, 8, 6), strict=True))
    sums, tops = hard_sums(rng, cases), hard_elements(rng, cases).astype(np.int64)
    counts = rng.choice([1, 2, 3, 5, 64, 576, 65535, *rng.integers(1, 65536, 8)], cases)
    peaks = np.abs(hard_elements(rng, cases).astype(np.int64))
    if After[after] is After.MEAN:  # halves, for which the last bit decides
        ties = rng.random(cases) < 0.5
        counts[ties] += counts[ties] & 1
        counts[counts > 65535] = 65534
        whole = rng.integers(-(1 << 32), 1 << 32, cases) >> rng.integers(0, 33, cases)
        sums = np.where(ties, whole * counts + counts // 2 + rng.integers(-1, 2, cases), sums)
    if After[after] is After.CODE:
        peaks[::3] = 31 << rng.integers(0, 26, len(peaks[::3]))
        peaks[1::6] = (31 << rng.integers(0, 26, len(peaks[1::6]))) - 1
    for total, peak, top, count in zip(sums, peaks, tops, counts, strict=True):
        exponent, mantissa = int(rng.integers(-128, 128)), int(rng.integers(1 << 21))
        if rng.random() < 0.6:
            exponent = int(rng.integers(-70, -10))
        word = int(rng.choice([exponent << 24 | mantissa, *rng.choice(EDGES, 1)]))
        i = Instruction(opcode=Opcode.VECTOR, after=After[after], immediate=word)
        old = Registers.cleared(TINY)
        values = {
            "factor": int(rng.integers(-LARGEST - 1, LARGEST + 1)),
            "amount": int(rng.integers(-AMOUNT_MAX, AMOUNT_MAX + 1)),
            "exponent": int(rng.integers(-128, 128)),
            "size": int(rng.integers(0, 56)),
        }
        packed, at = 0, 0
        for name, bits in before.items():
            getattr(old, name)[:] = values[name]
            packed |= (values[name] & (1 << bits) - 1) << at
            at += bits
        old.sum[:], old.peak[:], old.top[:] = total, peak, top
        _after(i, old, np.s_[:1, :1], np.full((1, 1), count, np.int64), config)
        dut.operands.value = int.from_bytes(i.encode(), "little")
        dut.before.value, dut.count.value, dut.load.value = packed, int(count), 1
        await RisingEdge(dut.clk)
        dut.load.value, dut.start.value = 0, 1
        dut.sum.value, dut.peak.value, dut.top.value = int(total), int(peak), int(top)
        await RisingEdge(dut.clk)
        dut.start.value, dut.sum.value, dut.before.value = 0, 0, 0
        began = run.cycle
        await RisingEdge(dut.done)
        cycles = run.cycle - began
        found, at = int(dut.registers.value), 0
        what = f"{i}: sum {total}, peak {peak}, top {top}, count {count}, before {values}"
        for name, bits in before.items():
            raw = found >> at
            value = raw & (1 << bits) - 1 if name == "size" else signed(raw, bits)
            run.check(value, getattr(old, name)[0, 0], f"{name} of {what}")
            at += bits
        limits = {After.MEAN: 62, After.ROOT: 172, After.RECIPROCAL: 60}
        run.check(cycles <= limits.get(After[after], 6), True, f"{cycles} cycles of {what}")
        await RisingEdge(dut.clk)
