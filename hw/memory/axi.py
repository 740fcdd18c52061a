"""The external bus: AXI4 signals, burst splitting and the shared read channel."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, Signature
from amaranth.utils import exact_log2

from golden.config import AccelConfig

from ..lib.instruction import ADDRESS, BEATS

READ_CLIENTS = ("fetch", "load", "weights")
"""Users of the read channel, in order of priority; the index is the AXI ID."""


class Burst(data.Struct):
    """One burst on the bus.

    Fields
    ------
    address (32): Byte address of its first beat, a multiple of the bus width.
    beats (9): Number of its beats, 1 to 256.
    """

    address: ADDRESS
    beats: 9


def axi4_read(config: AccelConfig) -> Signature:
    """The AXI4 read channels AR and R, seen from the manager; names and meaning are AXI's.

    Every burst is of type INCR and of beats as wide as the bus.
    """
    return Signature(
        {
            "arid": Out(2),
            "araddr": Out(config.addr_bits),
            "arlen": Out(8),
            "arsize": Out(3, init=exact_log2(config.bus_bytes)),
            "arburst": Out(2, init=1),
            "arcache": Out(4, init=3),
            "arprot": Out(3),
            "arvalid": Out(1),
            "arready": In(1),
            "rid": In(2),
            "rdata": In(8 * config.bus_bytes),
            "rresp": In(2),
            "rlast": In(1),
            "rvalid": In(1),
            "rready": Out(1),
        }
    )


def axi4_write(config: AccelConfig) -> Signature:
    """The AXI4 write channels AW, W and B, seen from the manager; names and meaning are AXI's.

    Every burst is of type INCR and of beats as wide as the bus; strobes choose bytes of a beat.
    """
    return Signature(
        {
            "awid": Out(2),
            "awaddr": Out(config.addr_bits),
            "awlen": Out(8),
            "awsize": Out(3, init=exact_log2(config.bus_bytes)),
            "awburst": Out(2, init=1),
            "awcache": Out(4, init=3),
            "awprot": Out(3),
            "awvalid": Out(1),
            "awready": In(1),
            "wdata": Out(8 * config.bus_bytes),
            "wstrb": Out(config.bus_bytes, init=(1 << config.bus_bytes) - 1),
            "wlast": Out(1),
            "wvalid": Out(1),
            "wready": In(1),
            "bid": In(2),
            "bresp": In(2),
            "bvalid": In(1),
            "bready": Out(1, init=1),
        }
    )


AXI4_LITE = Signature(
    {
        "awaddr": In(12),
        "awprot": In(3),
        "awvalid": In(1),
        "awready": Out(1),
        "wdata": In(32),
        "wstrb": In(4),
        "wvalid": In(1),
        "wready": Out(1),
        "bresp": Out(2),
        "bvalid": Out(1),
        "bready": In(1),
        "araddr": In(12),
        "arprot": In(3),
        "arvalid": In(1),
        "arready": Out(1),
        "rdata": Out(32),
        "rresp": Out(2),
        "rvalid": Out(1),
        "rready": In(1),
    }
)
"""AXI4-Lite with 32-bit data and 4 KiB of addresses, seen from the subordinate; names and meaning
are AXI's."""


def read_port(config: AccelConfig) -> Signature:
    """A share in the read channel, seen from the client.

    Members
    -------
    request (out, stream of `Burst`): Bursts to read, in order.
    beat (in, 1): High when ``data`` is the next beat of this client. It must be taken at once, so
        a client asks only for what it has room for.
    data (in, 8 * bus_bytes): A beat; of other clients while ``beat`` is low.
    error (in, 1): High when the memory flagged the beat on ``data`` as an error.
    """
    return Signature(
        {
            "request": Out(stream.Signature(Burst)),
            "beat": In(1),
            "data": In(8 * config.bus_bytes),
            "error": In(1),
        }
    )


