"""The end of a lane of the vector unit."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.arith import GUARD_BITS
from golden.config import RESULT_BITS
from golden.vector import SUM_BITS

from ...lib.adders import add_subtract
from ..decoder import CONTROL

VALUE_BITS = GUARD_BITS + 1


class VectorSaturate(wiring.Component):
    """The end of a lane: the sum, and its saturation; a cycle each.

    Ports
    -----
    control (in, struct): The instruction, decoded.
    whole (in, signed 34), up (in, 1), over (in, 1), minus (in, 1): Of `VectorShifter`.
    added (in, signed 33): What is added, with them.
    negate (in, 1): High, with them, when what `VectorShifter` gave is taken from ``added`` instead.
    high (in, 24): A cycle later: of SQUARE, the bits above 32.
    keep (in, 1): A cycle later: high when ``y`` is not to be zero.
    y (out, signed 56): The result, extended; `latency` cycles after ``whole``.
    saturated (out, 1): High when ``y`` saturated to 32 bits.
    """

    latency = 2

    def __init__(self):
        super().__init__(
            {
                "control": In(CONTROL),
                "whole": In(signed(GUARD_BITS)),
                "up": In(1),
                "over": In(1),
                "minus": In(1),
                "added": In(signed(RESULT_BITS + 1)),
                "negate": In(1),
                "high": In(SUM_BITS - RESULT_BITS),
                "keep": In(1),
                "y": Out(signed(SUM_BITS)),
                "saturated": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.control
        wide = Signal(signed(VALUE_BITS))
        m.d.comb += wide.eq(self.added)
        value = Signal(signed(VALUE_BITS), reset_less=True)
        over = Signal(reset_less=True)
        minus = Signal(reset_less=True)
        m.d.sync += [
            value.eq(
                add_subtract(
                    m,
                    platform,
                    "add",
                    wide,
                    self.whole,
                    subtract=self.negate,
                    carry=self.up ^ self.negate,
                )
            ),
            over.eq(self.over),
            minus.eq(self.minus),
        ]

        # A value that was too large before the addition is so by far, and stays so. Else it is too
        # large if two neighbours differ of the bits that must all equal the sign.
        sign = Signal()
        leaves = Signal()
        low = Signal(RESULT_BITS)
        bound = Cat(c.bound, c.bound[-1].replicate(VALUE_BITS - 1 - RESULT_BITS))
        edge = ~c.bound ^ sign.replicate(
            RESULT_BITS
        )  # largest or smallest value: the sign at the bits of `bound`, else not
        m.d.comb += [
            sign.eq(Mux(over, minus, value[-1])),
            leaves.eq(over | ((value[:-1] ^ value[1:]) & bound).any()),
            low.eq(Mux(leaves, edge, value[:RESULT_BITS])),
        ]
        above = Mux(c.wrap, value[RESULT_BITS - 1], sign)
        high = Mux(c.square, self.high, above.replicate(len(self.high)))
        y = Signal.like(self.y, reset_less=True)
        saturated = Signal(reset_less=True)
        # With fewer bits than 32 the one before the last of `bound` is set, too.
        m.d.sync += [y.eq(Cat(low, high)), saturated.eq(leaves & self.keep & ~c.bound[-2])]
        with m.If(~self.keep):
            m.d.sync += y.eq(0)
        m.d.comb += [self.y.eq(y), self.saturated.eq(saturated)]
        return m
