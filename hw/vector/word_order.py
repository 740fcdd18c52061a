"""Words of a segment of a VECTOR instruction."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from golden.config import AccelConfig

from ..lib.instruction import OPERANDS


class WordOrder(wiring.Component):
    """Counts through the words of a segment; those of ROTATE in pairs.

    Elements ``k`` apart belong together. Where they lie in different words, these are a power of
    two of words apart. If they are ``paired``, they follow each other.

    Ports
    -----
    operands (in, struct): The instruction.
    rotate (in, 1): High for ROTATE.
    paired (in, 1): High when words that belong together are to follow each other; constant.
    prepare (in, 1): Pulses to begin to find out what follows from the instruction.
    ready (out, 1): High when that is done.
    start (in, 1): Pulses to go to the first word.
    step (in, 1): Pulses to go to the next.
    word (out, log2(scratch_words)): Index of a word.
    partner (out, log2(scratch_words)): Index of the word that it is turned with.
    repeated (out, log2(scratch_words)): ``word`` modulo ``immediate``.
    apart (out, 1): High when pairs are of different words, and follow each other.
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        index = range(config.scratch_words)
        super().__init__(
            {
                "operands": In(OPERANDS),
                "rotate": In(1),
                "paired": In(1),
                "prepare": In(1),
                "ready": Out(1),
                "start": In(1),
                "step": In(1),
                "word": Out(index),
                "partner": Out(index),
                "repeated": Out(index),
                "apart": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        width = len(self.word)
        lanes = exact_log2(self.config.results_per_word)
        far = Signal(width)
        period = Signal(width)
        m.d.sync += [
            far.eq(Mux(self.rotate, self.operands.k >> lanes, 0)),
            period.eq(self.operands.immediate),
        ]

        # ``far`` modulo the period, by repeated subtraction: in every use a few times at most.
        jump = Signal(width)
        over = Signal(width + 1)
        m.d.comb += over.eq(jump - period)
        m.d.comb += self.ready.eq(~self.rotate | over[-1])
        with m.If(self.prepare):
            m.d.sync += jump.eq(self.operands.k >> lanes)
        with m.Elif(~over[-1]):
            m.d.sync += jump.eq(over)

        # After the second word of a pair comes the first one of the next pair: the word after the
        # first, or, where adding one carries past the bit that tells the two apart, after both.
        apart = Signal(width)
        m.d.sync += apart.eq(Mux(self.paired, far, 0))
        m.d.comb += self.apart.eq(apart != 0)
        after = Signal(width)
        m.d.comb += [after.eq(self.word + 1), self.partner.eq(self.word ^ far)]
        first = Signal(width)  # index of the first word of the pair, modulo the period
        to_second = Signal()
        crosses = Signal()
        total = Signal(width + 1)
        cut = Signal(width + 2)
        new = Signal(width)
        # Registers, as ROTATE steps only every four cycles. Other functions do not use them.
        m.d.sync += [
            to_second.eq(self.apart & ~(self.word & apart).any()),
            crosses.eq(~(after & apart).any()),
            total.eq(Mux(to_second | crosses, self.repeated, first) + Mux(to_second, jump, 1)),
        ]
        m.d.comb += [cut.eq(total - period), new.eq(Mux(cut[-1], total, cut))]
        with m.If(self.start):
            m.d.sync += [self.word.eq(0), self.repeated.eq(0), first.eq(0)]
        with m.Elif(self.step):
            m.d.sync += self.repeated.eq(new)
            with m.If(to_second):
                m.d.sync += self.word.eq(self.word | apart)
            with m.Else():
                m.d.sync += [self.word.eq(after & ~apart), first.eq(new)]
        return m
