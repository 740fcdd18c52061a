"""The reading end of the vector unit: which word comes when."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from golden.config import AccelConfig
from golden.isa import SEGMENTS

from ..lib.adders import add_choice
from ..lib.instruction import COUNT, OPERANDS, POSITION_BITS
from .decoder import CONTROL, sideband
from .segment_counter import SegmentCounter
from .word_order import WordOrder

GAP_BITS = 5
"""Of the number of words that another column has more: there are 16 columns at most."""


class VectorReader(wiring.Component):
    """Walks through columns, segments and words, and reads what each word needs.

    A segment takes three cycles, and one for each word that is read. The last word of a segment, or
    the last pair, waits while `VectorFinish` needs time for a segment before.

    Words of ROTATE come in pairs where each makes a word of its own: so they have been read when
    results take their place.

    Ports
    -----
    start (in, 1): Pulses when an instruction starts.
    operands (in, struct): The instruction.
    control (in, struct): The same, decoded; from two cycles after ``start`` on.
    position (in, 24): Position of the token in column 0.
    pending (in, 1): High: no segment may end yet.
    busy (in, 1): High while registers are being written, so that none can be read.
    column (out, log2(cols)), segment (out, 4): The segment that is being read.
    place (out, 25): Position of the column.
    load (out, 1): Pulses when the registers of column and segment are wanted.
    take (out, 1): Pulses two cycles after ``load``.
    leave (out, 1): Pulses with the read of a segment's last word.
    count (out, 16): Elements of the column's segments.
    read_enable (out, 1): High to read a word of the scratchpad.
    read_address (out, log2(scratch_words)): The word.
    sideband (out, struct): What goes with the word: that of its first operand or, of ROTATE, of the
        first of each two.
    bank (out, log2(cols)): Column of the word that was read two cycles before.
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "operands": In(OPERANDS),
                "control": In(CONTROL),
                "position": In(POSITION_BITS),
                "pending": In(1),
                "busy": In(1),
                "column": Out(range(max(2, config.cols))),
                "segment": Out(range(SEGMENTS)),
                "place": Out(POSITION_BITS + 1),
                "load": Out(1),
                "take": Out(1),
                "leave": Out(1),
                "count": Out(COUNT),
                "read_enable": Out(1),
                "read_address": Out(range(config.scratch_words)),
                "sideband": Out(sideband(config)),
                "bank": Out(range(max(2, config.cols))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        o, c = self.operands, self.control
        lanes = exact_log2(self.config.results_per_word)
        m.submodules.walk = walk = SegmentCounter(self.config)
        m.submodules.turn = turn = WordOrder(self.config)
        phase = Signal(2)
        last = Signal()
        end = Signal()
        hold = Signal()
        m.d.comb += [
            walk.start.eq(self.start),
            walk.step.eq(end),
            walk.columns.eq(o.column),
            walk.segments.eq(o.segments),
            self.column.eq(walk.column),
            self.segment.eq(walk.segment),
            turn.operands.eq(o),
            turn.rotate.eq(c.rotate),
            turn.paired.eq(~(c.bytes | c.halves)),
        ]

        # Each column has its own number of elements: its words are full until ``gap`` are left, and
        # in the next one ``rest`` count.
        words = self._words(m, platform, walk.column)
        left = Signal(COUNT)
        gap = Signal(GAP_BITS)
        rest = Signal(lanes)
        issue = self._walk(m, walk, turn, phase, left, gap, rest, last, hold, end, words)
        final_phase = phase == Mux(c.rotate, 3, c.two)
        m.d.comb += [
            turn.step.eq(issue & final_phase),
            end.eq(turn.step & last),
            self.leave.eq(end),
        ]
        with m.If(issue):
            m.d.sync += phase.eq(phase + 1)
        with m.If(turn.step):
            m.d.sync += [phase.eq(0), left.eq(left - 1)]
            m.d.sync += [last.eq(left == 2), hold.eq(left == Mux(turn.apart, 3, 2))]
        self._addresses(m, walk, turn, phase, end)
        bank = Signal.like(self.bank)
        later = Signal.like(self.bank)
        m.d.sync += [
            self.read_enable.eq(issue),
            bank.eq(walk.column),
            later.eq(bank),
            self.bank.eq(later),
            self.sideband.step.eq(issue & ~phase[0]),
            self.sideband.second.eq(phase[1]),
            self.sideband.valid.eq(issue & (phase == Mux(c.rotate, 2, 0))),
            self.sideband.last.eq(last),
            self.sideband.index.eq(turn.word),
        ]
        full = left[GAP_BITS:].any() | (gap < left[:GAP_BITS])
        partly = (left == gap) & ~full
        began = self._window(m, turn)
        for lane in range(1 << lanes):
            here = (
                rest >= lane + 1 if lane + 1 < 1 << lanes else 0
            )  # the last lane counts in full words only
            m.d.sync += self.sideband.mask[lane].eq((full | (partly & here)) & began[lane])
        return m

    def _window(self, m, turn):
        """For each lane, whether its element of the word lies in the window or behind it."""
        o, lanes = self.operands, exact_log2(self.config.results_per_word)
        size = Signal(COUNT)
        open_ = Signal()  # no window, or one larger than any length
        first = Signal(COUNT)  # the first element in it
        m.d.sync += [
            open_.eq(~self.control.window | o.immediate[16:].any()),
            size.eq(o.immediate),
            first.eq(Mux(open_ | (self.count <= size), 0, self.count - size)),
        ]
        skip = Signal(COUNT)  # words up to the first that counts
        edge = Signal(lanes)  # and the lane in which it begins to
        inside = Signal()
        with m.If(self.take):
            m.d.sync += [skip.eq(first >> lanes), edge.eq(first), inside.eq(0)]
        with m.Elif(turn.step):
            m.d.sync += inside.eq(~skip.any())
            with m.If(skip.any()):
                m.d.sync += skip.eq(skip - 1)
        begins = ~skip.any()
        last = (1 << lanes) - 1  # which counts wherever in the word it begins
        return [
            inside | (begins & (1 if lane == last else edge <= lane)) for lane in range(last + 1)
        ]

    def _walk(self, m, walk, turn, phase, left, gap, rest, last, hold, end, words):
        """Segment after segment: its registers, then its words. Gives the signal that is high when
        a word is read."""
        issue = Signal()
        lanes = exact_log2(self.config.results_per_word)
        with m.FSM():
            with m.State("IDLE"), m.If(self.start):
                m.next = "BEGIN"
            with m.State("BEGIN"):  # `control` comes with the next cycle
                m.d.comb += turn.prepare.eq(1)
                m.next = "PREPARE"
            with m.State("PREPARE"), m.If(turn.ready):
                m.next = "LOAD"
            with m.State("LOAD"):
                m.d.comb += [self.load.eq(~self.busy), turn.start.eq(1)]
                with m.If(self.load):
                    m.next = "WAIT"
            with m.State("WAIT"):
                m.next = "TAKE"
            with m.State("TAKE"):
                m.d.comb += self.take.eq(1)
                m.d.sync += [
                    last.eq(words == 1),
                    hold.eq(words == Mux(turn.apart, 2, 1)),
                    left.eq(words),
                    gap.eq(words - (self.count >> lanes)),
                    rest.eq(self.count),
                    phase.eq(0),
                ]
                m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += issue.eq(~(self.pending & hold & (phase == 0)))
                with m.If(end):
                    m.next = "LOAD"
                    with m.If(walk.end):
                        m.next = "IDLE"
        return issue

    def _words(self, m, platform, column):
        """The number of words, which follows from the last column; the elements of this one."""
        o, c = self.operands, self.control
        lanes = self.config.results_per_word
        position, count = (v[:16].as_signed() for v in (self.position, o.count))
        more = Signal(signed(16))
        this_more = Signal(signed(16))
        words = Signal(COUNT)
        m.d.comb += [
            more.eq(Mux(c.length, o.column[:5], 0) + (lanes - 1)),
            this_more.eq(Mux(c.length, column + 1, 0)),
        ]
        length = add_choice(m, platform, "length", count, position, c.length, more)
        own = add_choice(m, platform, "own", count, position, c.length, this_more)
        m.d.sync += [
            words.eq(length.as_unsigned() >> exact_log2(lanes)),
            self.count.eq(own),
            self.place.eq(self.position + column),
        ]
        return words

    def _addresses(self, m, walk, turn, phase, end):
        o, c = self.operands, self.control
        src, other, sine = (Signal.like(self.read_address, name=n) for n in ("src", "other", "s"))
        first = Signal()
        with m.If(self.start):
            m.d.sync += [src.eq(o.src), other.eq(o.other)]
        with m.If(end):
            m.d.sync += [src.eq(src + o.src_stride), other.eq(other + o.other_stride)]
            with m.If(walk.turn):
                m.d.sync += [src.eq(o.src), other.eq(o.other)]
        m.d.sync += sine.eq(other + o.immediate)
        with m.If(self.take):
            m.d.sync += first.eq(1)
        with m.Elif(turn.step):
            m.d.sync += first.eq(0)
        base = Signal.like(src)
        index = Signal.like(src)
        m.d.comb += [base.eq(src), index.eq(turn.word)]
        with m.If(phase[1]):
            m.d.comb += index.eq(turn.partner)
        with m.If(phase[0]):
            m.d.comb += base.eq(Mux(phase[1], sine, other))
            with m.If(c.rotate):
                m.d.comb += index.eq(turn.repeated)
        m.d.sync += [self.read_address.eq(base + index), self.sideband.first.eq(first)]
