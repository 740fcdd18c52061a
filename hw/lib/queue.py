"""Queues: a short one between two streams, and the reading end of a long one."""

from amaranth.hdl import Module, Mux, Shape, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out


class StreamQueue(wiring.Component):
    """A queue between two streams, first in, first out. A payload leaves `latency` cycles after it
    came.

    Parameters
    ----------
    shape: shape of a payload
    depth: payloads that it holds, at least 2

    Ports
    -----
    i (in, stream): Payloads; ready while fewer than ``depth`` are waiting, but with a depth of 2
        not in the cycle after one came.
    o (out, stream): The same in order.
    """

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
    depend on whether that one is taken.

    Ports
    -----
    r_data (in, width): The word that a `SyncFIFOBuffered` shows.
    r_rdy (in, 1): High when the FIFO shows one.
    r_en (out, 1): High to take it.
    popped (out, 1): High when a word leaves the FIFO in this cycle.
    word (out, width): The next word.
    valid (out, 1): High when ``word`` is one.
    next_valid (out, 1): ``valid`` of the next cycle.
    take (in, 1): High, while ``valid`` is, when the word is used up in this cycle.
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
