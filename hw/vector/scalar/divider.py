"""Quotients and square roots of the vector unit, one bit a cycle."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.config import RESULT_BITS
from golden.isa import After
from golden.layers import EXP_FRAC, INVERSE_FRAC
from golden.vector import SUM_BITS

from ...lib.adders import add_subtract
from ...lib.instruction import COUNT, OPERANDS
from .epsilon import SQUARE_BITS, ScalarEpsilon
from .steps import INVERSE_BITS, ScalarSteps

INVERSE_STEPS = 41
"""Of the division of 2**40."""


class ScalarDivider(wiring.Component):
    """Quotients and square roots, one bit a cycle: MEAN, ROOT and RECIPROCAL of `golden.isa.After`.

    Ports
    -----
    operands (in, struct): The instruction; there a cycle before ``start``.
    start (in, 1): Pulses, while the divider is idle, when ``sum`` is there.
    sum (in, signed 56): Sum of the segment.
    amount (in, signed 7): Of ROOT, the exponent that its values were aligned by; stable until
        ``done``.
    count (in, 16): Elements of the segment; stable until ``done``.
    done (out, 1): Pulses when the outputs below are there.
    value (out, signed 32): The quotient, the inverse root or the inverse.
    large (out, 1): High when ``value`` is to be saturated instead,
    minus (out, 1): below zero when this is high.
    dropped (out, 5): Of ROOT, bits of the inverse root below ``value``.
    size (out, 6): Of RECIPROCAL, as `golden.layers.reciprocal` gives it.
    """

    def __init__(self):
        super().__init__(
            {
                "operands": In(OPERANDS),
                "start": In(1),
                "sum": In(signed(SUM_BITS)),
                "amount": In(signed(7)),
                "count": In(COUNT),
                "done": Out(1),
                "value": Out(signed(RESULT_BITS)),
                "large": Out(1),
                "minus": Out(1),
                "dropped": Out(5),
                "size": Out(6),
            }
        )

    def elaborate(self, platform):
        m = Module()
        after = self.operands.after[:4]
        mean = Signal()
        is_root = Signal()
        m.d.sync += [mean.eq(after == After.MEAN), is_root.eq(after == After.ROOT)]
        m.submodules.epsilon = epsilon = ScalarEpsilon()
        m.submodules.steps = s = ScalarSteps()
        sign = self.sum[-1]
        # Controls of the subtraction are registers, so that it begins with its cycle.
        extra = Signal()
        rooting = Signal()
        m.d.sync += extra.eq(0)
        m.d.comb += [
            epsilon.start.eq(self.start),
            epsilon.word.eq(self.operands.immediate),
            epsilon.amount.eq(self.amount),
            s.extra.eq(extra),
            s.root.eq(rooting),
            # Of a sum below zero, MEAN divides the complement.
            s.sum.eq(self.sum ^ (sign & mean).replicate(SUM_BITS)),
            s.epsilon.eq(epsilon.value),
            s.carry.eq(epsilon.carry),
        ]
        left = Signal(6)
        up = Signal()
        half = Signal()
        above = Signal()
        half_of_root = Signal()
        inexact = Signal()
        kept = Signal.like(s.difference, reset_less=True)
        m.d.sync += [kept.eq(s.difference), left.eq(left - 1)]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [
                    s.first.eq(1),
                    s.clear_rest.eq(1),
                    s.set_divisor.eq(1),
                    s.new_divisor.eq(self.count),
                ]
                # ROOT and RECIPROCAL take a sum below zero for 0.
                m.d.comb += [s.load.eq(self.start & (~sign | mean)), s.clear.eq(~s.load)]
                m.d.sync += [left.eq(Mux(mean, SUM_BITS - 1, SQUARE_BITS - 1))]
                m.d.sync += [self.size.eq(SUM_BITS - 1), half_of_root.eq(0), inexact.eq(0)]
                m.d.sync += self.dropped.eq(0)
                with m.If(self.start):
                    m.d.sync += self.minus.eq(sign & mean)
                    m.next = "NORMALIZE"
                    with m.If(mean | is_root):
                        m.next = "DIVIDE"
            with m.State("DIVIDE"):
                m.d.comb += [s.trial.eq(1), s.shift.eq(1)]
                with m.If(left == 0):
                    # MEAN compares twice the rest with the divisor; after a complement the rest is
                    # what is missing to the divisor, less one.
                    m.d.sync += extra.eq(self.minus)
                    m.next = "ROUND"
                    with m.If(is_root):
                        m.next = "ADD"
            self._root(m, s, left, half_of_root, inexact, extra, rooting)
            self._normalize(m, s, left)
            with m.State("ROUND"):
                m.next = "COMPARE"
            with m.State("COMPARE"):
                less = self.minus.replicate(len(kept)).as_signed()
                m.d.sync += [half.eq(less == kept), above.eq(kept[-1] == self.minus)]
                m.next = "UP"
            with m.State("UP"):
                odd = s.bits[0] ^ self.minus
                m.d.sync += up.eq(Mux(mean, Mux(half, odd, above), half_of_root & (inexact | odd)))
                m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.eq(1)
                m.next = "IDLE"

        self._round(m, platform, s, up)
        return m

    def _round(self, m, platform, s, up) -> None:
        """The value, rounded, with its sign; and whether it is too large."""
        low = Cat(s.bits[:RESULT_BITS], Const(0, 1)).as_signed()
        zero = Const(0, RESULT_BITS + 1)
        value = add_subtract(m, platform, "round", zero, low, subtract=self.minus, carry=up)
        long = Signal()
        m.d.sync += long.eq(s.bits[RESULT_BITS - 1 : SUM_BITS].any())
        m.d.comb += [
            self.value.eq(value),
            self.large.eq(long | (~self.minus & value[RESULT_BITS - 1])),
        ]

    def _root(self, m, s, left, half, inexact, extra, rooting):
        """The square root of a mean square, and its inverse."""
        some = Signal()
        with m.State("ADD"):
            m.d.comb += [s.load.eq(1), s.clear_rest.eq(1), s.set_divisor.eq(1)]
            m.d.sync += [left.eq(SQUARE_BITS - 1), some.eq(0), rooting.eq(1)]
            m.next = "ROOT"
        with m.State("ROOT"):  # two bits of the square give one bit of the root
            m.d.comb += [s.shift.eq(1), s.move_rest.eq(left[0])]
            m.d.comb += [s.trial.eq(~left[0]), s.push_divisor.eq(~left[0])]
            m.d.comb += s.pushed.eq(s.one | ((left == 0) & ~some))  # a root of 0 is taken for 1
            with m.If(~left[0]):
                m.d.sync += some.eq(some | s.one)
            with m.If(left == 0):
                m.d.comb += s.clear_rest.eq(1)
                m.d.sync += [left.eq(INVERSE_STEPS - 1), rooting.eq(0), extra.eq(1)]
                m.next = "INVERT"
        with m.State("INVERT"):  # bits beyond INVERSE_BITS count for rounding only
            m.d.comb += [s.trial.eq(1), s.shift.eq(~s.bits[INVERSE_BITS - 1])]
            with m.If(~s.shift):
                m.d.sync += self.dropped.eq(self.dropped + 1)
                with m.If(self.dropped == 0):
                    m.d.sync += half.eq(s.one)
                with m.Else():
                    m.d.sync += inexact.eq(inexact | s.one)
            with m.If(left == 0):
                m.next = "ROUND"

    def _normalize(self, m, s, left):
        """The upper bits of a sum as a divisor, for RECIPROCAL."""
        with m.State("NORMALIZE"):
            m.d.comb += s.shift.eq(1)
            found = s.bits[-2]
            upper = s.bits[-INVERSE_BITS - 1 : -2] & found.replicate(INVERSE_BITS - 1)
            m.d.comb += s.new_divisor.eq(Cat(upper, Const(1, 1)))
            with m.If(found | (self.size == EXP_FRAC + 1)):
                m.d.comb += [s.clear.eq(1), s.seed_rest.eq(1), s.set_divisor.eq(1)]
                m.d.sync += left.eq(INVERSE_FRAC + 1)
                m.next = "DIVIDE"
            with m.Else():
                m.d.sync += self.size.eq(self.size - 1)
