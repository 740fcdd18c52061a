"""Weight fetch: reads the weight streams of coming instructions ahead of the array."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect, flipped

from golden.config import AccelConfig

from ..lib.queue import ReadAhead, StreamQueue
from .axi import Burst, Bursts


class Descriptor(data.Struct):
    """One weight stream: address of its first beat, and number of beats."""

    address: 32
    beats: 32


class WeightFetch(wiring.Component):
    """Turns descriptors into a stream of weight slices, as far ahead as the FIFO is deep.

    A burst is asked for only when the FIFO has room for all of it, so the read channel never waits.
    A decoder of compressed streams would stand between the FIFO and the slices.

    Ports
    -----
    descriptor: streams to read, in order
    request, beat, data, error: to `ReadManager`
    slice, valid, failed: a slice of ``rows`` bytes, and whether its beat was flagged by the memory;
        next_valid: in the next cycle
    ready: the slice is taken
    end: ... and it is the last of its stream; the next one starts on a new beat

    Latency: a beat's first slice is valid 3 cycles after the beat.
    """

    latency = 3

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "descriptor": In(stream.Signature(Descriptor)),
                "request": Out(stream.Signature(Burst)),
                "beat": In(1),
                "data": In(8 * config.bus_bytes),
                "error": In(1),
                "slice": Out(8).array(config.rows),
                "valid": Out(1),
                "next_valid": Out(1),
                "failed": Out(1),
                "ready": In(1),
                "end": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        rows, depth = self.config.rows, self.config.fifo_beats
        width = 8 * self.config.bus_bytes

        m.submodules.queue = queue = StreamQueue(Descriptor, 2)
        m.submodules.bursts = bursts = Bursts(self.config)
        m.submodules.fifo = fifo = SyncFIFOBuffered(width=width + 1, depth=depth)
        m.submodules.ahead = ahead = ReadAhead(width + 1)

        connect(m, flipped(self.descriptor), queue.i)
        m.d.comb += [
            bursts.start.eq(queue.o.valid & ~bursts.busy),
            queue.o.ready.eq(~bursts.busy),
            bursts.address.eq(queue.o.payload.address),
            bursts.beats.eq(queue.o.payload.beats),
        ]

        # Room that no burst has claimed yet.
        room = Signal(range(depth + 1), init=depth)
        fits = Signal()
        asked = Signal()
        m.d.comb += [
            fits.eq(room >= bursts.o.payload.beats),
            self.request.valid.eq(bursts.o.valid & fits),
            self.request.payload.eq(bursts.o.payload),
            bursts.o.ready.eq(self.request.ready & fits),
            asked.eq(self.request.valid & self.request.ready),
        ]
        with m.If(asked):
            m.d.sync += room.eq(room - self.request.payload.beats + ahead.popped)
        with m.Else():
            m.d.sync += room.eq(room + ahead.popped)

        m.d.comb += [
            fifo.w_data.eq(Cat(self.data, self.error)),
            fifo.w_en.eq(self.beat),
        ]
        done = Signal()
        m.d.comb += [
            ahead.r_data.eq(fifo.r_data),
            ahead.r_rdy.eq(fifo.r_rdy),
            fifo.r_en.eq(ahead.r_en),
            ahead.take.eq(done),
            self.valid.eq(ahead.valid),
            self.next_valid.eq(ahead.next_valid),
            self.failed.eq(ahead.word[width]),
        ]

        per_beat = self.config.slices_per_beat
        if per_beat == 1:
            m.d.comb += done.eq(self.ready)
            part = ahead.word[:width]
        else:
            index = Signal(range(per_beat))
            m.d.comb += done.eq(self.ready & (self.end | (index == per_beat - 1)))
            with m.If(self.ready & self.valid):
                m.d.sync += index.eq(index + 1)
                with m.If(self.end):
                    m.d.sync += index.eq(0)
            part = ahead.word[:width].word_select(index, 8 * rows)
        m.d.comb += [self.slice[r].eq(part[8 * r : 8 * r + 8]) for r in range(rows)]
        return m
