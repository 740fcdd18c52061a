"""How the results of a tile leave the lanes: bin after bin, row after row."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Drain(wiring.Component):
    """Takes a complete tile out of the lanes, its highest bin first.

    A lane with bins has one read port, so a bin is read in a cycle without a weight slice, for
    which ``hold`` asks two cycles ahead: one for each bin of a tile. Then the lanes show it for
    ``rows`` cycles, one for each row.

    Parameters
    ----------
    config: sizes of the array
    delay: cycles by which lanes are later than their row

    Ports
    -----
    capture (in, 1): Pulses when a tile is complete.
    hold (out, 1): High: present no slice in this cycle.
    next_hold (out, 1): ``hold`` of the next cycle.
    steal (out, 1): High: in the next cycle the lanes' read port is for ``read_bin``.
    read_bin (out, log2(bins)): The bin to read.
    take (out, 1): High: keep the bin that is being read, ``delay`` cycles later.
    out (out, 1): High when ``row`` and ``bin`` are to be combined in this cycle.
    row (out, log2(rows)): The row to combine.
    bin (out, log2(bins)): The bin that lanes show.
    next_pick (out, rows): ``row`` of the next cycle as one bit; none when there is nothing to
        combine.
    next_bin (out, log2(bins)): ``bin`` of the next cycle.
    last (out, 1): High when ``row`` and ``bin`` are the last ones of the tile.
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
        kept, kept_bin = take, taken  # `take` as the lanes see it, `delay` cycles later
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
