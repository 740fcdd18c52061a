"""Columns and segments of a VECTOR instruction."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.config import AccelConfig
from golden.isa import SEGMENTS

from ..lib.instruction import COLUMN, OPERANDS


class SegmentCounter(wiring.Component):
    """Goes through the columns of a VECTOR instruction and, within each, its segments.

    Ports
    -----
    start (in, 1): Pulses to go to the first segment.
    step (in, 1): Pulses to go to the next.
    columns (in, 8), segments (in, 8): Of the instruction; constant from ``start`` on.
    column (out, log2(cols)), segment (out, 4): Where it is.
    turn (out, 1): High when the segment is the column's last.
    end (out, 1): High when it is the instruction's last.
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "step": In(1),
                "columns": In(COLUMN),
                "segments": In(OPERANDS["segments"].shape),
                "column": Out(range(max(2, config.cols))),
                "segment": Out(range(SEGMENTS)),
                "turn": Out(1),
                "end": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        last_segment = Signal.like(self.segment)
        last_column = Signal.like(self.column)
        m.d.sync += [last_segment.eq(self.segments - 1), last_column.eq(self.columns - 1)]
        m.d.comb += [
            self.turn.eq(self.segment == last_segment),
            self.end.eq(self.turn & (self.column == last_column)),
        ]
        with m.If(self.start):
            m.d.sync += [self.column.eq(0), self.segment.eq(0)]
        with m.Elif(self.step):
            m.d.sync += self.segment.eq(self.segment + 1)
            with m.If(self.turn):
                m.d.sync += [self.segment.eq(0), self.column.eq(self.column + 1)]
        return m
