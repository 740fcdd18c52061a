"""What VECTOR instructions compute at the end of a segment, one bit a cycle."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.config import RESULT_BITS, RESULT_FRAC, AccelConfig
from golden.format import EXPONENTS
from golden.isa import After
from golden.layers import CODE_FRAC, NORM_BITS
from golden.vector import AMOUNT_MAX, SUM_BITS

from ...lib.instruction import COUNT, OPERANDS
from ...lib.saturate import saturate
from ..coder import VectorCoder
from ..decoder import REGISTERS
from .divider import ScalarDivider

LONG = (After.MEAN, After.ROOT, After.RECIPROCAL)


class ScalarUnit(wiring.Component):
    """What a VECTOR instruction computes at the end of a segment: the segment's registers, before
    and after `golden.isa.After`.

    6 cycles from ``start`` to ``done``; MEAN takes 61, RECIPROCAL up to 58, ROOT 171.

    Ports
    -----
    operands (in, struct): The instruction.
    load (in, 1): High: ``before`` and ``count`` are those of the segment.
    before (in, struct): Its registers so far.
    count (in, 16): Its elements.
    start (in, 1): Pulses when ``sum``, ``peak`` and ``top`` are there.
    sum (in, signed 56), peak (in, 32), top (in, signed 32): Of `VectorReduce`.
    registers (out, struct): Old values; the updated ones while ``done`` pulses.
    done (out, 1): Pulses when the instruction's work is done.
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "operands": In(OPERANDS),
                "load": In(1),
                "before": In(REGISTERS),
                "count": In(COUNT),
                "start": In(1),
                "sum": In(signed(SUM_BITS)),
                "peak": In(RESULT_BITS),
                "top": In(signed(RESULT_BITS)),
                "registers": Out(REGISTERS),
                "done": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        o, r = self.operands, self.registers
        after = {kind: Signal(name=f"is_{kind.name.lower()}") for kind in After}
        m.d.sync += [signal.eq(o.after[:4] == kind) for kind, signal in after.items()]
        m.submodules.divider = divider = ScalarDivider()
        m.submodules.coder = coder = VectorCoder(16)
        m.d.comb += [
            coder.magnitude.eq(self.peak),
            divider.operands.eq(o),
            divider.amount.eq(r.amount),
            divider.sum.eq(self.sum),
            divider.start.eq(self.start & Cat(after[kind] for kind in LONG).any()),
        ]
        with m.If(self.load):
            m.d.sync += [r.eq(self.before), divider.count.eq(self.count)]

        low = o.immediate[:8].as_signed()
        value = self._short(m, after, coder, low)
        amount = Mux(after[After.AMOUNT], value, Mux(after[After.CODE], CODE_FRAC, 0) - value)
        less = Mux(after[After.LIFT], r.size, Mux(after[After.CODE], RESULT_FRAC, low))
        with_exponent = Cat(after[k] for k in (After.QUANTIZE, After.LIFT, After.CODE)).any()

        with m.FSM():
            with m.State("IDLE"), m.If(self.start):
                m.next = "LENGTH"
                with m.If(divider.start):
                    m.next = "DIVIDE"
            with m.State("LENGTH"):
                m.next = "CARRY"
            with m.State("CARRY"):
                m.next = "VALUE"
            with m.State("VALUE"):
                m.next = "BOUND"
            with m.State("BOUND"):
                m.next = "SET"
            with m.State("SET"):
                m.d.sync += r.amount.eq(amount)
                with m.If(with_exponent):
                    m.d.sync += r.exponent.eq(saturate(value - less, 8))
                m.next = "DONE"
            with m.State("DIVIDE"), m.If(divider.done):
                edge = Cat((~divider.minus).replicate(RESULT_BITS - 1), divider.minus)
                m.d.sync += r.factor.eq(Mux(divider.large, edge, divider.value))
                with m.If(after[After.ROOT]):
                    m.d.sync += r.amount.eq(divider.dropped - 17)
                with m.If(after[After.RECIPROCAL]):
                    m.d.sync += r.size.eq(divider.size)
                m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.eq(1)
                m.next = "IDLE"
        return m

    def _short(self, m, after, coder, low):
        """Of what takes no division: a number, its bounds, and the value that follows from it. Of
        top, more than ten bits saturate anyway."""
        mantissa = self.config.act_bits - 1
        value = Signal(signed(8))
        offset = Signal(signed(9))
        total = Signal(signed(11))
        least = Signal(signed(8))
        top = Signal(signed(10))
        with m.If(self.start):
            m.d.sync += top.eq(saturate(self.top, 10))
        # The instruction is known long before the sums: all but the number itself are registers. A
        # bit length is the place of the leading one, plus one; of zero it is -1 plus one. The carry
        # of a code's rounding comes in as a bit below both terms of the sum.
        by_top = Signal()
        number = Signal(signed(10))
        length = Cat(coder.place, Const(0, 1)) | (~coder.some).replicate(len(coder.place) + 1)
        m.d.comb += number.eq(Mux(by_top, top, length.as_signed()))
        m.d.sync += [by_top.eq(after[After.LIFT] | after[After.AMOUNT]), least.eq(-AMOUNT_MAX)]
        with m.If(after[After.ALIGN]):
            m.d.sync += [offset.eq(2 - NORM_BITS), least.eq(-8)]
        with m.Elif(after[After.QUANTIZE]):
            m.d.sync += [offset.eq(1 - mantissa), least.eq(0)]
        with m.Elif(after[After.LIFT]):
            m.d.sync += offset.eq(-mantissa)
        with m.Elif(after[After.CODE]):
            m.d.sync += offset.eq(1 - EXPONENTS)
        with m.Else():  # AMOUNT
            m.d.sync += offset.eq(low)
        carry = after[After.CODE] & coder.carry
        m.d.sync += total.eq((Cat(1, number).as_signed() + Cat(carry, offset).as_signed()) >> 1)
        bounded = Mux(total < least, least, Mux(total >= AMOUNT_MAX, AMOUNT_MAX, total[:8]))
        nothing = Signal()
        m.d.sync += [
            nothing.eq(after[After.CODE] & ~coder.some),
            value.eq(Mux(nothing, 0, bounded)),
        ]
        return value
