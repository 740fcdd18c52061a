"""The requantiser: scaling, rounding half to even, bias and saturation, one value each cycle."""

from collections import deque

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge

from golden.arith import requantize, rescale
from golden.config import RESULT_BITS, get_config
from hw.matrix.requantize import Requantizer
from sim.benches.harness import Run, bench_test

TINY = get_config("tiny")
CONFIGS = {
    "tiny": TINY,
    "narrow": TINY.replace(max_k=1, span=8, act_bits=8),  # a dot product is short of a result
    "wide": get_config("sim").replace(max_k=32768),
}
CONFIGURATIONS = "3 widths of the dot product, 20 to 52 bits"
SCALES = np.arange(-384, 384)  # three int8 exponents, and with them -300..300


def parts():
    return {name: Requantizer(config) for name, config in CONFIGS.items()}


def hard_dots(rng: np.random.Generator, scale: int, bits: int) -> np.ndarray:
    """Dot products that are hard for a scale: ties, their neighbours, bounds of saturation."""
    limit = (1 << (bits - 1)) - 1
    signs = rng.choice([-1, 1], 8)
    random = signs * (1 << rng.integers(0, bits, 8)).clip(max=limit)
    random += rng.integers(-3, 4, 8)
    if scale < 0:
        half = 1 << min(-scale - 1, 61)
        near = rng.integers(-9, 10, 8) * half if half < 1 << 57 else signs * half
    else:
        near = signs * (1 << max(0, RESULT_BITS - 1 - scale))
    ties = near + rng.choice([-1, 0, 0, 1], 8)
    overflow = signs * (1 << min(61, max(0, RESULT_BITS - 1 - scale)))
    overflow += rng.integers(-2, 3, 8)
    fixed = np.array([0, 1, -1, limit, -limit, limit - 1, -limit - 1])
    dots = np.concatenate([random, ties, overflow, fixed, rng.integers(-limit, limit, 4)])
    return dots.clip(-limit - 1, limit).astype(np.int64)


def hard_biases(rng: np.random.Generator, count: int) -> np.ndarray:
    limit = (1 << (RESULT_BITS - 1)) - 1
    edges = [0, 0, 0, 1, -1, limit, -limit - 1, limit - 1]
    return np.where(
        rng.random(count) < 0.6,
        rng.choice(edges, count),
        rng.integers(-limit - 1, limit + 1, count),
    )


@bench_test(limit=60_000, part=list(CONFIGS), bubbles=[0, 0.3])
async def all_scales(run: Run, bubbles: float) -> None:
    bits = CONFIGS[run.part].acc_bits
    scales = SCALES if not bubbles else run.rng.choice(SCALES, 200)
    dots = [hard_dots(run.rng, int(scale), bits) for scale in scales]
    scale = np.repeat(scales, [len(d) for d in dots])
    dot = np.concatenate(dots)
    bias = hard_biases(run.rng, len(dot))
    expected = requantize(dot, scale, bias)
    saturated = rescale(dot, scale, bias) != expected
    assert saturated.any() and not saturated.all()

    dut = await run.start(valid=0)
    due: deque[int] = deque()  # cycles in which results must come
    results, flags = [], []

    async def watch() -> None:
        while True:
            await RisingEdge(dut.clk)
            cycle = run.cycle - 1
            now = bool(due) and due[0] == cycle
            run.check(int(dut.result_valid.value), now, f"result_valid in cycle {cycle}")
            if now:
                due.popleft()
                results.append(dut.result.value.to_signed())
                flags.append(int(dut.saturated.value))
            else:
                run.check(int(dut.saturated.value), 0, f"saturated in cycle {cycle}")

    cocotb.start_soon(watch())
    stalls = run.stalls(bubbles)
    for values in zip(dot.tolist(), scale.tolist(), bias.tolist(), strict=True):
        while next(stalls):
            dut.valid.value, dut.dot.value = 0, int(run.rng.integers(-99, 99))
            await RisingEdge(dut.clk)
        dut.dot.value, dut.scale.value, dut.bias.value = values
        dut.valid.value = 1
        due.append(run.cycle + Requantizer.latency)
        await RisingEdge(dut.clk)
    dut.valid.value = 0
    await ClockCycles(dut.clk, Requantizer.latency + 2)
    run.check(results, expected, "results")
    run.check(flags, saturated, "saturated")
