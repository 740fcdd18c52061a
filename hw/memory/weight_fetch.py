"""Weight fetch: reads the weight streams of coming instructions ahead of the array."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, Signature, connect, flipped

from golden.config import AccelConfig

from ..lib.instruction import ADDRESS, BEATS
from ..lib.queue import ReadAhead, StreamQueue
from .axi import Bursts, read_port


class Descriptor(data.Struct):
    """One weight stream.

    Fields
    ------
    address (32): Byte address of its first beat.
    beats (32): Number of its beats, at least 1.
    """

    address: ADDRESS
    beats: BEATS


def slice_signature(config: AccelConfig) -> Signature:
    """A weight slice, seen from the weight fetch.

    Members
    -------
    bytes (out, 8, for each row): One byte for each row of the array.
    """
    return Signature({"bytes": Out(8).array(config.rows)})


SliceControl = Signature(
    {
        "next_valid": Out(1),
        "failed": Out(1),
        "ready": In(1),
        "end": In(1),
    }
)
"""Handshake of the stream of weight slices, seen from the weight fetch.

Members
-------
next_valid (out, 1): High when there is a slice in the next cycle.
failed (out, 1): High when the memory flagged the beat of this cycle's slice as an error.
ready (in, 1): High when the slice of this cycle, if there is one, is taken.
end (in, 1): High when it is also the last one of its stream: the next stream begins on a new beat.
"""


class WeightFetch(wiring.Component):
    """Turns descriptors into a stream of weight slices, as far ahead as the FIFO is deep.

    A burst is asked for only when the FIFO has room for all of it, so the read channel never waits.
    A decoder of compressed streams would stand between the FIFO and the slices.

    Ports
    -----
    descriptor (in, stream of `Descriptor`): Streams to read, in order.
    memory (out, `read_port`): To the bus.
    control (out, `SliceControl`): Handshake of the slices.
    slice (out, `slice_signature`): The slice of this cycle; a beat's first one comes `latency`
        cycles after the beat.
    """

    latency = 3

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "descriptor": In(stream.Signature(Descriptor)),
                "memory": Out(read_port(config)),
                "control": Out(SliceControl),
                "slice": Out(slice_signature(config)),
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

        # Words of the FIFO that no burst has been asked for yet.
        room = Signal(range(depth + 1), init=depth)
        fits = Signal()
        asked = Signal()
        request, control = self.memory.request, self.control
        m.d.comb += [
            fits.eq(room >= bursts.o.payload.beats),
            request.valid.eq(bursts.o.valid & fits),
            request.payload.eq(bursts.o.payload),
            bursts.o.ready.eq(request.ready & fits),
            asked.eq(request.valid & request.ready),
        ]
        with m.If(asked):
            m.d.sync += room.eq(room - request.payload.beats + ahead.popped)
        with m.Else():
            m.d.sync += room.eq(room + ahead.popped)

        m.d.comb += [
            fifo.w_data.eq(Cat(self.memory.data, self.memory.error)),
            fifo.w_en.eq(self.memory.beat),
        ]
        done = Signal()
        m.d.comb += [
            ahead.r_data.eq(fifo.r_data),
            ahead.r_rdy.eq(fifo.r_rdy),
            fifo.r_en.eq(ahead.r_en),
            ahead.take.eq(done),
            control.next_valid.eq(ahead.next_valid),
            control.failed.eq(ahead.word[width]),
        ]

        per_beat = self.config.slices_per_beat
        if per_beat == 1:
            m.d.comb += done.eq(control.ready)
            part = ahead.word[:width]
        else:
            index = Signal(range(per_beat))
            m.d.comb += done.eq(control.ready & (control.end | (index == per_beat - 1)))
            with m.If(control.ready & ahead.valid):
                m.d.sync += index.eq(index + 1)
                with m.If(control.end):
                    m.d.sync += index.eq(0)
            part = ahead.word[:width].word_select(index, 8 * rows)
        m.d.comb += [self.slice.bytes[r].eq(part[8 * r : 8 * r + 8]) for r in range(rows)]
        return m
