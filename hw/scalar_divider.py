"""Quotients and square roots of the vector unit, one bit a cycle."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.config import RESULT_BITS
from golden.isa import After
from golden.layers import EXP_FRAC, INVERSE_FRAC
from golden.vector import SUM_BITS

from .adders import add_choice, add_subtract
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
    start: sum is there; ``amount`` (of ROOT) and ``count`` are until done. A cycle before it, and
        after done, the divider must be idle.
    done: value, dropped (ROOT: bits of the inverse root below it) and size (RECIPROCAL) are there;
        with ``large``, value is to be saturated, below zero with ``minus``
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
        mean, is_root = after == After.MEAN, after == After.ROOT
        m.submodules.epsilon = epsilon = ScalarEpsilon()
        m.d.comb += [
            epsilon.start.eq(self.start),
            epsilon.word.eq(self.operands.immediate),
            epsilon.amount.eq(self.amount),
        ]
        sign, minus = self.sum[-1], self.minus
        left, odd = Signal(6), Signal()
        half, inexact, up, some = (Signal(name=n) for n in ("half", "inexact", "up", "some"))

        # What is added to the bits, which are 0 when a sum comes. Below zero, MEAN divides the
        # complement. A bit is put below all, whose carry is the rounding of epsilon.
        bits, load, shift = Signal(SQUARE_BITS), Signal(), Signal()
        inverted = self.sum ^ (sign & mean).replicate(SUM_BITS)
        added = add_choice(
            m,
            platform,
            "load",
            Cat(epsilon.carry, epsilon.value).as_signed(),
            Cat(Const(0, 1 + GUARD), inverted).as_signed(),
            self.start,
            Cat(Const(1, 1), bits).as_signed(),
        )

        # The next bit of the dividend joins the rest; the divisor comes off where it fits. Its
        # complement is kept, as minus a number is that plus one.
        rest, minuend, extra = Signal(REST_BITS), Signal(REST_BITS), Signal()
        divisor = Signal(ROOT_BITS, init=-1)
        root, trial = Signal(), Signal()
        ones = Const(-1, REST_BITS - ROOT_BITS + 1)
        m.d.comb += minuend.eq(Cat(bits[-1] | extra, rest))
        reduced = add_choice(
            m,
            platform,
            "reduce",
            Cat(Const(1, 1), divisor, ones).as_signed(),
            Cat(Const(0b101, 3), divisor, ones[:-2]).as_signed(),
            root,
            Cat(Const(1, 1), minuend, Const(0, 1)).as_signed(),
        )
        difference = reduced[1:]
        one = ~difference[-1]
        # Controls as signals, so that a bit of a register needs one table.
        clear, clear_rest, move_rest = Signal(), Signal(), Signal()
        with m.If(clear):
            m.d.sync += bits.eq(0)
        with m.Elif(load | shift):
            m.d.sync += bits.eq(Mux(load, added[1:], Cat(one & trial & ~root, bits)))
        with m.If(clear_rest):
            m.d.sync += rest.eq(0)
        with m.Elif(trial | move_rest):
            m.d.sync += rest.eq(Mux(trial & one, difference, minuend))
        m.d.sync += left.eq(left - 1)

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [
                    clear.eq(~load),
                    clear_rest.eq(1),
                    load.eq(self.start & (~sign | mean)),
                ]
                m.d.sync += divisor.eq(~(self.count | Const(0, ROOT_BITS)))
                m.d.sync += [half.eq(0), inexact.eq(0), some.eq(0)]
                m.d.sync += [self.dropped.eq(0), self.size.eq(SUM_BITS - 1)]
                m.d.sync += left.eq(Mux(mean, SUM_BITS - 1, SQUARE_BITS - 1))
                with m.If(self.start):  # below zero, others than MEAN take it for that
                    m.d.sync += minus.eq(sign & mean)
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
                m.d.comb += [load.eq(1), clear_rest.eq(1)]
                m.d.sync += [divisor.eq(-1), left.eq(SQUARE_BITS - 1)]
                m.next = "ROOT"
            with m.State("ROOT"):  # two bits of the square for one of the root
                m.d.comb += shift.eq(1)
                with m.If(left[0]):
                    m.d.comb += move_rest.eq(1)
                with m.Else():
                    m.d.comb += [trial.eq(1), root.eq(1)]
                    last = (left == 0) & ~some  # 0 is taken for 1
                    m.d.sync += [divisor.eq(Cat(~(one | last), divisor)), some.eq(some | one)]
                with m.If(left == 0):
                    m.d.comb += clear_rest.eq(1)
                    m.d.sync += left.eq(INVERSE_STEPS - 1)
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
                found = bits[-2]
                with m.If(found | (self.size == EXP_FRAC + 1)):
                    upper = bits[-INVERSE_BITS - 1 : -2] & found.replicate(INVERSE_BITS - 1)
                    m.d.sync += divisor.eq(~Cat(upper, Const(1, 1)))
                    m.d.sync += divisor[INVERSE_BITS:].eq(-1)
                    m.d.comb += clear.eq(1)
                    m.d.sync += rest[INVERSE_BITS - 2].eq(1)
                    m.d.sync += left.eq(INVERSE_FRAC + 1)
                    m.next = "DIVIDE"
                with m.Else():
                    m.d.sync += self.size.eq(self.size - 1)
            with m.State("ROUND"):
                # For MEAN twice the rest against the divisor; the complement's rest counts from it.
                m.d.comb += extra.eq(minus)
                tie = (difference ^ minus.replicate(len(difference)) == 0) & mean
                beyond = mean & (difference[-1] == minus)
                m.d.comb += odd.eq(bits[0] ^ minus)
                m.d.sync += up.eq(Mux(tie, odd, beyond) | (is_root & half & (inexact | odd)))
                m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.eq(1)
                m.next = "IDLE"

        low = Cat(bits[:RESULT_BITS], Const(0, 1)).as_signed()
        value = add_subtract(
            m, platform, "round", Const(0, RESULT_BITS + 1), low, subtract=minus, carry=up
        )
        m.d.comb += [
            self.value.eq(value),
            self.large.eq(
                bits[RESULT_BITS - 1 : SUM_BITS].any() | (~minus & value[RESULT_BITS - 1])
            ),
        ]
        return m
