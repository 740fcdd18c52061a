"""STORE: one bank of the scratchpad to external memory."""

from amaranth.hdl import Array, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.config import AccelConfig

from .axi import Bursts, axi4_write


class Storer(wiring.Component):
    """Writes ``count`` words from word ``src`` of bank ``column`` to ``address`` on.

    One word each cycle when the memory takes them. ``start`` takes the operands; ``done`` is high
    for one cycle once the memory has answered all bursts, so a later instruction may read what was
    stored. ``failed``: an answer was an error. After ``stop`` the burst under way is finished, as
    the bus demands, and no other is begun; ``idle`` says that all are answered.
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "address": In(32),
                "count": In(16),
                "src": In(16),
                "column": In(range(max(2, config.cols))),
                "done": Out(1),
                "failed": Out(1),
                "stop": In(1),
                "idle": Out(1),
                "read_enable": Out(1),
                "read_address": Out(range(config.scratch_words)),
                "read_data": In(8 * config.bus_bytes).array(config.cols),
                "axi": Out(wiring.Signature(axi4_write(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        axi = self.axi
        m.submodules.bursts = bursts = Bursts(self.config)
        column = Signal.like(self.column)
        m.d.comb += [
            bursts.start.eq(self.start),
            bursts.address.eq(self.address),
            bursts.beats.eq(self.count),
        ]

        # Addresses: one burst at a time, its data before the next.
        left = Signal(9)
        with m.If(axi.awready):
            m.d.sync += axi.awvalid.eq(0)
        m.d.comb += bursts.o.ready.eq((left == 0) & ~axi.awvalid & ~self.stop)
        begun = Signal()
        m.d.comb += begun.eq(bursts.o.valid & bursts.o.ready)
        with m.If(begun):
            m.d.sync += [
                axi.awvalid.eq(1),
                axi.awaddr.eq(bursts.o.payload.address),
                axi.awlen.eq(bursts.o.payload.beats - 1),
                left.eq(bursts.o.payload.beats),
            ]

        # Data: the read port holds the word until it is sent.
        sent = Signal()
        fresh = Signal(9)  # words of this burst still to be read
        m.d.comb += [
            sent.eq(axi.wvalid & axi.wready),
            axi.wdata.eq(Array(self.read_data)[column]),
            axi.wlast.eq(left == 1),
            self.read_enable.eq((fresh != 0) & (~axi.wvalid | axi.wready)),
        ]
        with m.If(begun):
            m.d.sync += fresh.eq(bursts.o.payload.beats)
        with m.If(self.read_enable):
            m.d.sync += [
                fresh.eq(fresh - 1),
                axi.wvalid.eq(1),
                self.read_address.eq(self.read_address + 1),
            ]
        with m.Elif(sent):
            m.d.sync += axi.wvalid.eq(0)
        with m.If(sent):
            m.d.sync += left.eq(left - 1)
        with m.If(self.start):
            m.d.sync += [self.read_address.eq(self.src), column.eq(self.column)]

        # Answers.
        flying = Signal(16)
        answered, busy = Signal(), Signal()
        m.d.comb += [
            answered.eq(axi.bvalid & axi.bready),
            self.failed.eq(answered & axi.bresp[1]),
            self.idle.eq((flying == 0) & (left == 0) & ~axi.awvalid),
            self.done.eq(busy & self.idle & ~bursts.busy),
        ]
        m.d.sync += flying.eq(flying + begun - answered)
        with m.If(self.start):
            m.d.sync += busy.eq(1)
        with m.Elif(self.done):
            m.d.sync += busy.eq(0)
        return m
