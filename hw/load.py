"""LOAD: external memory to one bank of the scratchpad."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from golden.config import AccelConfig

from .axi import Burst, Bursts


class Loader(wiring.Component):
    """Reads ``count`` words from ``address`` on and writes them from word ``dst`` on.

    ``start`` takes the operands; ``done`` is high for one cycle when the last word is written,
    ``failed`` with it or before it when the memory flagged a beat. One word each cycle.
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "address": In(32),
                "count": In(16),
                "dst": In(16),
                "done": Out(1),
                "failed": Out(1),
                "request": Out(stream.Signature(Burst)),
                "beat": In(1),
                "error": In(1),
                "write_enable": Out(1),
                "write_address": Out(range(config.scratch_words)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.bursts = bursts = Bursts(self.config)
        connect(m, bursts.o, flipped(self.request))
        left = Signal(16)
        m.d.comb += [
            bursts.start.eq(self.start),
            bursts.address.eq(self.address),
            bursts.beats.eq(self.count),
            self.write_enable.eq(self.beat),
            self.done.eq(self.beat & (left == 1)),
            self.failed.eq(self.beat & self.error),
        ]
        with m.If(self.start):
            m.d.sync += [left.eq(self.count), self.write_address.eq(self.dst)]
        with m.Elif(self.beat):
            m.d.sync += [left.eq(left - 1), self.write_address.eq(self.write_address + 1)]
        return m
