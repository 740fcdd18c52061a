"""Quotients and square roots of the vector unit, one bit a cycle."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.config import RESULT_BITS
from golden.isa import After
from golden.layers import EXP_FRAC, INVERSE_FRAC
from golden.vector import SUM_BITS

from .operands import OPERANDS
from .scalar_epsilon import SQUARE_BITS, ScalarEpsilon

GUARD = 6
"""Bits that a mean square has more than its sum."""
ROOT_BITS = SQUARE_BITS // 2
REST_BITS = ROOT_BITS + 3
INVERSE_BITS = 24
"""Bits of a divisor in RECIPROCAL, and of an inverse root."""
INVERSE_STEPS = 41  # of 2**40


class ScalarDivider(wiring.Component):
    """MEAN, ROOT and RECIPROCAL of `golden.isa.After`.

    One register takes the dividend and the square in turn and gives its bits away at the top, while
    those of the quotient come in below; one subtraction finds a bit of either.

    Ports
    -----
    operands: of the instruction
    start: sum is there; ``amount`` (of ROOT) and ``count`` are until done
    done: factor, dropped (ROOT: bits of the inverse root below factor) and size (RECIPROCAL) are
    """

    def __init__(self):
        super().__init__(
            {
                "operands": In(OPERANDS),
                "start": In(1),
                "sum": In(signed(SUM_BITS)),
                "amount": In(signed(7)),
                "count": In(16),
                "done": Out(1),
                "factor": Out(signed(RESULT_BITS)),
                "dropped": Out(5),
                "size": Out(6),
            }
        )

    def elaborate(self, platform):
        m = Module()
        o = self.operands
        mean, is_root = o.after == After.MEAN, o.after == After.ROOT
        m.submodules.epsilon = epsilon = ScalarEpsilon()
        m.d.comb += [
            epsilon.start.eq(self.start),
            epsilon.word.eq(o.immediate),
            epsilon.amount.eq(self.amount),
        ]

        # The next bit of the dividend joins the rest; the divisor comes off where it fits.
        bits, rest = Signal(SQUARE_BITS), Signal(REST_BITS)
        divisor, left = Signal(ROOT_BITS), Signal(6)
        extra, trial, root = Signal(), Signal(), Signal()
        joined, difference = Signal(REST_BITS), Signal(signed(REST_BITS + 1))
        m.d.comb += [
            joined.eq(Cat(bits[-1] | extra, rest)),
            difference.eq(joined - Mux(root, Cat(Const(1, 2), divisor), divisor)),
        ]
        one = ~difference[-1]
        with m.If(trial):
            m.d.sync += rest.eq(Mux(one, difference, joined))
        shift = Signal()
        with m.If(shift):
            m.d.sync += bits.eq(Cat(one & trial & ~root, bits))
        m.d.sync += left.eq(left - 1)
        minus, half, inexact, up = (Signal(name=n) for n in ("minus", "half", "inexact", "up"))

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [rest.eq(0), divisor.eq(self.count), half.eq(0), inexact.eq(0)]
                m.d.sync += [self.dropped.eq(0), self.size.eq(SUM_BITS - 1)]
                m.d.sync += left.eq(Mux(mean, SUM_BITS - 1, SQUARE_BITS - 1))
                with m.If(self.start):
                    sign = self.sum[-1]
                    m.d.sync += [
                        minus.eq(sign & mean),
                        # Below zero, MEAN divides the complement; the others take zero.
                        bits.eq(
                            Cat(
                                Const(0, GUARD),
                                Mux(mean, self.sum ^ sign.replicate(SUM_BITS), self.sum)
                                & ~(sign & ~mean).replicate(SUM_BITS),
                            )
                        ),
                    ]
                    m.next = "NORMALIZE"
                    with m.If(mean | is_root):
                        m.next = "DIVIDE"
            with m.State("DIVIDE"):
                m.d.comb += [trial.eq(1), shift.eq(1)]
                with m.If(left == 0):
                    m.next = "ROUND"
                    with m.If(is_root):
                        m.next = "ADD"
            with m.State("ADD"):
                m.d.sync += [bits.eq(bits + epsilon.value + epsilon.carry)]
                m.d.sync += [rest.eq(0), divisor.eq(0), left.eq(SQUARE_BITS - 1)]
                m.next = "ROOT"
            with m.State("ROOT"):  # two bits of the square for one of the root
                m.d.comb += shift.eq(1)
                with m.If(left[0]):
                    m.d.sync += rest.eq(joined)
                with m.Else():
                    m.d.comb += [trial.eq(1), root.eq(1)]
                    m.d.sync += divisor.eq(Cat(one, divisor))
                with m.If(left == 0):
                    m.d.sync += divisor.eq(Cat(one | (divisor == 0), divisor))
                    m.d.sync += [rest.eq(0), left.eq(INVERSE_STEPS - 1)]
                    m.next = "INVERT"
            with m.State("INVERT"):
                m.d.comb += [
                    trial.eq(1),
                    extra.eq(left == INVERSE_STEPS - 1),
                    shift.eq(~bits[INVERSE_BITS - 1]),
                ]
                with m.If(~shift):
                    m.d.sync += self.dropped.eq(self.dropped + 1)
                    with m.If(self.dropped == 0):
                        m.d.sync += half.eq(one)
                    with m.Else():
                        m.d.sync += inexact.eq(inexact | one)
                with m.If(left == 0):
                    m.next = "ROUND"
            with m.State("NORMALIZE"):  # the sum's upper bits become the divisor
                m.d.comb += shift.eq(1)
                m.d.sync += self.size.eq(self.size - 1)
                found = bits[-2]
                with m.If(found | (self.size == EXP_FRAC + 1)):
                    upper = bits[-INVERSE_BITS - 1 : -2] & found.replicate(INVERSE_BITS - 1)
                    m.d.sync += [self.size.eq(self.size), divisor.eq(Cat(upper, 1))]
                    m.d.sync += [bits.eq(0), rest.eq(1 << (INVERSE_BITS - 2))]
                    m.d.sync += left.eq(INVERSE_FRAC + 1)
                    m.next = "DIVIDE"
            with m.State("ROUND"):
                # For MEAN twice the rest against the divisor; the complement's rest counts from it.
                m.d.comb += extra.eq(minus)
                tie = (difference == minus.replicate(len(difference)).as_signed()) & mean
                odd = bits[0] ^ minus
                beyond = mean & (difference[-1] == minus)
                m.d.sync += up.eq(
                    Mux(tie, odd, beyond) | (is_root & half & (inexact | odd))
                )
                m.next = "FACTOR"
            with m.State("FACTOR"):
                m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.eq(1)
                m.next = "IDLE"

        value = Signal(signed(RESULT_BITS + 1))
        m.d.comb += value.eq((bits[:RESULT_BITS] ^ minus.replicate(RESULT_BITS)).as_signed() + up)
        large = bits[RESULT_BITS - 1 : SUM_BITS].any() | (~minus & value[RESULT_BITS - 1])
        edge = Cat((~minus).replicate(RESULT_BITS - 1), minus)
        m.d.sync += self.factor.eq(Mux(large, edge, value[:RESULT_BITS]))
        return m
