"""An array for those who feed it by hand: activations come with their slice."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from hw.matrix.array import Array


class Aligned(wiring.Component):
    """An `Array` with the same ports, but that ``x`` comes with its slice, never later."""

    def __init__(self, config=None, *, kind=None):
        self.array = Array(config, kind=kind)
        self.latency = self.array.latency
        super().__init__(self.array.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.array = array = self.array
        for name, member in self.signature.members.items():
            pairs = [(getattr(self, name), getattr(array, name))]
            if member.dimensions:
                pairs = list(zip(*pairs[0], strict=True))
            for outer, inner in pairs:
                for _ in range(array.delay if name == "x" else 0):
                    late = Signal.like(outer)
                    m.d.sync += late.eq(outer)
                    outer = late
                m.d.comb += inner.eq(outer) if member.flow is In else outer.eq(inner)
        return m
