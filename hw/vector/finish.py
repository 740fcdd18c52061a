"""The end of a segment: registers and header."""

from amaranth.hdl import Cat, Module, Mux, Shape, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from golden.config import RESULT_BITS, AccelConfig
from golden.isa import SEGMENTS, After
from golden.vector import SUM_BITS

from ..lib.instruction import COUNT, OPERANDS
from .decoder import CONTROL, REGISTERS, WAITING
from .scalar.unit import LONG, ScalarUnit
from .segment_counter import SegmentCounter

SPACING = 8
"""Cycles that segments are apart at least where something short is computed at their ends."""


class Left(data.Struct):
    """What is known of a segment when the reader is done with it.

    Fields
    ------
    registers (struct): Its registers.
    count (16): Its elements.
    """

    registers: REGISTERS
    count: COUNT


class VectorFinish(wiring.Component):
    """The end of each segment: goes through them as their sums come in.

    What is computed must be done when the next segment's sums come. Something short takes less than
    `SPACING`; a header alone is written, at the latest, when the next segment's words are, and its
    sums come after that. For anything else the next segment waits.

    Ports
    -----
    start (in, 1): Pulses when an instruction starts.
    operands (in, struct): The instruction.
    control (in, struct): The same, decoded.
    leave (in, 1): Pulses when the reader is done with a segment.
    before (in, struct): That segment's registers, in the cycle after ``leave``.
    count (in, 16): Its elements, in the cycle after ``leave``.
    end (in, 1): Pulses when ``sum``, ``peak`` and ``top`` are those of a whole segment.
    sum (in, signed 56), peak (in, 32), top (in, signed 32): Of `VectorReduce`.
    pending (out, 1): High: no segment may leave the reader yet.
    header (out, 1): High: the segment's header is to be written.
    exponent (out, signed 8): What the header holds.
    taken (in, 1): Pulses when the header is being written.
    column (out, log2(cols)), segment (out, 4): Whose registers are written.
    registers (out, struct): What they become, with ``set``; `top` is written with ``end``.
    set (out, 1): Pulses to write them.
    done (out, 1): Pulses when all segments are finished.
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
                "count": In(COUNT),
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
        m.submodules.walk = walk = SegmentCounter(self.config)
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
            scalar.sum.eq(self.sum),
            scalar.peak.eq(self.peak),
            scalar.top.eq(self.top),
            self.registers.eq(scalar.registers),
            self.exponent.eq(scalar.registers.exponent),
        ]
        left = Signal(Left)
        leave = Signal()
        m.d.sync += leave.eq(
            self.leave & c.finish
        )  # a cycle later; its registers and count stay that long
        m.submodules.queue = queue = SyncFIFO(width=Shape.cast(Left).width, depth=WAITING)
        m.d.comb += [
            left.registers.eq(self.before),
            left.count.eq(self.count),
            queue.w_data.eq(left),
            queue.w_en.eq(leave),
            scalar.before.eq(Left(queue.r_data).registers),
            scalar.count.eq(Left(queue.r_data).count),
        ]
        alone = Signal()
        spaced = Signal(range(SPACING))
        computes = Signal()
        m.d.sync += [
            computes.eq(o.after != After.NONE),
            alone.eq((computes & c.header) | Cat(o.after == kind for kind in LONG).any()),
        ]
        with m.If(leave):
            m.d.sync += [self.pending.eq(alone | computes), spaced.eq(SPACING - 3)]
        with m.Elif(Mux(alone, complete, spaced == 0)):
            m.d.sync += self.pending.eq(0)
        with m.Else():
            m.d.sync += spaced.eq(spaced - 1)
        with m.FSM():
            with m.State("WAIT"):
                m.d.comb += [scalar.load.eq(1), queue.r_en.eq(self.end & c.finish)]
                with m.If(self.end):
                    with m.If(computes):
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
