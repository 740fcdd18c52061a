"""One lane of the vector unit: an element each cycle, from operands to result."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from golden.config import RESULT_BITS, AccelConfig
from golden.vector import SINE_BITS, SUM_BITS

from .adders import add_subtract
from .requant import saturate
from .vector_argument import VectorArgument
from .vector_coder import VectorCoder
from .vector_control import CONTROL
from .vector_multiplier import LOW_BITS, VectorMultiplier
from .vector_saturate import VectorSaturate
from .vector_shifter import MOST, VectorShifter
from .vector_tables import ENTRY, EXTRA, INDEX_BITS

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
    """``y`` of `golden.vector`: the argument of a table or its like, operands, product, shift, sum,
    saturation.

    Ports
    -----
    a, b: elements; ``b`` of the next word where there is none
    control, settings: constant from the cycle of a and b to the third after it
    address, entry, extra: of `VectorTables`, one cycle after a and b, and the cycle after that
    step, second: `product_at` cycles after a and b, of `VectorMultiplier`
    keep: `latency` - 1 cycles after a and b: y is not to be zero
    y: `latency` cycles after a and b

    A value's name ends with how many cycles it is behind a and b.
    """

    product_at = 6
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
                "y": Out(signed(SUM_BITS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.control
        m.submodules.argument = argument = VectorArgument()
        m.submodules.coder = coder = VectorCoder(self.config.span)
        m.submodules.multiplier = multiplier = VectorMultiplier()
        m.submodules.shifter = shifter = VectorShifter()
        m.submodules.saturate = end = VectorSaturate()
        a1, b1 = _after(m, self.a, "a1"), _after(m, self.b, "b1")
        a2, b2 = _after(m, a1, "a2"), _after(m, b1, "b2")
        byte2 = _after(m, saturate(b1, 8), "byte2")
        m.d.comb += [
            argument.control.eq(c),
            argument.a.eq(self.a),
            argument.base.eq(self.settings.base),
            self.address.eq(argument.address),
            coder.magnitude.eq(argument.magnitude),
            coder.negative.eq(a1[-1]),
        ]
        shift3 = self._distance(m, platform, byte2, argument.whole)
        part3 = self._part(m, a2, b2)
        x5, y5, low4 = self._operands(m, a2, b2, byte2, coder, argument)
        m.d.comb += [
            multiplier.x.eq(x5),
            multiplier.y.eq(y5),
            multiplier.step.eq(self.step),
            multiplier.second.eq(self.second),
            multiplier.table.eq(c.table),
            multiplier.low.eq(_later(m, low4, "low", 4, 6)),
            shifter.value.eq(multiplier.total),
            shifter.right.eq(_later(m, shift3, "right", 3, 6)),
            shifter.wrap.eq(c.wrap),
            shifter.cut.eq(c.table),
            end.control.eq(c),
            end.whole.eq(shifter.whole),
            end.up.eq(shifter.up),
            end.over.eq(shifter.over),
            end.minus.eq(shifter.minus),
            end.added.eq(_later(m, part3, "part", 3, 10)),
            end.high.eq(_later(m, multiplier.total[RESULT_BITS:SUM_BITS], "high", 7, 11)),
            end.keep.eq(self.keep),
            self.y.eq(end.y),
        ]
        return m

    def _distance(self, m, platform, byte2, whole2):
        """How far to shift right: in SHIFT_EACH less by b, in EXP2 more by what lies before the
        argument's point."""
        c = self.control
        by = Signal(signed(8))
        m.d.comb += by.eq(Mux(c.exp2, whole2, byte2))
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
        far = apart[:-1] >= MOST
        return _after(m, Mux(apart[-1], 0, Mux(far, MOST, apart[: MOST.bit_length()])), "shift3")

    def _part(self, m, a2, b2):
        """What is added after the shift."""
        c = self.control
        choices = Mux(c.adds_a, a2, Mux(c.subtract, self.settings.minus, b2))
        part = Signal(signed(RESULT_BITS + 1), name="part3", reset_less=True)
        m.d.sync += part.eq(choices)
        ramp = (c.activation | c.relu) & a2[-1]
        with m.If(~(c.adds_a | c.subtract | c.add | c.angle) | ramp):
            m.d.sync += part.eq(0)
        return part

    def _operands(self, m, a2, b2, byte2, coder, argument):
        """Of the product, and the entry of the table."""
        c = self.control
        a3 = _after(m, a2, "a3")
        b3 = _after(m, Mux(c.rotate, b2[:SINE_BITS].as_signed(), b2), "b3")
        beyond3 = _after(m, argument.beyond, "beyond3")
        entry3, extra3 = (
            data.View(port.shape(), _after(m, port.as_value(), f"{name}3"))
            for name, port in (("entry", self.entry), ("extra", self.extra))
        )
        wide = []
        for name in ("low", "step"):
            value, above = entry3[name], extra3[name].as_unsigned()
            wide.append(Cat(value, Mux(c.exp2, above, value[-1].replicate(len(above)))))
        low4 = _after(m, wide[0].as_signed(), "low4")
        with m.If(~c.table | beyond3):
            m.d.sync += low4.eq(0)
        second = Array([self.settings.constant, b3, a3, argument.rest])
        x4 = _after(m, Mux(c.table, wide[1].as_signed(), a3), "x4")
        y4 = _after(m, second[c.times], "y4")
        assert len(low4) == LOW_BITS

        # Codes and lengths take a cycle more.
        more4 = _later(m, byte2 + 1, "more", 2, 4)
        a4_minus = _after(m, a3[-1], "a4_minus")
        small = Signal(signed(9))
        with m.If(c.residue):
            m.d.comb += small.eq(coder.significand)
        with m.Elif(c.code):
            m.d.comb += small.eq(coder.code)
        with m.Else():  # LENGTHS
            m.d.comb += small.eq(Mux(coder.some & ~a4_minus, coder.place + more4, -128))
        is_small = c.residue | c.code | c.lengths
        x, y = (Signal(signed(RESULT_BITS)) for _ in range(2))
        m.d.comb += [
            x.eq(Mux(is_small, small, x4)),
            y.eq(Mux(c.residue, coder.power, y4)),
        ]
        return _after(m, x, "x5"), _after(m, y, "y5"), low4


def _after(m, value, name):
    """The value of the cycle before."""
    kept = Signal.like(value, name=name, reset_less=True)
    m.d.sync += kept.eq(value)
    return kept


def _later(m, value, name, begin, end):
    for number in range(begin + 1, end + 1):
        value = _after(m, value, f"{name}{number}")
    return value
