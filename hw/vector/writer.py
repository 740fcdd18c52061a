"""The writing end of the vector unit: results become words of the scratchpad."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from golden.config import RESULT_BITS, AccelConfig

from ..lib.instruction import OPERANDS
from .decoder import CONTROL, WAITING, place_bits, sideband
from .segment_counter import SegmentCounter


class VectorWriter(wiring.Component):
    """Collects results to words; writes a word a cycle, or the header of a segment. A word is
    written in the cycle after its last results came.

    Ports
    -----
    start (in, 1): Pulses when an instruction starts.
    operands (in, struct): The instruction.
    control (in, struct): The same, decoded.
    sideband (in, struct): What goes with the word of results on ``y``.
    y (in, signed 32, for each lane): Results.
    header (in, 1): High: write the header of the segment whose sums came last, as soon as no other
        word is written.
    exponent (in, signed 8): What the header holds: the segment's exponent.
    end (in, 1): Pulses when ``top`` and ``where`` are those of a whole segment.
    top (in, signed 32): Its largest result.
    where (in, place_bits): The place of that in the segment.
    taken (out, 1): Pulses when the header is being written.
    write_enable (out, cols): A bit for each bank: high to write.
    write_address (out, log2(scratch_words)): The word to write.
    write_data (out, 8 * bus_bytes): What to write.
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        lanes = config.results_per_word
        super().__init__(
            {
                "start": In(1),
                "operands": In(OPERANDS),
                "control": In(CONTROL),
                "sideband": In(sideband(config)),
                "y": In(signed(RESULT_BITS)).array(lanes),
                "header": In(1),
                "exponent": In(signed(8)),
                "end": In(1),
                "top": In(signed(RESULT_BITS)),
                "where": In(place_bits(config)),
                "taken": Out(1),
                "write_enable": Out(config.cols),
                "write_address": Out(range(config.scratch_words)),
                "write_data": Out(8 * config.bus_bytes),
            }
        )

    def elaborate(self, platform):
        m = Module()
        o, c = self.operands, self.control
        m.submodules.walk = walk = SegmentCounter(self.config)
        ends = self.sideband.valid & self.sideband.last
        m.d.comb += [
            walk.start.eq(self.start),
            walk.step.eq(ends),
            walk.columns.eq(o.column),
            walk.segments.eq(o.segments),
        ]

        # A word is written when its last part is there; parts that never come are zero.
        place = Signal(2)
        final = Signal()
        m.d.comb += final.eq(place == Mux(c.bytes, 3, c.halves))
        with m.If(self.sideband.valid):
            m.d.sync += place.eq(Mux(final | self.sideband.last, 0, place + 1))
        word = self._collect(m, place)

        # The address of the word; and in a FIFO those of headers that are still to be written.
        start, address, within = (
            Signal.like(self.write_address, name=n) for n in ("start_at", "at", "within")
        )
        bank = Signal(self.config.cols)
        put = Signal()
        m.submodules.heads = heads = SyncFIFO(width=len(start) + len(bank), depth=WAITING)
        head, head_bank = heads.r_data[: len(start)], heads.r_data[len(start) :]
        m.d.sync += [
            put.eq(self.sideband.valid & c.writes & (final | self.sideband.last)),
            bank.eq(1 << walk.column),
        ]
        index = self.sideband.index
        with m.If(c.halves):
            m.d.comb += within.eq(index >> 1)
        with m.Elif(c.bytes):
            m.d.comb += within.eq(index >> 2)
        with m.Else():
            m.d.comb += within.eq(index)
        with m.If(self.sideband.valid):
            m.d.sync += address.eq(start + c.header + within)
        with m.If(self.start):
            m.d.sync += start.eq(o.dst)
        with m.Elif(ends):
            m.d.sync += [
                start.eq(Mux(walk.turn, o.dst, start + o.dst_stride)),
            ]

        extended = Cat(self.exponent, self.exponent[-1].replicate(RESULT_BITS - 8))
        pair = Signal(RESULT_BITS + len(self.where))
        with m.If(self.end):
            m.d.sync += pair.eq(Cat(self.top, self.where))
        extended = Mux(c.pair, pair, extended)
        m.d.comb += [
            heads.w_en.eq(ends & c.header),
            heads.w_data.eq(Cat(start, (1 << walk.column)[: len(bank)])),
            heads.r_en.eq(self.taken),
            self.taken.eq(self.header & ~put),
            self.write_enable.eq(Mux(put, bank, head_bank & self.header.replicate(len(bank)))),
            self.write_address.eq(Mux(put, address, head)),
            self.write_data.eq(Mux(put, word, extended)),
        ]
        return m

    def _collect(self, m, place):
        """The word, a cycle after its last part."""
        c, y = self.control, self.y
        size = len(self.write_data)
        halves = Cat(each[:16] for each in y)
        quarters = Cat(each[:8] for each in y)
        word = Signal(size, reset_less=True)
        whole = ~(c.bytes | c.halves)
        for quarter in range(4):
            at = slice(quarter * size // 4, (quarter + 1) * size // 4)
            half = halves.word_select(quarter % 2, size // 4)
            part = Mux(whole, Cat(y)[at], Mux(c.bytes, quarters, half))
            here = whole | Mux(c.bytes, place == quarter, place[0] == quarter // 2)
            # With the first part of a word, the others become zero.
            with m.If(self.sideband.valid & here):
                m.d.sync += word[at].eq(part)
            with m.Elif(self.sideband.valid & (place == 0)):
                m.d.sync += word[at].eq(0)
        return word
