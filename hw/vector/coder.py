"""Lengths of integers, and RF8 codes of them, in a lane of the vector unit."""

from functools import reduce
from itertools import pairwise
from operator import or_

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.format import EXPONENTS, SIGNIFICANDS, thresholds
from golden.layers import CODE_FRAC

BITS = 32
KEPT = 6  # bits that rounding looks at: the leading one and five below it
CODE_WEIGHT = (
    CODE_FRAC - 4
)  # fraction bits beyond those of a code's integer, which counts in units of 2**-4
LAST = len(SIGNIFICANDS) - 1
LARGEST = CODE_FRAC + EXPONENTS
"""From a leading one at this bit on, the code is the largest."""


class VectorCoder(wiring.Component):
    """Finds the leading one of a magnitude, and the RF8 code that is nearest; `latency` cycles
    later.

    Two cycles move the leading one to the top; what falls below the bits that rounding looks at is
    kept as one bit. The third rounds.

    Parameters
    ----------
    span: exponents that the machine keeps; what lies below becomes code 0

    Ports
    -----
    magnitude (in, 32): Of an integer with CODE_FRAC fraction bits.
    negative (in, 1): High when the integer is below zero.
    some (out, 1): High when it is not zero.
    place (out, 5): Number of the bit of its leading one.
    code (out, 8): Its RF8 code at bias 0.
    carry (out, 1): High when rounding carries it to the next power of two, were exponents without
        limit.
    significand (out, signed 6), power (out, 18): Their product is minus the code's value, with
        CODE_FRAC fraction bits.
    """

    latency = 3

    def __init__(self, span: int):
        self.span = span
        super().__init__(
            {
                "magnitude": In(BITS),
                "negative": In(1),
                "some": Out(1),
                "place": Out(range(BITS)),
                "code": Out(8),
                "carry": Out(1),
                "significand": Out(signed(6)),
                "power": Out(16 + CODE_WEIGHT),
            }
        )

    def elaborate(self, platform):
        m = Module()
        value, low, above = self._byte(m)  # the leading one is in the value's upper eight bits
        # Each level moves the value up by ``step`` bits if its upper ``step`` bits are zero.
        rest = 8  # by how many bits it may still have to move
        for step in (4, 2, 1):
            rest -= step
            stay = value[-step:].any()
            width = KEPT + rest - 1
            moved = Mux(stay, value, (value << step)[: len(value)])
            low = low | (stay & value[: len(value) - width].any())
            above.insert(0, stay)
            value = moved[-width:]
        value, low, high = self._held(m, "one", value, low, above)
        above = list(high)

        fraction = Signal(KEPT)  # its lowest bit stands for all bits further down
        m.d.comb += fraction.eq(Cat(low, value[:-1]))
        passed = [at_least(fraction, start) for start in thresholds("nearest_even", KEPT)]
        # Thresholds ascend, so the code is where `passed` changes; the last one is the next octave.
        first = [p & ~q for p, q in pairwise(passed)]
        mantissa = Signal(3)
        smallest = Signal()
        negative = Signal(3)
        limits = [self._reached(m, Cat(above), bound) for bound in (LARGEST, LARGEST - self.span)]
        m.d.sync += [
            mantissa.eq(
                Cat(
                    Cat(first[n - 1] for n in range(1, LAST + 1) if n >> bit & 1).any()
                    for bit in range(3)
                )
            ),
            self.carry.eq(passed[-1]),
            smallest.eq(fraction[2:].any()),
            self.place.eq(Cat(above)),
            self.some.eq(value[-1]),
            negative.eq(Cat(self.negative, negative)),
        ]
        self._round(m, mantissa, smallest, negative[2], *limits)
        return m

    def _byte(self, m):
        """What matters from the first byte on that is not zero; what is below; the byte's number.

        All bytes at once, as one step after the other would take too long.
        """
        bits, width = self.magnitude, KEPT + 7
        second, third, fourth = (bits[n : n + 8].any() for n in range(8, BITS, 8))
        upper = third | fourth
        first = (~second & ~upper, second & ~upper, third & ~fourth, fourth)
        padded = Cat(Const(0, width - 8), bits)
        parts = [padded[n : n + width] for n in range(0, BITS, 8)]
        below = [bits[: max(0, n + 8 - width)].any() for n in range(0, BITS, 8)]
        value, low, high = self._held(
            m,
            "byte",
            reduce(
                or_, (part & it.replicate(width) for part, it in zip(parts, first, strict=True))
            ),
            reduce(or_, (rest & it for rest, it in zip(below, first, strict=True))),
            [first[1] | first[3], upper],
        )
        return value, low, list(high)

    def _held(self, m, name, value, low, above):
        """The same, a cycle later."""
        now = (value, low, Cat(above))
        held = [Signal(len(v), name=f"{name}{n}", reset_less=True) for n, v in enumerate(now)]
        m.d.sync += [kept.eq(v) for kept, v in zip(held, now, strict=True)]
        return held

    def _reached(self, m, top, bound):
        """In the next cycle, whether the leading one is at ``bound`` or above when rounded."""
        past = Signal()
        just = Signal()
        m.d.sync += [past.eq(at_least(top, bound)), just.eq(top == bound - 1)]
        return past | (just & self.carry)

    def _round(self, m, mantissa, smallest, negative, large, enough):
        """The code, from the place of the leading one and how what is behind it is rounded."""
        top, some, carry = self.place, self.some, self.carry
        exponent = Signal(4)
        m_code = Signal(3)
        zero = Signal()
        m.d.comb += [exponent.eq(top - CODE_FRAC + carry), m_code.eq(mantissa)]
        m.d.comb += zero.eq(~enough | ~some)
        with m.If(large):
            m.d.comb += [exponent.eq(15), m_code.eq(LAST)]
        if self.span == 16:  # with all exponents the smallest code is 17/16, no power of two
            under = top == CODE_FRAC - 1
            m.d.comb += zero.eq(~at_least(top, CODE_FRAC - 1) | ~some | (under & ~smallest))
            with m.If(under):
                m.d.comb += [exponent.eq(0), m_code.eq(1)]
            with m.If((top == CODE_FRAC) & (mantissa == 0) & ~carry):
                m.d.comb += m_code.eq(1)
        significands = Array(Const(-f, 6) for f in (*SIGNIFICANDS, 0))
        opposite = Array(Const(f, 6) for f in (*SIGNIFICANDS, 0))
        significand = Mux(negative, opposite[m_code], significands[m_code])
        m.d.comb += [
            self.code.eq(Mux(zero, 0, Cat(m_code, exponent, negative))),
            self.significand.eq(Mux(zero, 0, significand)),
            self.power.eq(Const(1 << CODE_WEIGHT, 16 + CODE_WEIGHT) << exponent),
        ]


def at_least(value, bound: int):
    """``value >= bound``, both unsigned, in tables: a carry chain would be longer than few bits."""
    result = Const(1)
    for bit, wanted in zip(value, f"{bound:0{len(value)}b}"[::-1], strict=True):
        result = (bit & result) if wanted == "1" else (bit | result)
    return result
