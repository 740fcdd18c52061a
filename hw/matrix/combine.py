"""The bin combiner of one column: makes whole dot products of the lanes' bins."""

from functools import reduce
from operator import or_

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..lib.adders import add_subtract


class Combiner(wiring.Component):
    """Makes whole dot products of bins by Horner's rule; shared by the lanes of a column.

    Each cycle takes one bin of one row: all rows' highest bins first, then the next lower ones:
    ``sum[row] = (sum[row] << 2**align) + bin``. A sum comes `latency` cycles after its bin was
    taken.

    Ports
    -----
    bins (in, signed bin_bits, for each row): The bin that each lane of the column shows.
    row (in, log2(rows)): The row to take; never that of the cycle before.
    pick (in, rows): The same as one bit; none where its bin has no content and counts as zero.
    top (in, 1): High when it is the row's highest bin.
    enable (in, 1): High: take a bin in this cycle.
    sum (out, signed acc_bits): Of the row taken; its dot product after its lowest bin.
    """

    latency = 2

    def __init__(self, config):
        self.config = config
        super().__init__(
            {
                "bins": In(signed(config.bin_bits)).array(config.rows),
                "row": In(range(config.rows)),
                "pick": In(config.rows),
                "top": In(1),
                "enable": In(1),
                "sum": Out(signed(config.acc_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        picked = Signal(signed(config.bin_bits), reset_less=True)
        enable = Signal()
        # AND with the pick, then OR: smaller than a tree of multiplexers, as one look-up table of
        # four inputs takes two rows.
        choices = [
            bins & pick.replicate(config.bin_bits)
            for bins, pick in zip(self.bins, self.pick, strict=True)
        ]
        m.d.sync += enable.eq(self.enable)
        total = Signal.like(self.sum, reset_less=True)
        m.d.comb += self.sum.eq(total)
        with m.If(self.enable):
            m.d.sync += picked.eq(reduce(or_, choices))
        if config.bins == 1:
            with m.If(enable):
                m.d.sync += total.eq(picked)
            return m

        assert config.rows > 1  # as a row never directly follows itself
        lower = Signal()
        row = Signal.like(self.row)
        with m.If(self.enable):  # the enable keeps the copies of columns apart, each close by
            m.d.sync += [lower.eq(~self.top), row.eq(self.row)]
        m.submodules.sums = sums = memory.Memory(
            shape=signed(config.acc_bits), depth=config.rows, init=[]
        )
        read, write = sums.read_port(domain="comb"), sums.write_port()
        # Read a cycle ahead. The row's sum has been written by then, as the row before is another.
        above = Signal(signed(config.acc_bits), reset_less=True)
        wide = Signal(signed(config.acc_bits))
        m.d.sync += above.eq(read.data << (1 << config.align))
        m.d.comb += wide.eq(picked)
        new = add_subtract(m, platform, "combine", wide, above, subtract=0, carry=0, keep=lower)
        m.d.comb += [
            read.addr.eq(self.row),
            write.addr.eq(row),
            write.en.eq(enable),
            write.data.eq(new),
        ]
        with m.If(enable):
            m.d.sync += total.eq(new)
        return m
