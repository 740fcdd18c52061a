"""The decoder: what its control fields say must be the integer of the golden model.

Every code of the 256, for every span and every way to split the exponent.
"""

import numpy as np
from cocotb.triggers import RisingEdge

from golden.config import AccelConfig, get_config
from golden.format import INTEGERS, SPANS, in_span
from hw.matrix.decode import Decoder, RowControl
from sim.benches.harness import Run, bench_test

CONFIGS = {
    f"span{span}_align{align}": get_config("tiny").replace(span=span, align=align)
    for span in SPANS
    for align in range(5)
}
CONFIGURATIONS = "4 spans x 5 splits of the exponent"


def parts():
    return {name: Decoder(config) for name, config in CONFIGS.items()}


def integer(control: int, config: AccelConfig) -> int:
    """What a lane makes of a weight with these control fields and an activation of 1."""
    field = {
        name: control >> place.offset & (1 << place.width) - 1
        for name, place in RowControl.as_shape()
    }
    term = config.forms.term[field["term"]] if field["second"] else 0
    total = config.forms.base[field["base"]] + (-term if field["subtract"] else term)
    value = total << field["shift"] << (field["bin"] << config.align)
    return (-value if field["negative"] else value) * field["nonzero"]


@bench_test(limit=300, part=list(CONFIGS))
async def every_code(run: Run) -> None:
    config = CONFIGS[run.part]
    dut = await run.start(code=0)
    integers, invalid, bins = [], [], []
    for code in range(256):
        dut.code.value = code
        await RisingEdge(dut.clk)
        control = int(dut.control.value)
        integers.append(integer(control, config))
        bins.append(control >> RowControl.as_shape()["bin"].offset)
        carry = control >> RowControl.as_shape()["carry"].offset & 1
        parity = control >> RowControl.as_shape()["negative"].offset
        parity ^= control >> RowControl.as_shape()["subtract"].offset
        run.check(carry, parity & 1, f"carry of code {code}")
        invalid.append(int(dut.invalid.value))

    codes = np.arange(256, dtype=np.uint8)
    refused = ~in_span(codes, config.span)
    run.check(integers, np.where(refused, 0, INTEGERS >> (16 - config.span)), "integer")
    run.check(invalid, refused, "invalid")
    # Zero has no bin: what its field says is not used.
    used = np.array(bins)[~refused & (codes != 0)]
    run.check(used < config.bins, np.full(used.shape, True), "bin in range")
