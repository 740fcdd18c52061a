"""Arguments of tables, in a lane of the vector unit."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.config import RESULT_BITS
from golden.layers import EXP2, RESTS, SINE, TURN_BITS

from .adders import add_subtract
from .vector_control import CONTROL
from .vector_tables import INDEX_BITS, SHORT_BITS

REST_BITS = 10
EXP2_BITS = EXP2.index_bits + EXP2.step_bits
SINE_FIRST = TURN_BITS - 2 - SINE.index_bits - SINE.step_bits
"""Of an angle, bits below this one are rounded away."""


class VectorArgument(wiring.Component):
    """Splits what an element means to a table into entry and the place behind it.

    Ports
    -----
    a, control: the element
    base: the argument is a - and in EXP2 -a - more than this
    magnitude: of a, one cycle later, unless there is a base
    address: one cycle later: of `VectorTables`
    whole: two cycles later: how far EXP2 shifts right in the end, else 0
    rest: three cycles later: with what the difference to the next entry is multiplied
    beyond: ... the table has ended, and all is zero
    minus: ... the sine of this half turn is negative
    """

    latency = 3

    def __init__(self):
        super().__init__(
            {
                "control": In(CONTROL),
                "a": In(signed(RESULT_BITS)),
                "base": In(signed(RESULT_BITS + 1)),
                "magnitude": Out(RESULT_BITS),
                "address": Out(INDEX_BITS + 2),
                "whole": Out(5),
                "rest": Out(signed(REST_BITS)),
                "beyond": Out(1),
                "minus": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.control
        # base - a for EXP2, base + a for SINE, else the magnitude.
        negate = c.exp2 | (self.a[-1] & ~c.sine)
        argument = Signal(signed(RESULT_BITS + 1), reset_less=True)
        m.d.sync += argument.eq(
            add_subtract(m, platform, "from_base", self.base, self.a, subtract=negate, carry=negate)
        )
        m.d.comb += self.magnitude.eq(argument)

        # An angle's second and fourth quarters are those before, backwards: there the entry is
        # counted from the end, and the place in it from its end, which may be all of it.
        quarter, fraction = argument[TURN_BITS - 2 : TURN_BITS], argument[SINE_FIRST:]
        backwards, minus = c.sine & quarter[0], c.sine & quarter[1]
        above = argument[-1] & c.exp2  # not below the base
        exp2_index = argument[EXP2.step_bits : EXP2_BITS] & ~above.replicate(SHORT_BITS)
        sine_index = fraction[SINE.step_bits :][:SHORT_BITS] ^ backwards.replicate(SHORT_BITS)
        silu, gelu = RESTS["silu"], RESTS["gelu"]
        index, place, end = Signal(INDEX_BITS), Signal(REST_BITS - 1), Signal()
        with m.If(c.exp2):
            m.d.comb += index.eq(exp2_index)
            m.d.comb += place.eq(Mux(above, 0, argument[: EXP2.step_bits]))
        with m.Elif(c.sine):
            m.d.comb += index.eq(Cat(sine_index, 1))
            inverted = fraction[: SINE.step_bits] ^ (backwards ^ minus).replicate(SINE.step_bits)
            m.d.comb += place.eq(inverted)
        with m.Else():
            for table, chosen in ((silu, c.silu), (gelu, ~c.silu)):
                with m.If(chosen):
                    m.d.comb += index.eq(argument[table.step_bits :])
                    m.d.comb += place.eq(argument[: table.step_bits])
                    m.d.comb += end.eq(argument[table.step_bits + INDEX_BITS :].any())
        m.d.comb += self.address.eq(Cat(index, c.row))

        # The sine's sign goes to the rest: minus the place is its complement plus one.
        low2, high2 = Signal(REST_BITS - 1, reset_less=True), Signal(2, reset_less=True)
        carry2, beyond2, minus2 = (Signal(reset_less=True, name=n) for n in ("c2", "b2", "m2"))
        m.d.sync += [
            low2.eq(Mux(end, 0, place)),
            high2.eq(minus.replicate(2)),
            carry2.eq(backwards ^ minus),
            beyond2.eq(end),
            minus2.eq(minus),
        ]
        whole = Signal.like(self.whole, reset_less=True)
        far = argument[EXP2_BITS + 5 :].any().replicate(5)
        m.d.sync += whole.eq(Mux(c.exp2 & ~above, argument[EXP2_BITS : EXP2_BITS + 5] | far, 0))
        m.d.comb += self.whole.eq(whole)

        rest, beyond3, minus3 = (
            Signal.like(v, name=f"{v.name}3", reset_less=True)
            for v in (self.rest, self.beyond, self.minus)
        )
        short = Cat(low2[: SINE.step_bits], high2[0].replicate(REST_BITS - SINE.step_bits))
        long = Cat(low2, 0)
        m.d.sync += [
            rest.eq(Mux(c.sine, short, long) + carry2),
            beyond3.eq(beyond2),
            minus3.eq(minus2),
        ]
        m.d.comb += [self.rest.eq(rest), self.beyond.eq(beyond3), self.minus.eq(minus3)]
        return m
