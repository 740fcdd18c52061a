"""The multiplier of a lane of the vector unit."""

from amaranth.hdl import Cat, Const, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .adders import add_subtract

HALF = 16
SUM_BITS = 52
"""Of two products that ROTATE adds, each of 32 times 18 bits."""


class VectorMultiplier(wiring.Component):
    """``total = x * y``, or that added to the total before; of 32 bits each, signed.

    Four products of halves, a register, and their sum. Where it adds, the total has SUM_BITS.

    Ports
    -----
    step: a cycle after the operands: there were some
    second: with ``step``: add
    total: two cycles after the operands; stays until the next
    """

    latency = 2

    def __init__(self):
        super().__init__(
            {
                "x": In(signed(2 * HALF)),
                "y": In(signed(2 * HALF)),
                "step": In(1),
                "second": In(1),
                "total": Out(signed(4 * HALF)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        x_low, x_high = self.x[:HALF], self.x[HALF:].as_signed()
        y_low, y_high = self.y[:HALF], self.y[HALF:].as_signed()
        low = Signal(2 * HALF, reset_less=True)
        high = Signal(signed(2 * HALF), reset_less=True)
        first, second = (
            Signal(signed(2 * HALF + 1), name=f"cross{n}", reset_less=True) for n in range(2)
        )
        m.d.sync += [
            low.eq(x_low * y_low),
            first.eq(x_high * y_low),
            second.eq(x_low * y_high),
            high.eq(x_high * y_high),
        ]
        total = Signal.like(self.total, reset_less=True)
        outer = add_subtract(
            m,
            platform,
            "held",
            Cat(low, high),
            total[:SUM_BITS].as_signed(),
            subtract=Const(0),
            carry=Const(0),
            keep=self.second,
        )
        cross = Signal(signed(2 * HALF + 2))
        m.d.comb += cross.eq(first + second)
        with m.If(self.step):
            m.d.sync += total.eq(Cat(outer[:HALF], outer[HALF:] + cross))
        m.d.comb += self.total.eq(total)
        return m
