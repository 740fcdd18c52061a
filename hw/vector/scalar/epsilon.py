"""The epsilon of a norm, in units of its mean square."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.config import RESULT_FRAC
from golden.vector import EPSILON_BITS

SQUARE_BITS = 62
LEFT_MOST = 40
RIGHT_MOST = 1 << EPSILON_BITS.bit_length()
"""Beyond, nothing is left of it."""


class ScalarEpsilon(wiring.Component):
    """``mantissa * 2**(2 * (RESULT_FRAC + amount) + 6 + exponent)``, rounded half to even.

    Ports
    -----
    start (in, 1): Pulses when ``word`` and ``amount`` are there.
    word (in, signed 32): The operand `immediate` of ROOT: mantissa in the low bits, exponent of two
        in the top eight (`golden.vector.EPSILON_BITS`).
    amount (in, signed 7): The register of that name.
    value (out, 62): The value without its last rounding, LEFT_MOST cycles after ``start`` at the
        latest.
    carry (out, 1): High when the rounded value is one more, likewise.
    """

    def __init__(self):
        super().__init__(
            {
                "start": In(1),
                "word": In(signed(32)),
                "amount": In(signed(7)),
                "value": Out(SQUARE_BITS),
                "carry": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        power = Signal(signed(7))
        wanted = Signal(signed(10))
        half = Signal()
        inexact = Signal()
        exponent = self.word[24:].as_signed()
        low = self.value[:EPSILON_BITS]
        m.d.comb += wanted.eq(2 * self.amount + exponent + (2 * RESULT_FRAC + 6))
        far_left, far_right = wanted >= LEFT_MOST, wanted < -RIGHT_MOST
        with m.If(self.start):
            m.d.sync += [
                power.eq(Mux(far_left, LEFT_MOST, Mux(far_right, -RIGHT_MOST, wanted))),
                self.value.eq(self.word[:EPSILON_BITS]),
                half.eq(0),
                inexact.eq(0),
            ]
        with m.Elif(power != 0):
            # A value that moves right never has bits above the mantissa.
            right = power[-1]
            moved = Mux(right, low >> 1, low << 1)
            m.d.sync += [
                power.eq(power + Mux(right, 1, -1)),
                self.value.eq(Cat(moved[:EPSILON_BITS], self.value[EPSILON_BITS - 1 : -1])),
            ]
            with m.If(right):
                m.d.sync += [
                    self.value[EPSILON_BITS].eq(0),
                    half.eq(low[0]),
                    inexact.eq(inexact | half),
                ]
        m.d.comb += self.carry.eq(half & (inexact | self.value[0]))
        return m
