"""The multiplier of a lane of the vector unit."""

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...lib.adders import add_choice, add_subtract
from ..decoder import STEP_BITS

HALF = 16
SUM_BITS = 52
"""Of two products that ROTATE adds, each of 32 times 18 bits."""
LOW_BITS = 26


class VectorMultiplier(wiring.Component):
    """The multiplier of a lane: ``total = x * y``, or that and what is in ``total``, or an entry of
    a table and a part of the difference to the next.

    Four products of halves, a register, and their sum; `latency` cycles. With a table, the total
    has STEP_BITS fraction bits, of which the product's are already rounded, half to even: what is
    left is to cut them off.

    Ports
    -----
    x (in, signed 32), y (in, signed 32): The factors.
    step (in, 1): High a cycle after there were factors.
    second (in, 1): High, with ``step``, to add the total so far, of SUM_BITS.
    table (in, 1): High, with ``step``, for an entry of a table.
    low (in, signed 26): That entry, with ``step``.
    total (out, signed 64): The result; it stays until the next.
    """

    latency = 2

    def __init__(self):
        super().__init__(
            {
                "x": In(signed(2 * HALF)),
                "y": In(signed(2 * HALF)),
                "step": In(1),
                "second": In(1),
                "table": In(1),
                "low": In(signed(LOW_BITS)),
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
        # Rounds half to even: adds half a unit, less the lowest bit unless the integer part is odd.
        odd = low[STEP_BITS]
        half = Cat((~odd & self.table).replicate(STEP_BITS - 1), odd & self.table)
        total = Signal.like(self.total, reset_less=True)
        outer = add_choice(
            m,
            platform,
            "outer",
            Cat(half, self.low).as_signed(),
            total[:SUM_BITS].as_signed(),
            self.second,
            Cat(low, high).as_signed(),
        )
        wide = Signal(signed(2 * HALF + 2))
        m.d.comb += wide.eq(first)
        cross = add_subtract(m, platform, "cross", wide, second, subtract=0, carry=0)
        with m.If(self.step):
            m.d.sync += total.eq(Cat(outer[:HALF], outer[HALF:] + cross))
        m.d.comb += self.total.eq(total)
        return m
