"""The output-stationary array: rows x cols lanes, decoders and combiners."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, Signature

from ..memory.weight_fetch import slice_signature
from .combine import Combiner
from .decode import TwoTerm
from .drain import Drain
from .lane import Lane, bank_bits, delay


def array_feed(config) -> Signature:
    """Slices and activations for the array, seen from who feeds it.

    Members
    -------
    valid (out, 1): High when a weight slice is presented in this cycle.
    last (out, 1): High when it is the last slice of its tile. Before the first slice of the next
        tile lies at least one cycle without a slice: there is a header.
    x (out, signed act_bits, for each column): Activations of the slice, `delay` cycles after it.
    hold (in, 1): High: present no slice; the drain needs the bins' read port.
    next_hold (in, 1): ``hold`` of the next cycle.
    busy (in, 1): High while a tile waits for its results to leave. The *last* slice of the next
        tile must wait for it to fall: that is what the double buffer cannot hide.
    stays (in, 1): High when ``busy`` is high in the next cycle, too, whatever is presented now.
    """
    return Signature(
        {
            "valid": Out(1),
            "last": Out(1),
            "x": Out(signed(config.act_bits)).array(config.cols),
            "hold": In(1),
            "next_hold": In(1),
            "busy": In(1),
            "stays": In(1),
        }
    )


def array_results(config) -> Signature:
    """Dot products, seen from the array.

    Members
    -------
    valid (out, 1): High when ``dot`` has the dot products of a row.
    next_row (out, log2(rows)): The row that they will be of in the next cycle.
    dot (out, signed acc_bits, for each column): The dot product of the row and the column's
        activations.
    """
    return Signature(
        {
            "valid": Out(1),
            "next_row": Out(range(config.rows)),
            "dot": Out(signed(config.acc_bits)).array(config.cols),
        }
    )


class Row(wiring.Component):
    """What the lanes of one row share: the decoded weight, and where its term goes.

    Ports
    -----
    code (in, 8): A weight.
    valid (in, 1): High when ``code`` is a weight of this cycle.
    valid1 (in, 1): ``valid`` of the cycle before.
    bank (in, 1): The bank of bins that accumulates, for the weight that ``weight`` shows.
    steal (in, 1): High: in the next cycle ``read_at`` is ``bin`` of the other bank, for the drain.
    bin (in, log2(bins)): The bin that the drain reads.
    complete (in, 1): Pulses one cycle after ``weight`` showed the tile's last weight.
    live_bin (in, log2(bins)): A bin of the tile that was complete last.
    weight (out, struct): The decoded weight, one cycle after ``code``.
    late (out, struct): ``weight`` of the cycle before.
    write (out, 1): High when ``late`` is a term to accumulate.
    read_at (out, bank_bits + 1): Word of the lanes' memories to read, for ``late``.
    write_at (out, bank_bits + 1): Word of the lanes' memories to write, for ``late``.
    live (out, 1): High when the tile that was complete last has written ``live_bin``.
    invalid (out, 1): High when the code of the cycle before was invalid.
    """

    latency = 1

    def __init__(self, kind):
        self.kind = kind
        config = kind.config
        address, bins = bank_bits(config) + 1, range(max(2, config.bins))
        super().__init__(
            {
                "code": In(8),
                "valid": In(1),
                "valid1": In(1),
                "bank": In(1),
                "steal": In(1),
                "bin": In(bins),
                "complete": In(1),
                "live_bin": In(bins),
                "weight": Out(kind.control),
                "late": Out(kind.control),
                "write": Out(1),
                "read_at": Out(address),
                "write_at": Out(address),
                "live": Out(1),
                "invalid": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bins = self.kind.config.bins
        m.submodules.decoder = decoder = self.kind.decoder()
        refused = Signal()
        m.d.comb += [decoder.code.eq(self.code), self.invalid.eq(self.valid1 & refused)]
        m.d.sync += refused.eq(decoder.invalid)
        if delay(self.kind.config):  # many registers, far away: they go without an enable
            m.d.sync += self.weight.eq(decoder.control)
        else:
            with m.If(self.valid):
                m.d.sync += self.weight.eq(decoder.control)
        term = Signal()
        m.d.comb += term.eq(self.valid1 & self.weight.nonzero)
        m.d.sync += [self.late.eq(self.weight), self.write.eq(term)]
        if bins == 1:
            m.d.comb += self.live.eq(1)
            return m

        # A bit for each bin: high when the tile has written it before this term.
        words = bank_bits(self.kind.config)
        written = Signal(bins)
        held = Signal(bins)
        place = self.weight.bin[:words]
        with m.If(self.complete):
            m.d.sync += [held.eq(written), written.eq(0)]
        with m.Elif(term):
            m.d.sync += written.eq(written | Const(1, bins) << place)
        m.d.comb += self.live.eq(held.bit_select(self.live_bin, 1))

        zero = Const((1 << words) - 1, words)
        here = Mux(written.bit_select(place, 1), place, zero)
        m.d.sync += [
            self.write_at.eq(Cat(place, self.bank)),
            self.read_at.eq(
                Mux(
                    self.steal,
                    Cat(self.bin | Const(0, words), ~self.bank),
                    Cat(here, self.bank),
                )
            ),
        ]
        return m


class Array(wiring.Component):
    """Takes one weight slice and one activation per column each cycle; gives a tile's dot products.

    The dot products of row r come ``latency + r`` cycles after the tile's last slice.

    Parameters
    ----------
    config: `golden.config.AccelConfig`
    kind: in place of ``config``: what weights are, if they are not RF8 (`hw.matrix.baselines`)

    Ports
    -----
    feed (in, `array_feed`): Slices and activations.
    slice (in, `slice_signature`): The weight slice that ``feed`` presents.
    active (in, cols): A bit for each column: high when it takes part. Constant from the cycle
        before a tile until its results are out.
    idle (out, 1): High when no tile is complete whose results have yet to leave; the last of them
        leave some cycles after ``busy`` has fallen.
    invalid (out, 1): Pulses two cycles after a slice that held an invalid code.
    results (out, `array_results`): Dot products.
    """

    def __init__(self, config=None, *, kind=None):
        self.kind = kind or TwoTerm(config)
        self.config = config = self.kind.config
        self.delay = delay(config)
        # decode, the lanes' delay, product, accumulate, capture; then the bins and the combiner
        self.latency = Row.latency + self.delay + Lane.latency + 1 + Combiner.latency
        if config.bins > 1:
            # The highest bin is read four cycles later, the others follow rows cycles apart.
            self.latency += 4 + (config.bins - 1) * config.rows
        super().__init__(
            {
                "feed": In(array_feed(config)),
                "slice": In(slice_signature(config)),
                "active": In(config.cols),
                "idle": Out(1),
                "invalid": Out(1),
                "results": Out(array_results(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        feed = self.feed
        # Cycles after a slice: 1 decoded, 2 product, 3 accumulated, 4 captured. Lanes with bins are
        # a cycle later; the drain waits for them.
        valid = [feed.valid] + [Signal(name=f"valid{n}") for n in (1, 2)]
        last = [feed.last] + [Signal(name=f"last{n}") for n in (1, 2)]
        for n in (1, 2):
            m.d.sync += [valid[n].eq(valid[n - 1]), last[n].eq(last[n - 1])]
        complete = valid[2] & last[2]
        capture = Signal()
        bank = Signal()
        active = Signal(self.config.cols)  # a register on the way to the lanes
        m.d.sync += active.eq(self.active)
        m.d.sync += [capture.eq(complete), bank.eq(bank ^ (valid[1] & last[1]))]

        m.submodules.drain = drain = Drain(self.config, delay=self.delay)
        m.d.comb += [
            drain.capture.eq(capture),
            feed.hold.eq(drain.hold),
            feed.next_hold.eq(drain.next_hold),
            feed.stays.eq(feed.busy & ~drain.last),
        ]
        m.d.sync += feed.busy.eq(feed.stays | (feed.valid & feed.last))

        rows = self._rows(m, valid[1], bank, complete, drain)
        columns = self._columns(m, valid[self.delay], active)
        self._lanes(m, valid[1], active, rows, columns, drain)
        self._results(m, drain)
        return m

    def _rows(self, m, valid1, bank, complete, drain):
        """A decoder for each row, and what its lanes share."""
        rows = []
        for r, code in enumerate(self.slice.bytes):
            m.submodules[f"row{r}"] = row = Row(self.kind)
            rows.append(row)
            m.d.comb += [
                row.code.eq(code),
                row.valid.eq(self.feed.valid),
                row.valid1.eq(valid1),
                row.bank.eq(bank),
                row.steal.eq(drain.steal),
                row.bin.eq(drain.read_bin),
                row.complete.eq(complete),
                row.live_bin.eq(drain.next_bin),
            ]
        m.d.sync += self.invalid.eq(reduce(or_, (row.invalid for row in rows)))
        return rows

    def _columns(self, m, valid, active):
        """Multiples of each column's activation, kept once for all its lanes."""
        columns = []
        for c, x in enumerate(self.feed.x):
            multiples = self.kind.column(x)
            columns.append(
                [
                    Signal(signed(width), name=f"x{c}_{n}", reset_less=True)
                    for n, width in enumerate(self.kind.widths)
                ]
            )
            with m.If(valid & active[c]):
                m.d.sync += [
                    kept.eq(value) for kept, value in zip(columns[c], multiples, strict=True)
                ]
        return columns

    def _lanes(self, m, valid1, active, rows, columns, drain) -> None:
        """Lanes, and for each column the combiner of their bins."""
        # A register: with logic before them, synthesis does not find the combiners' small form.
        pick = Signal(self.config.rows)
        m.d.sync += pick.eq(drain.next_pick & Cat(row.live for row in rows))
        for c, multiples in enumerate(columns):
            m.submodules[f"combiner{c}"] = combiner = Combiner(self.config)
            m.d.comb += [
                combiner.row.eq(drain.row),
                combiner.pick.eq(pick),
                combiner.top.eq(drain.bin == self.config.bins - 1),
                combiner.enable.eq(drain.out & active[c]),
                self.results.dot[c].eq(combiner.sum),
            ]
            for r, row in enumerate(rows):
                m.submodules[f"lane{r}_{c}"] = lane = Lane(self.kind)
                m.d.comb += [
                    lane.weight.eq(row.weight),
                    lane.valid.eq(valid1),
                    lane.late.eq(row.late),
                    lane.write.eq(row.write),
                    lane.read_at.eq(row.read_at),
                    lane.write_at.eq(row.write_at),
                    lane.take.eq(drain.take),
                    lane.enable.eq(active[c]),
                    combiner.bins[r].eq(lane.held),
                ]
                m.d.comb += [getattr(lane, f"x{n}").eq(x) for n, x in enumerate(multiples)]

    def _results(self, m, drain) -> None:
        """When the combiners' sums are whole dot products, and of which row."""
        done = [Signal(name=f"done{n}") for n in range(Combiner.latency)]
        row = [Signal.like(drain.row, name=f"done_row{n}") for n in range(Combiner.latency - 1)]
        m.d.sync += [done[0].eq(drain.out & (drain.bin == 0)), row[0].eq(drain.row)]
        for n in range(1, Combiner.latency):
            m.d.sync += done[n].eq(done[n - 1])
        for n in range(1, Combiner.latency - 1):
            m.d.sync += row[n].eq(row[n - 1])
        m.d.comb += [
            self.results.valid.eq(done[-1]),
            self.results.next_row.eq(row[-1]),
            self.idle.eq(~(self.feed.busy | Cat(done).any())),
        ]
