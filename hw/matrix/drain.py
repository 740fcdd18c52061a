"""How the results of a tile leave the lanes: bin after bin, row after row."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Drain(wiring.Component):
    """Takes a complete tile out of the lanes, its highest bin first.

    A lane with bins has one read port, so a bin is read in a cycle without a weight slice, for
    which `hold` asks two cycles ahead: one for each bin of a tile. Then the lanes show it for
    ``rows`` cycles, one for each row.

    Ports
    -----
    capture: a tile is complete
    hold: no slice in this cycle; next_hold: in the next one
    steal, read_bin: in the next cycle the lanes' read port is for this bin
    take: the lanes keep the bin that they read, ``delay`` cycles later
    out, row, bin: the row to combine, and the bin that lanes show
    next_pick, next_bin: that row in the next cycle, as one bit or none, and that bin
    last: ... and it is the tile's last
    """

    def __init__(self, config, *, delay):
        self.config, self.delay = config, delay
        bins = range(max(2, config.bins))
        super().__init__(
            {
                "capture": In(1),
                "hold": Out(1),
                "next_hold": Out(1),
                "steal": Out(1),
                "read_bin": Out(bins),
                "take": Out(1),
                "out": Out(1),
                "row": Out(range(config.rows)),
                "next_pick": Out(config.rows),
                "next_bin": Out(bins),
                "bin": Out(bins),
                "last": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        rows, bins = self.config.rows, self.config.bins
        m.d.comb += self.last.eq(self.out & (self.row == rows - 1) & (self.bin == 0))

        take = self.take
        taken = Signal.like(self.bin)
        kept, kept_bin = take, taken  # once the lanes have it
        for _ in range(self.delay):
            now = Signal()
            bin_now = Signal.like(self.bin)
            m.d.sync += [now.eq(kept), bin_now.eq(kept_bin)]
            kept, kept_bin = now, bin_now
        pick = Signal(rows)
        m.d.comb += self.next_bin.eq(Mux(kept, kept_bin, self.bin))
        m.d.comb += self.next_pick.eq(Mux(kept, 1, pick << 1))
        m.d.sync += [pick.eq(self.next_pick), self.bin.eq(self.next_bin)]
        with m.If(kept):
            m.d.sync += [self.out.eq(1), self.row.eq(0)]
        with m.Elif(self.row == rows - 1):
            m.d.sync += self.out.eq(0)
        with m.Else():
            m.d.sync += self.row.eq(self.row + 1)
        if bins == 1:
            m.d.comb += take.eq(self.capture)
            return m

        draining = Signal()
        timer = Signal(range(rows))
        bin = Signal.like(self.bin)
        held_bin = Signal.like(self.bin)
        m.d.comb += self.next_hold.eq(draining & (timer == 0))
        m.d.sync += [self.hold.eq(self.next_hold), held_bin.eq(bin)]
        with m.If(self.capture):
            m.d.sync += [draining.eq(1), bin.eq(bins - 1)]
        with m.Elif(draining):
            m.d.sync += timer.eq(timer + 1)
            with m.If(timer == rows - 1):
                m.d.sync += [timer.eq(0), bin.eq(bin - 1), draining.eq(bin != 0)]
        m.d.sync += [
            self.steal.eq(self.hold),
            self.read_bin.eq(held_bin),
            take.eq(self.steal),
            taken.eq(self.read_bin),
        ]
        return m
