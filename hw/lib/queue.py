"""Queues: a short one between two streams, and the reading end of a long one."""

from amaranth.hdl import Module, Mux, Shape, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out


class StreamQueue(wiring.Component):
    """Holds up to ``depth`` payloads of a struct shape. Latency: 2 cycles."""

    latency = 2

    def __init__(self, shape, depth: int):
        self.depth = depth
        self.width = Shape.cast(shape).width
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.fifo = fifo = SyncFIFOBuffered(width=self.width, depth=self.depth)
        m.d.comb += [
            fifo.w_data.eq(self.i.payload),
            fifo.w_en.eq(self.i.valid),
            self.i.ready.eq(fifo.w_rdy),
            self.o.payload.as_value().eq(fifo.r_data),
            self.o.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.o.ready),
        ]
        return m


class ReadAhead(wiring.Component):
    """The next word of a FIFO, in a register: block RAM is slow, and its words are needed early.

    A spare register takes the word that comes while the one before stays, so that reading does not
    look at whether that one is taken.

    Ports
    -----
    r_data, r_rdy, r_en: to a `SyncFIFOBuffered`
    popped: in this cycle a word leaves it
    word, valid: the next word, and whether it is there; next_valid: in the next cycle
    take: the word is used up
    """

    def __init__(self, width: int):
        super().__init__(
            {
                "r_data": In(width),
                "r_rdy": In(1),
                "r_en": Out(1),
                "popped": Out(1),
                "word": Out(width),
                "valid": Out(1),
                "next_valid": Out(1),
                "take": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        word, spare = (
            Signal.like(self.r_data, name=name, reset_less=True) for name in ("kept", "spare")
        )
        spared = Signal()
        m.d.comb += [
            self.r_en.eq(~spared),
            self.popped.eq(self.r_en & self.r_rdy),
            self.next_valid.eq((self.valid & ~self.take) | spared | self.popped),
            self.word.eq(word),
        ]
        m.d.sync += self.valid.eq(self.next_valid)
        with m.If(~self.valid | self.take):
            m.d.sync += [word.eq(Mux(spared, spare, self.r_data)), spared.eq(0)]
        with m.Elif(self.popped):
            m.d.sync += spared.eq(1)
        with m.If(~spared):
            m.d.sync += spare.eq(self.r_data)
        return m
