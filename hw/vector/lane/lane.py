"""One lane of the vector unit: an element each cycle, from operands to result."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from golden.config import RESULT_BITS, RESULT_FRAC, AccelConfig
from golden.vector import SINE_BITS, SUM_BITS

from ...lib.adders import add_subtract
from ...lib.saturate import saturate
from ..coder import VectorCoder
from ..decoder import CONTROL, ROW_BITS
from ..tables import ENTRY, EXTRA, INDEX_BITS
from .multiplier import LOW_BITS, VectorMultiplier
from .saturate import VectorSaturate
from .shifter import MOST, VectorShifter
from .table_argument import TableArgument

SETTINGS = data.StructLayout(
    {
        "base": signed(RESULT_BITS + 1),  # what the argument of a table is counted from
        "distance": signed(12),  # how far to move right
        "constant": signed(RESULT_BITS),  # second operand of the product, where it is no element
        "minus": signed(RESULT_BITS + 1),  # minus the factor
    }
)
"""What the registers of a segment, the position and the instruction come to."""


class VectorLane(wiring.Component):
    """One lane of the vector unit: ``y`` of `golden.vector` for an element each cycle, `latency`
    cycles later. The argument of a table or its like, operands, product, shift, sum, saturation.

    A value's name in the code ends with how many cycles it is behind a and b.

    Ports
    -----
    a (in, signed 32): An element of the first operand.
    b (in, signed 32): An element of the second operand; of the next word where there is none.
    control (in, struct): The instruction, decoded; constant from the cycle of ``a`` on, until
        ``y``.
    settings (in, struct): What the registers of the segment come to: ``base`` in the cycle after
        ``a``, the others one cycle later, until the fifth after it.
    address (out, INDEX_BITS + ROW_BITS): For `VectorTables`, three cycles after ``a``.
    entry (in, struct), extra (in, struct): What the tables have there, four cycles after ``a``.
    step (in, 1), second (in, 1): For `VectorMultiplier`, `product_at` cycles after ``a``.
    keep (in, 1): High when ``y`` is not to be zero, `latency` - 1 cycles after ``a``.
    y (out, signed 56): The result.
    saturated (out, 1): High when ``y`` saturated to 32 bits.
    """

    product_at = 8
    latency = 14

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "a": In(signed(RESULT_BITS)),
                "b": In(signed(RESULT_BITS)),
                "control": In(CONTROL),
                "settings": In(SETTINGS),
                "address": Out(INDEX_BITS + ROW_BITS),
                "entry": In(ENTRY),
                "extra": In(EXTRA),
                "step": In(1),
                "second": In(1),
                "keep": In(1),
                "y": Out(signed(SUM_BITS)),
                "saturated": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.control
        m.submodules.argument = argument = TableArgument()
        m.submodules.coder = coder = VectorCoder(self.config.span)
        m.submodules.multiplier = multiplier = VectorMultiplier()
        m.submodules.shifter = shifter = VectorShifter()
        m.submodules.saturate = end = VectorSaturate()
        a1, b1 = _after(m, self.a, "a1"), _after(m, self.b, "b1")
        a2, b2 = _after(m, a1, "a2"), _after(m, b1, "b2")
        a3, b3 = _after(m, a2, "a3"), _after(m, b2, "b3")
        a4, b4 = _after(m, a3, "a4"), _after(m, b3, "b4")
        byte4 = _after(m, saturate(b3, 8), "byte4")
        m.d.comb += [
            argument.control.eq(c),
            argument.a.eq(a1),
            argument.base.eq(self.settings.base),
            self.address.eq(argument.address),
            coder.magnitude.eq(_after(m, argument.magnitude, "magnitude3")),
            coder.negative.eq(a3[-1]),
        ]
        shift6 = self._distance(m, platform, byte4, argument.whole)
        part11 = _later(m, self._part(m, a4, b4), "part", 5, 11)
        x7, y7, low6 = self._operands(m, a4, b4, byte4, coder, argument)
        m.d.comb += [
            multiplier.x.eq(x7),
            multiplier.y.eq(y7),
            multiplier.step.eq(self.step),
            multiplier.second.eq(self.second),
            multiplier.table.eq(c.table),
            multiplier.low.eq(_later(m, low6, "low", 6, 8)),
            shifter.value.eq(multiplier.total),
            shifter.right.eq(_later(m, shift6, "right", 6, 8)),
            shifter.wrap.eq(c.wrap),
            shifter.cut.eq(c.table),
            end.control.eq(c),
            end.whole.eq(shifter.whole),
            end.up.eq(shifter.up),
            end.over.eq(shifter.over),
            end.minus.eq(shifter.minus),
            end.added.eq(_after(m, part11, "part12")),
            end.negate.eq(_after(m, c.tanh & ~part11[-1], "negate12")),
            end.high.eq(_later(m, multiplier.total[RESULT_BITS:SUM_BITS], "high", 9, 13)),
            end.keep.eq(self.keep),
            self.y.eq(end.y),
            self.saturated.eq(end.saturated),
        ]
        return m

    def _distance(self, m, platform, byte4, whole4):
        """How far to shift right: in SHIFT_EACH less by b, in EXP2 more by what lies before the
        argument's point."""
        c = self.control
        by = Signal(signed(8))
        m.d.comb += by.eq(Mux(c.exp2, whole4, byte4))
        apart = add_subtract(
            m,
            platform,
            "apart",
            self.settings.distance,
            by,
            subtract=c.shift_each,
            carry=c.shift_each,
            keep=c.shift_each | c.exp2,
        )
        apart5 = _after(m, apart, "apart5")
        far = apart5[:-1] >= MOST
        right = Mux(apart5[-1], 0, Mux(far, MOST, apart5[: MOST.bit_length()]))
        return _after(m, right, "shift6")

    def _part(self, m, a4, b4):
        """What is added after the shift."""
        c = self.control
        choices = Mux(c.adds_a, a4, Mux(c.subtract, self.settings.minus, b4))
        part = Signal(signed(RESULT_BITS + 1), name="part5", reset_less=True)
        m.d.sync += part.eq(choices)
        ramp = (c.activation | c.relu) & a4[-1]
        with m.If(~(c.adds_a | c.subtract | c.add | c.angle) | ramp):
            m.d.sync += part.eq(0)
        with m.If(c.tanh):  # 1 - tanh comes from the table: to take from 1, or to add to -1
            m.d.sync += part.eq(Mux(a4[-1], -1 << RESULT_FRAC, 1 << RESULT_FRAC))
        return part

    def _operands(self, m, a4, b4, byte4, coder, argument):
        """Of the product, and the entry of the table."""
        c = self.control
        a5 = _after(m, a4, "a5")
        b5 = _after(m, Mux(c.rotate, b4[:SINE_BITS].as_signed(), b4), "b5")
        beyond5 = _after(m, argument.beyond, "beyond5")
        entry5, extra5 = (
            data.View(port.shape(), _after(m, port.as_value(), f"{name}5"))
            for name, port in (("entry", self.entry), ("extra", self.extra))
        )
        wide = []
        for name in ("low", "step"):
            value, above = entry5[name], extra5[name].as_unsigned()
            more = Mux(c.exp2 | c.tanh, above, value[-1].replicate(len(above)))
            wide.append(Cat(value, more))
        low6 = _after(m, wide[0].as_signed(), "low6")
        with m.If(~c.table | beyond5):
            m.d.sync += low6.eq(0)
        second = Array([self.settings.constant, b5, a5, argument.rest])
        x6 = _after(m, Mux(c.table, wide[1].as_signed(), a5), "x6")
        y6 = _after(m, second[c.times], "y6")
        assert len(low6) == LOW_BITS

        # Codes and lengths come a cycle later than the other operands.
        more6 = _later(m, byte4 + 1, "more", 4, 6)
        a6_minus = _after(m, a5[-1], "a6_minus")
        small = Signal(signed(9))
        with m.If(c.residue):
            m.d.comb += small.eq(coder.significand)
        with m.Elif(c.code):
            m.d.comb += small.eq(coder.code)
        with m.Else():  # LENGTHS
            m.d.comb += small.eq(Mux(coder.some & ~a6_minus, coder.place + more6, -128))
        is_small = c.residue | c.code | c.lengths
        x = Signal(signed(RESULT_BITS))
        y = Signal(signed(RESULT_BITS))
        m.d.comb += [
            x.eq(Mux(is_small, small, x6)),
            y.eq(Mux(c.residue, coder.power, y6)),
        ]
        return _after(m, x, "x7"), _after(m, y, "y7"), low6


def _after(m, value, name):
    """The value of the cycle before."""
    kept = Signal.like(value, name=name, reset_less=True)
    m.d.sync += kept.eq(value)
    return kept


def _later(m, value, name, begin, end):
    for number in range(begin + 1, end + 1):
        value = _after(m, value, f"{name}{number}")
    return value
