"""The end of a segment: registers and header."""

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.config import RESULT_BITS, AccelConfig
from golden.isa import SEGMENTS, After
from golden.vector import SUM_BITS

from .operands import OPERANDS
from .scalar_unit import ScalarUnit
from .vector_control import CONTROL, REGISTERS
from .vector_walk import VectorWalk


class VectorFinish(wiring.Component):
    """Goes through the segments as their sums come in.

    Ports
    -----
    start, operands, control: of the instruction
    leave, before, count: the reader is done with a segment: its registers and its elements
    end, sum, peak, top: of `VectorReduce`
    pending: a segment has left the reader, and something remains to be done at its end
    header, exponent, taken: of `VectorWriter`
    column, segment: whose registers are written: ``top`` with ``end``, ``registers`` with ``set``
    done: all segments are
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "operands": In(OPERANDS),
                "control": In(CONTROL),
                "leave": In(1),
                "before": In(REGISTERS),
                "count": In(16),
                "end": In(1),
                "sum": In(signed(SUM_BITS)),
                "peak": In(RESULT_BITS),
                "top": In(signed(RESULT_BITS)),
                "pending": Out(1),
                "header": Out(1),
                "exponent": Out(signed(8)),
                "taken": In(1),
                "column": Out(range(max(2, config.cols))),
                "segment": Out(range(SEGMENTS)),
                "registers": Out(REGISTERS),
                "set": Out(1),
                "done": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        o, c = self.operands, self.control
        m.submodules.walk = walk = VectorWalk(self.config)
        m.submodules.scalar = scalar = ScalarUnit(self.config)
        complete = Signal()
        m.d.comb += [
            walk.start.eq(self.start),
            walk.step.eq(complete),
            walk.columns.eq(o.column),
            walk.segments.eq(o.segments),
            self.column.eq(walk.column),
            self.segment.eq(walk.segment),
            scalar.operands.eq(o),
            scalar.load.eq(self.leave),
            scalar.before.eq(self.before),
            scalar.count.eq(self.count),
            scalar.sum.eq(self.sum),
            scalar.peak.eq(self.peak),
            scalar.top.eq(self.top),
            self.registers.eq(scalar.registers),
            self.exponent.eq(scalar.registers.exponent),
        ]
        with m.If(self.leave & c.finish):
            m.d.sync += self.pending.eq(1)
        with m.Elif(complete):
            m.d.sync += self.pending.eq(0)
        with m.FSM():
            with m.State("WAIT"), m.If(self.end):
                with m.If(o.after != After.NONE):
                    m.d.comb += scalar.start.eq(1)
                    m.next = "SCALAR"
                with m.Elif(c.header):
                    m.next = "HEADER"
                with m.Else():
                    m.d.comb += complete.eq(1)
            with m.State("SCALAR"), m.If(scalar.done):
                m.d.comb += self.set.eq(1)
                with m.If(c.header):
                    m.next = "HEADER"
                with m.Else():
                    m.d.comb += complete.eq(1)
                    m.next = "WAIT"
            with m.State("HEADER"):
                m.d.comb += self.header.eq(1)
                with m.If(self.taken):
                    m.d.comb += complete.eq(1)
                    m.next = "WAIT"
        m.d.comb += self.done.eq(complete & walk.end)
        return m
