"""The coder of a lane of the vector unit: RF8 codes, lengths and biases of integers."""

import numpy as np
from cocotb.triggers import RisingEdge

from golden.format import INTEGERS, SPANS, VALUES
from golden.layers import CODE_FRAC, shared_bias
from golden.vector import code_of, wrapped
from hw.vector.coder import VectorCoder
from sim.benches.harness import Run, bench_test

CODERS = [f"coder{span}" for span in SPANS]
CONFIGURATIONS = f"spans of {', '.join(map(str, SPANS))} exponents"


def parts():
    return {name: VectorCoder(span) for name, span in zip(CODERS, SPANS, strict=True)}


@bench_test(limit=500_000, part=CODERS)
async def codes(run: Run) -> None:
    """About every boundary between codes, every power of two, and every bit length."""
    span = int(run.part.removeprefix("coder"))
    integers = np.unique(np.abs(INTEGERS.astype(np.int64))) << (CODE_FRAC - 4)
    middle = (integers[1:] + integers[:-1]) // 2
    points = np.concatenate([integers, middle, 1 << np.arange(32), 31 << np.arange(27)])
    near = (points[:, None] + np.arange(-2, 3)).reshape(-1)
    values = np.unique(np.concatenate([near, np.arange(2048), [1 << 31]])).clip(0, 1 << 31)
    values = np.concatenate([values, -values])
    dut = await run.start()
    found = []
    ports = ("code", "significand", "power", "some", "place", "carry")
    latency = VectorCoder.latency
    for number in range(len(values) + latency):
        value = int(values[min(number, len(values) - 1)])
        dut.magnitude.value, dut.negative.value = abs(value), value < 0
        await RisingEdge(dut.clk)
        if number >= latency:
            found.append([int(getattr(dut, port).value) for port in ports])
    code, significand, power, some, place, carry = np.array(found, np.int64).T
    length = np.where(some, place + 1, 0)
    expected = code_of(values, span)
    run.check(code, expected, "codes")
    product = wrapped(significand, 6) * power
    run.check(product, -(INTEGERS[expected].astype(np.int64) << (CODE_FRAC - 4)), "products")
    run.check(length, [int(abs(v)).bit_length() for v in values.tolist()], "lengths")
    some = values != 0
    bias = shared_bias(np.abs(values))
    run.check((length + carry - 16)[some], bias[some], "biases")
    assert VALUES.size == 256
