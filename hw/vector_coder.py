"""Lengths of integers, and RF8 codes of them, in a lane of the vector unit."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.layers import CODE_FRAC
from golden.rf8 import SIGNIFICANDS, thresholds

BITS = 32
KEPT = 6  # bits of a magnitude that rounding sees: its first one, and five behind
CODE_WEIGHT = CODE_FRAC - 4  # codes' integers are in units of 2**-4
LAST = len(SIGNIFICANDS) - 1


class VectorCoder(wiring.Component):
    """Finds the leading one of a magnitude, and the code that is nearest.

    Two cycles move the leading one to the top; what falls below the bits that rounding looks at is
    kept as one bit.

    Ports
    -----
    magnitude, negative: of an integer with CODE_FRAC fraction bits
    some: after one cycle: it is not zero
    length: after two, as all that follows: its bits
    code: its RF8 code
    carry: it is rounded to the next power of two, were exponents without limit
    significand, power: minus the code's value is their product, with CODE_FRAC fraction bits
    """

    latency = 2

    def __init__(self, span: int):
        self.span = span
        super().__init__(
            {
                "magnitude": In(BITS),
                "negative": In(1),
                "some": Out(1),
                "length": Out(range(BITS + 1)),
                "code": Out(8),
                "carry": Out(1),
                "significand": Out(signed(6)),
                "power": Out(16 + CODE_WEIGHT),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # A level moves the value up by ``step`` where that loses nothing.
        value, low, above = self.magnitude, Const(0, 1), []  # value ends at the top bit
        rest = BITS  # how far it may yet have to move
        for step in (16, 8, 4, 2, 1):
            rest -= step
            if step == 4:
                kept = Signal(len(value), name="value5", reset_less=True)
                bit, high = Signal(name="rest5", reset_less=True), Signal(2, reset_less=True)
                m.d.sync += [kept.eq(value), bit.eq(low), high.eq(Cat(above))]
                m.d.comb += self.some.eq(kept[-8:].any())
                value, low, above = kept, bit, list(high)
            stay = value[-step:].any()
            width = min(KEPT + rest - 1, BITS)
            moved = Mux(stay, value, (value << step)[: len(value)])
            low = low | (stay & value[: len(value) - width].any())
            above.insert(0, stay)
            value, low = moved[-width:], low
        top, fraction = Signal(BITS.bit_length() - 1), Signal(KEPT)
        some, negative = Signal(reset_less=True), Signal(2)
        m.d.sync += [
            top.eq(Cat(above)),
            fraction.eq(Cat(low, value[:-1])),
            some.eq(value[-1]),
            negative.eq(Cat(self.negative, negative)),
        ]
        m.d.comb += self.length.eq(Mux(some, top + 1, 0))
        self._round(m, top, fraction, some, negative[1])
        return m

    def _round(self, m, top, fraction, some, negative):
        """From the place of the leading one and the bits behind it, the last standing for all."""
        passed = [at_least(fraction, start) for start in thresholds("nearest_even", KEPT)]
        mantissa, carry = Signal(3), self.carry
        for number in range(1, LAST + 1):
            with m.If(passed[number - 1]):
                m.d.comb += mantissa.eq(number)
        with m.If(passed[-1]):
            m.d.comb += [mantissa.eq(0), carry.eq(1)]
        octave, zero = Signal(signed(7)), Signal()
        exponent, m_code = Signal(4), Signal(3)
        m.d.comb += octave.eq(top - CODE_FRAC + carry)
        m.d.comb += [exponent.eq(octave), m_code.eq(mantissa)]
        m.d.comb += zero.eq(octave[-1] | ~at_least(octave[:5], 16 - self.span))
        with m.If(octave[4] & ~octave[-1]):
            m.d.comb += [exponent.eq(15), m_code.eq(LAST)]
        if self.span == 16:  # the smallest code is no power of two
            smallest = (top == CODE_FRAC - 1) & fraction[2:].any()
            m.d.comb += zero.eq(~at_least(top, CODE_FRAC))
            with m.If(smallest):
                m.d.comb += [zero.eq(0), exponent.eq(0), m_code.eq(1)]
            with m.If((top == CODE_FRAC) & (mantissa == 0) & ~carry):
                m.d.comb += m_code.eq(1)
        nothing = zero | ~some
        minus = Array(Const(-f, 6) for f in (*SIGNIFICANDS, 0))
        plus = Array(Const(f, 6) for f in (*SIGNIFICANDS, 0))
        m.d.comb += [
            self.code.eq(Mux(nothing, 0, Cat(m_code, exponent, negative))),
            self.significand.eq(Mux(nothing, 0, Mux(negative, plus[m_code], minus[m_code]))),
            self.power.eq(Const(1 << CODE_WEIGHT, 16 + CODE_WEIGHT) << exponent),
        ]


def at_least(value, bound: int):
    """``value >= bound``, both unsigned, in tables: a carry chain would be longer than few bits."""
    result = Const(1)
    for bit, wanted in zip(value, f"{bound:0{len(value)}b}"[::-1], strict=True):
        result = (bit & result) if wanted == "1" else (bit | result)
    return result
