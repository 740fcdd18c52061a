"""The external bus: AXI4 signals, burst splitting and the shared read channel."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from golden.config import AccelConfig

READ_CLIENTS = ("fetch", "load", "weights")
"""Users of the read channel, in order of priority; the index is the AXI ID."""


class Burst(data.Struct):
    """One burst: address of the first byte (a multiple of the bus width) and number of beats."""

    address: 32
    beats: 9


def axi4_read(config: AccelConfig) -> dict:
    """Ports of the AXI4 read channels, for a manager."""
    return {
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


def axi4_write(config: AccelConfig) -> dict:
    """Ports of the AXI4 write channels, for a manager."""
    return {
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


AXI4_LITE = {
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
"""Ports of an AXI4-Lite subordinate with 32-bit data and 4 KiB of addresses."""


class Bursts(wiring.Component):
    """Cuts a run of beats into bursts that end on multiples of ``burst_beats``.

    A pulse on ``start`` (while ``busy`` is low) takes ``address`` and ``beats`` (at least 1); the
    bursts come out of ``o`` in order. No burst crosses 4 KiB. Latency: 2 cycles.
    """

    latency = 2

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "address": In(config.addr_bits),
                "beats": In(32),
                "busy": Out(1),
                "o": Out(stream.Signature(Burst)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        size = exact_log2(self.config.bus_bytes)
        beat = Signal(self.config.addr_bits - size)
        left = Signal(32)
        longest = self.config.burst_beats
        fine = exact_log2(longest)
        room = Signal(range(1, longest + 1))
        beats = Signal(range(longest + 1))
        # What is left fits before the next multiple; a look at the low bits is enough for it.
        last = Signal()
        more = Signal()
        m.d.comb += [
            last.eq(~left[fine + 1 :].any() & (left[: fine + 1] <= room)),
            beats.eq(Mux(last, left[: fine + 1], room)),
            self.busy.eq(more | self.o.valid),
        ]
        # The burst that is asked for comes out of registers: who may ask is slow enough to tell.
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


class ReadMaster(wiring.Component):
    """Shares the read channel among `READ_CLIENTS`, the first with the highest priority.

    Each client asks with a stream of `Burst` and must take every beat of the answer at once: there
    is no way to hold the channel up, so no client can block another.

    Ports
    -----
    request_<client>: bursts wanted
    beat: which client the beat on ``data`` is for, one bit each; 0 when there is none
    data, error: the beat, and whether the memory flagged it
    stop: start no more bursts
    idle: no burst is on its way

    Latency: a request's address is on the bus `latency` cycles later.
    """

    latency = 1

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                **{f"request_{name}": In(stream.Signature(Burst)) for name in READ_CLIENTS},
                "beat": Out(len(READ_CLIENTS)),
                "data": Out(8 * config.bus_bytes),
                "error": Out(1),
                "stop": In(1),
                "idle": Out(1, init=1),
                "axi": Out(wiring.Signature(axi4_read(config))),
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
        requests = [getattr(self, f"request_{name}") for name in READ_CLIENTS]
        for index, request in reversed(list(enumerate(requests))):
            with m.If(request.valid):
                m.d.comb += [chosen.eq(request.payload), taken.eq(accept)]
                with m.If(accept):
                    m.d.sync += axi.arid.eq(index)
        before = 0
        for request in requests:
            m.d.comb += request.ready.eq(accept & ~before)
            before = before | request.valid
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
        m.d.comb += [
            axi.rready.eq(1),
            self.beat.eq(Mux(axi.rvalid, 1 << axi.rid, 0)),
            self.data.eq(axi.rdata),
            self.error.eq(axi.rresp[1]),
        ]
        return m