class Bursts(wiring.Component):
    """Cuts a run of beats into bursts that end on multiples of ``burst_beats``, so that none
    crosses a boundary of 4 KiB.

    Ports
    -----
    start (in, 1): Pulses, while ``busy`` is low, to take ``address`` and ``beats``.
    address (in, addr_bits): Byte address of the first beat, a multiple of the bus width.
    beats (in, 32): Number of beats in all, at least 1.
    busy (out, 1): High while a burst of the run has yet to leave.
    o (out, stream of `Burst`): The bursts in order, the first `latency` cycles after ``start``.
    """

    latency = 2

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "address": In(config.addr_bits),
                "beats": In(BEATS),
                "busy": Out(1),
                "o": Out(stream.Signature(Burst)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        size = exact_log2(self.config.bus_bytes)
        beat = Signal(self.config.addr_bits - size)
        left = Signal(BEATS)
        longest = self.config.burst_beats
        fine = exact_log2(longest)
        room = Signal(range(1, longest + 1))
        beats = Signal(range(longest + 1))
        # Whether the rest fits before the next multiple of the longest burst.
        last = Signal()
        more = Signal()
        m.d.comb += [
            last.eq(~left[fine + 1 :].any() & (left[: fine + 1] <= room)),
            beats.eq(Mux(last, left[: fine + 1], room)),
            self.busy.eq(more | self.o.valid),
        ]
        # The burst comes out of registers, as the choice among the clients behind it takes long.
        with m.If(self.start):
            first = self.address >> size
            m.d.sync += [beat.eq(first), left.eq(self.beats), more.eq(1)]
            m.d.sync += room.eq(longest - first[:fine])
        with m.Elif(~self.o.valid | self.o.ready):
            m.d.sync += [
                beat.eq((beat[fine:] + 1) << fine),
                room.eq(longest),
                left.eq(left - room),
                more.eq(more & ~last),
                self.o.valid.eq(more),
                self.o.payload.address.eq(beat << size),
                self.o.payload.beats.eq(beats),
            ]
        return m


class ReadManager(wiring.Component):
    """Shares the read channel among `READ_CLIENTS`, the first with the highest priority. A request
    is on the bus `latency` cycles later.

    A client must take every beat of its answers at once: there is no way to hold the channel up,
    so no client can block another.

    Ports
    -----
    fetch, load, weights (in, `read_port`): The clients.
    stop (in, 1): High: start no more bursts. Those on their way are finished.
    idle (out, 1): High when no burst is on its way.
    axi (out, `axi4_read`): The read channels of the bus.
    """

    latency = 1

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                **{name: In(read_port(config)) for name in READ_CLIENTS},
                "stop": In(1),
                "idle": Out(1, init=1),
                "axi": Out(axi4_read(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        axi = self.axi
        accept = Signal()
        m.d.comb += accept.eq(~self.stop & (~axi.arvalid | axi.arready))
        with m.If(axi.arready):
            m.d.sync += axi.arvalid.eq(0)

        chosen = Signal(Burst)
        taken = Signal()
        clients = [getattr(self, name) for name in READ_CLIENTS]
        for index, client in reversed(list(enumerate(clients))):
            with m.If(client.request.valid):
                m.d.comb += [chosen.eq(client.request.payload), taken.eq(accept)]
                with m.If(accept):
                    m.d.sync += axi.arid.eq(index)
        before = 0
        for client in clients:
            m.d.comb += client.request.ready.eq(accept & ~before)
            before = before | client.request.valid
        with m.If(taken):
            m.d.sync += [
                axi.arvalid.eq(1),
                axi.araddr.eq(chosen.address),
                axi.arlen.eq(chosen.beats - 1),
            ]

        flying = Signal(16)
        ended = Signal()
        m.d.comb += ended.eq(axi.rvalid & axi.rlast)
        m.d.sync += flying.eq(flying + taken - ended)
        with m.If(taken):
            m.d.sync += self.idle.eq(0)
        with m.Elif(ended):
            m.d.sync += self.idle.eq(flying == 1)
        beat = Signal(len(clients))  # whose it is, one bit each
        m.d.comb += [axi.rready.eq(1), beat.eq(Mux(axi.rvalid, 1 << axi.rid, 0))]
        for index, client in enumerate(clients):
            m.d.comb += [
                client.beat.eq(beat[index]),
                client.data.eq(axi.rdata),
                client.error.eq(axi.rresp[1]),
            ]
        return m
