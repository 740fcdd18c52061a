"""The output-stationary array: rows x cols lanes, decoders and combiners."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .combine import Combiner
from .decode import TwoTerm
from .drain import Drain
from .lane import Lane, bank_bits, delay


class Row(wiring.Component):
    """What the lanes of one row share: the decoded weight, and where its term goes.

    Ports
    -----
    code, valid: a weight of this cycle
    weight: the decoded code one cycle later; ``late`` the same a cycle later still, ``write``
        whether it is a term to accumulate
    valid1: there is a weight
    bank, read_at, write_at: the bank that accumulates, at the stage of ``weight``; words of the
        lanes' memories at that of ``late``
    steal, bin: in the next cycle, `read_at` is ``bin`` of the other bank
    complete: in the cycle before, the tile's last term was at the stage of ``weight``; now there is
        none
    live_bin, live: bin of the tile that was complete last, and whether the tile has written it
    invalid: the code of the cycle before was invalid
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
        if delay(self.kind.config):  # many of them, and far: `valid` need not enable them
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

        # Bins that the tile has written before this term.
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

    Parameters: ``config`` (`golden.config.AccelConfig`), or ``kind``, for other weights than RF8.

    Ports
    -----
    valid, last: a slice is there; it is the last of its tile. Before the next tile's first slice
        lies a cycle without one at least: there is a header
    weights: ``rows`` weights of a byte each
    x: ``cols`` activations, `delay` cycles after the slice
    active: columns that take part; constant from the cycle before a tile until its results are out
    hold: no slice in this cycle, please: lanes with bins are read in the gap; next_hold: nor in
        the next one
    busy: a tile waits for its results to leave. The *last* slice of the next one must wait for
        it to fall: that is what the double buffer cannot hide. stays: it is busy, and does not fall
        at the end of this cycle
    idle: no tile is complete whose results have yet to leave; the last of them leave some cycles
        after ``busy`` has fallen
    invalid: a code of the slice was invalid (a pulse two cycles after `valid`)
    result_valid, result: the dot products of one row, for each column; next_row: in the next cycle
        they are of this row

    Latency: the results of row r come ``latency + r`` cycles after the last slice.
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
                "valid": In(1),
                "last": In(1),
                "weights": In(8).array(config.rows),
                "x": In(signed(config.act_bits)).array(config.cols),
                "active": In(config.cols),
                "hold": Out(1),
                "next_hold": Out(1),
                "busy": Out(1),
                "stays": Out(1),
                "idle": Out(1),
                "invalid": Out(1),
                "result_valid": Out(1),
                "next_row": Out(range(config.rows)),
                "result": Out(signed(config.acc_bits)).array(config.cols),
            }
        )

    def elaborate(self, platform):
        m = Module()
        rows, cols, bins = self.config.rows, self.config.cols, self.config.bins

        # The slice's way: decode (1), product (2), accumulate (3), capture (4); lanes with bins are
        # a cycle later, which the drain waits for.
        valid = [self.valid] + [Signal(name=f"valid{n}") for n in (1, 2)]
        last = [self.last] + [Signal(name=f"last{n}") for n in (1, 2)]
        capture = Signal()
        bank = Signal()
        for n in (1, 2):
            m.d.sync += [
                valid[n].eq(valid[n - 1]),
                last[n].eq(last[n - 1]),
            ]
        complete = valid[2] & last[2]
        active = Signal(cols)  # halfway to the lanes
        m.d.sync += active.eq(self.active)
        m.d.sync += [capture.eq(complete), bank.eq(bank ^ (valid[1] & last[1]))]
        columns = []
        for c in range(cols):
            multiples = self.kind.column(self.x[c])
            columns.append(
                [
                    Signal(signed(width), name=f"x{c}_{n}", reset_less=True)
                    for n, width in enumerate(self.kind.widths)
                ]
            )
            with m.If(valid[self.delay] & active[c]):
                m.d.sync += [
                    kept.eq(value) for kept, value in zip(columns[c], multiples, strict=True)
                ]

        m.submodules.drain = drain = Drain(self.config, delay=self.delay)
        m.d.comb += [
            drain.capture.eq(capture),
            self.hold.eq(drain.hold),
            self.next_hold.eq(drain.next_hold),
        ]
        m.d.comb += self.stays.eq(self.busy & ~drain.last)
        m.d.sync += self.busy.eq(self.stays | (self.valid & self.last))

        row_parts = []
        for r in range(rows):
            m.submodules[f"row{r}"] = part = Row(self.kind)
            row_parts.append(part)
            m.d.comb += [
                part.code.eq(self.weights[r]),
                part.valid.eq(self.valid),
                part.valid1.eq(valid[1]),
                part.bank.eq(bank),
                part.steal.eq(drain.steal),
                part.bin.eq(drain.read_bin),
                part.complete.eq(complete),
                part.live_bin.eq(drain.next_bin),
            ]
        m.d.sync += self.invalid.eq(reduce(or_, (part.invalid for part in row_parts)))
        # A register: with logic before them, synthesis does not find the combiners' small form.
        pick = Signal(rows)
        m.d.sync += pick.eq(drain.next_pick & Cat(part.live for part in row_parts))

        for c in range(cols):
            m.submodules[f"combiner{c}"] = combiner = Combiner(self.config)
            m.d.comb += [
                combiner.row.eq(drain.row),
                combiner.pick.eq(pick),
                combiner.top.eq(drain.bin == bins - 1),
                combiner.enable.eq(drain.out & active[c]),
                self.result[c].eq(combiner.sum),
            ]
            for r in range(rows):
                m.submodules[f"lane{r}_{c}"] = lane = Lane(self.kind)
                m.d.comb += [
                    lane.weight.eq(row_parts[r].weight),
                    lane.valid.eq(valid[1]),
                    lane.late.eq(row_parts[r].late),
                    lane.write.eq(row_parts[r].write),
                    lane.read_at.eq(row_parts[r].read_at),
                    lane.write_at.eq(row_parts[r].write_at),
                    lane.take.eq(drain.take),
                    lane.enable.eq(active[c]),
                    combiner.bins[r].eq(lane.held),
                ]
                m.d.comb += [getattr(lane, f"x{n}").eq(x) for n, x in enumerate(columns[c])]

        done = [Signal(name=f"done{n}") for n in range(Combiner.latency)]
        done_row = [Signal(range(rows), name=f"done_row{n}") for n in range(Combiner.latency - 1)]
        m.d.sync += [done[0].eq(drain.out & (drain.bin == 0)), done_row[0].eq(drain.row)]
        for n in range(1, Combiner.latency):
            m.d.sync += done[n].eq(done[n - 1])
        for n in range(1, Combiner.latency - 1):
            m.d.sync += done_row[n].eq(done_row[n - 1])
        m.d.comb += [
            self.result_valid.eq(done[-1]),
            self.next_row.eq(done_row[-1]),
            self.idle.eq(~(self.busy | Cat(done).any())),
        ]
        return m
