"""Weight fetch: reads the weight streams of coming instructions ahead of the array."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect, flipped

from golden.config import AccelConfig

from .axi import Burst, Bursts
from .queue import StreamQueue


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
    request, beat, data, error: to `ReadMaster`
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
        asked, popped = Signal(), Signal()
        m.d.comb += [
            fits.eq(room >= bursts.o.payload.beats),
            self.request.valid.eq(bursts.o.valid & fits),
            self.request.payload.eq(bursts.o.payload),
            bursts.o.ready.eq(self.request.ready & fits),
            asked.eq(self.request.valid & self.request.ready),
            popped.eq(fifo.r_en & fifo.r_rdy),
        ]
        with m.If(asked):
            m.d.sync += room.eq(room - self.request.payload.beats + popped)
        with m.Else():
            m.d.sync += room.eq(room + popped)

        m.d.comb += [
            fifo.w_data.eq(Cat(self.data, self.error)),
            fifo.w_en.eq(self.beat),
        ]
        # Registers after the memory, which is slow: the array decodes right behind it. A spare one
        # takes the beat that comes while the array waits, so that reading does not look at `ready`.
        beat, spare = (Signal(width + 1, name=name, reset_less=True) for name in ("beat", "spare"))
        kept, done = Signal(), Signal()
        m.d.comb += [fifo.r_en.eq(~kept), self.failed.eq(beat[width])]
        m.d.comb += self.next_valid.eq((self.valid & ~done) | kept | popped)
        m.d.sync += self.valid.eq(self.next_valid)
        with m.If(~self.valid | done):
            m.d.sync += [beat.eq(Mux(kept, spare, fifo.r_data)), kept.eq(0)]
        with m.Elif(popped):
            m.d.sync += kept.eq(1)
        with m.If(~kept):
            m.d.sync += spare.eq(fifo.r_data)

        per_beat = self.config.slices_per_beat
        if per_beat == 1:
            m.d.comb += done.eq(self.ready)
            part = beat[:width]
        else:
            index = Signal(range(per_beat))
            m.d.comb += done.eq(self.ready & (self.end | (index == per_beat - 1)))
            with m.If(self.ready & self.valid):
                m.d.sync += index.eq(index + 1)
                with m.If(self.end):
                    m.d.sync += index.eq(0)
            part = beat[:width].word_select(index, 8 * rows)
        m.d.comb += [self.slice[r].eq(part[8 * r : 8 * r + 8]) for r in range(rows)]
        return m
