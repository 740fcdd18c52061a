"""An array for those who feed it by hand: activations come with their slice."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from hw.matrix.array import Array


class Aligned(wiring.Component):
    """An `Array` with the same ports, but that activations come with their slice, never later."""

    def __init__(self, config=None, *, kind=None):
        self.array = Array(config, kind=kind)
        self.latency = self.array.latency
        super().__init__(self.array.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.array = array = self.array
        outer = {path: value for path, _, value in self.signature.flatten(self)}
        for path, member, inner in array.signature.flatten(array):
            value = outer[path]
            for _ in range(array.delay if path[:2] == ("feed", "x") else 0):
                late = Signal.like(value)
                m.d.sync += late.eq(value)
                value = late
            m.d.comb += inner.eq(value) if member.flow is In else value.eq(inner)
        return m
