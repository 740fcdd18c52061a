"""One lane of the vector unit: an element each cycle, from operands to result."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from golden.arith import GUARD_BITS
from golden.config import RESULT_BITS, AccelConfig
from golden.vector import SINE_BITS, SUM_BITS

from .adders import add_subtract
from .requant import saturate
from .vector_argument import VectorArgument
from .vector_coder import VectorCoder
from .vector_control import CONTROL
from .vector_multiplier import VectorMultiplier
from .vector_shifter import MOST, VectorShifter
from .vector_tables import ENTRY, EXTRA, INDEX_BITS

SETTINGS = data.StructLayout(
    {
        "base": signed(RESULT_BITS + 1),  # what the argument of a table is counted from
        "distance": signed(12),  # how far to move right
        "constant": signed(RESULT_BITS),  # second operand of the product, where it is no element
        "factor": signed(RESULT_BITS),
    }
)
"""What the registers of a segment, the position and the instruction come to."""


class VectorLane(wiring.Component):
    """``y`` of `golden.vector`: the argument of a table or its like, operands, product, shift, sum,
    saturation.

    Ports
    -----
    a, b: elements; ``b`` of the next word where there is none
    control, settings: constant from the cycle of a and b to the third after it
    address, entry, extra: of `VectorTables`, one cycle after a and b, and the cycle after that
    step, second: `product_at` cycles after a and b, of `VectorMultiplier`
    keep: `latency` - 1 cycles after a and b: y is not to be zero
    y: `latency` cycles after a and b; ``high``: of SQUARE, what is above

    A value's name ends with how many cycles it is behind a and b.
    """

    product_at = 5
    latency = 12

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "a": In(signed(RESULT_BITS)),
                "b": In(signed(RESULT_BITS)),
                "control": In(CONTROL),
                "settings": In(SETTINGS),
                "address": Out(INDEX_BITS + 2),
                "entry": In(ENTRY),
                "extra": In(EXTRA),
                "step": In(1),
                "second": In(1),
                "keep": In(1),
                "y": Out(signed(RESULT_BITS)),
                "high": Out(SUM_BITS - RESULT_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c, settings = self.control, self.settings
        m.submodules.argument = argument = VectorArgument()
        m.submodules.coder = coder = VectorCoder(self.config.span)
        m.submodules.multiplier = multiplier = VectorMultiplier()
        m.submodules.shifter = shifter = VectorShifter()
        a1, b1 = _after(m, self.a, "a1"), _after(m, self.b, "b1")
        a2, b2 = _after(m, a1, "a2"), _after(m, b1, "b2")
        a3, b3 = _after(m, a2, "a3"), _after(m, b2, "b3")
        m.d.comb += [
            argument.control.eq(c),
            argument.a.eq(self.a),
            argument.base.eq(settings.base),
            self.address.eq(argument.address),
            coder.magnitude.eq(argument.magnitude),
            coder.negative.eq(a1[-1]),
        ]

        # How far to shift: b of SHIFT_EACH counts, as int8.
        byte2, apart = Signal(signed(8), reset_less=True), Signal(signed(13))
        right3 = Signal(range(MOST + 1), reset_less=True)
        m.d.sync += byte2.eq(saturate(b1, 8))
        m.d.comb += apart.eq(settings.distance - Mux(c.shift_each, byte2, 0))
        m.d.sync += right3.eq(Mux(apart < 0, 0, Mux(apart > MOST, MOST, apart)))

        # What is added after the shift, in two parts.
        positive = ~a2[-1] & coder.some
        part3, part = Signal(signed(RESULT_BITS), reset_less=True), Signal(signed(RESULT_BITS))
        with m.If(c.add | c.angle):
            m.d.comb += part.eq(b2)
        with m.If(c.lengths & positive):
            m.d.comb += part.eq(byte2)
        with m.If(c.residue | ((c.activation | c.relu) & ~a2[-1])):
            m.d.comb += part.eq(a2)
        with m.If(c.subtract):
            m.d.comb += part.eq(settings.factor)
        m.d.sync += part3.eq(part)
        entry3, extra3 = _after(m, self.entry, "entry3"), _after(m, self.extra, "extra3")
        positive3 = _after(m, positive, "positive3")
        other = Signal(signed(26))
        with m.If(c.exp2):
            m.d.comb += other.eq(Cat(entry3.low, extra3.low))
        with m.Elif(c.table):
            m.d.comb += other.eq(entry3.low)
        with m.Elif(c.code):
            m.d.comb += other.eq(coder.code)
        with m.Elif(c.lengths):
            m.d.comb += other.eq(Mux(positive3, coder.length, -128))
        minus = argument.minus & c.sine
        keep = (c.table & ~argument.beyond) | c.code | c.lengths
        added = add_subtract(
            m, platform, "parts", part3, other, subtract=minus, carry=minus, keep=keep
        )

        # The product.
        x, y = (Signal(signed(RESULT_BITS)) for _ in range(2))
        m.d.comb += [x.eq(a3), y.eq(settings.constant)]
        with m.If(c.table):
            high = Mux(c.exp2, extra3.step, entry3.step[-1].replicate(6))
            m.d.comb += [x.eq(Cat(entry3.step, high).as_signed()), y.eq(argument.rest)]
        with m.If(c.residue):
            m.d.comb += [x.eq(coder.significand), y.eq(coder.power)]
        with m.If(c.multiply):
            m.d.comb += y.eq(b3)
        with m.If(c.rotate):
            m.d.comb += y.eq(b3[:SINE_BITS].as_signed())
        with m.If(c.square):
            m.d.comb += y.eq(a3)
        m.d.comb += [
            multiplier.x.eq(_after(m, x, "x4")),
            multiplier.y.eq(_after(m, y, "y4")),
            multiplier.step.eq(self.step),
            multiplier.second.eq(self.second),
            shifter.value.eq(multiplier.total),
            shifter.right.eq(_later(m, right3, "right", 3, 6)),
            shifter.wrap.eq(c.wrap),
        ]
        self._finish(m, platform, shifter.result, _later(m, added, "added", 3, 9), argument.whole)
        high = _later(m, multiplier.total[RESULT_BITS:SUM_BITS], "high", 6, 12)
        m.d.comb += self.high.eq(high)
        return m

    def _finish(self, m, platform, scaled9, added9, whole):
        """Sum, right shift of EXP2, saturation."""
        c = self.control
        wide = Signal(signed(GUARD_BITS + 1))
        m.d.comb += wide.eq(scaled9)
        sum10 = _after(
            m,
            add_subtract(m, platform, "sum", wide, added9, subtract=c.subtract, carry=c.subtract),
            "sum10",
        )
        # Values of EXP2 have 25 bits; of other functions, the amount is 0.
        powers = sum10[:25] >> _later(m, whole, "whole", 2, 10)
        value = _after(m, Cat(powers, sum10[25:]).as_signed(), "value11")
        sign = value[-1]
        guard = (~c.wrap).replicate(GUARD_BITS + 1 - RESULT_BITS)
        bound = Cat(c.bound, guard)
        leaves = Mux(sign, (~value & bound).any(), (value & bound).any())
        edge = Cat(Mux(c.bound[bit], sign, ~sign) for bit in range(RESULT_BITS))
        y = Signal.like(self.y, reset_less=True)
        m.d.sync += y.eq(Mux(leaves, edge, value[:RESULT_BITS]))
        with m.If(~self.keep):
            m.d.sync += y.eq(0)
        m.d.comb += self.y.eq(y)


def _after(m, value, name):
    """The value of the cycle before."""
    kept = Signal.like(value, name=name, reset_less=True)
    m.d.sync += kept.eq(value)
    return kept


def _later(m, value, name, begin, end):
    for number in range(begin + 1, end + 1):
        value = _after(m, value, f"{name}{number}")
    return value
