"""The bin combiner of one column: makes whole dot products of the lanes' bins."""

from amaranth.hdl import Array, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.config import AccelConfig


class Combiner(wiring.Component):
    """Horner's rule over the bins of one row after the other, shared by the lanes of a column.

    Each cycle takes one bin of one row, the highest first: ``sum = (sum << 2**align) + bin``. After
    a row's lowest bin, ``sum`` holds its dot product.

    Ports
    -----
    bins: the bin that each lane of the column shows in this cycle
    row: the row to take
    live: its bin has content; a bin not written in the tile counts as zero
    top: it is the row's highest bin
    enable: take a bin in this cycle
    sum: signed ``acc_bits``

    Latency: 2 cycles from the lowest bin to ``sum`` (select, add).
    """

    latency = 2

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "bins": In(signed(config.bin_bits)).array(config.rows),
                "row": In(range(config.rows)),
                "live": In(1),
                "top": In(1),
                "enable": In(1),
                "sum": Out(signed(config.acc_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bins = Array(self.bins)
        picked = Signal(signed(self.config.bin_bits))
        top, enable = Signal(), Signal()
        m.d.sync += enable.eq(self.enable)
        with m.If(self.enable):
            m.d.sync += [picked.eq(Mux(self.live, bins[self.row], 0)), top.eq(self.top)]
        with m.If(enable):
            above = Mux(top, 0, self.sum << (1 << self.config.align))
            m.d.sync += self.sum.eq(above + picked)
        return m
