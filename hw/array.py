"""The output-stationary array: rows x cols lanes, decoders and combiners."""

from functools import reduce
from operator import or_

from amaranth.hdl import Array as Choice
from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.config import AccelConfig

from .combine import Combiner
from .decode import Decoder, RowControl
from .lane import Lane


class Row(wiring.Component):
    """What the lanes of one row share: the decoded weight, and which bins a tile has written.

    `weight` is the decoded code one cycle after `code`, `late` the same a cycle later. `fresh`
    says that the bin of `late` is void; `live` that bin `read_bin` of the tile last captured is
    not.
    """

    latency = 1

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "code": In(8),
                "valid": In(1),
                "late_valid": In(1),
                "first": In(1),
                "capture": In(1),
                "read_bin": In(range(max(2, config.bins))),
                "weight": Out(RowControl),
                "late": Out(RowControl),
                "fresh": Out(1),
                "live": Out(1),
                "invalid": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.decoder = decoder = Decoder(self.config)
        m.d.comb += [decoder.code.eq(self.code), self.invalid.eq(self.valid & decoder.invalid)]
        with m.If(self.valid):
            m.d.sync += self.weight.eq(decoder.control)
        m.d.sync += self.late.eq(self.weight)
        if self.config.bins == 1:
            m.d.comb += [self.fresh.eq(self.first), self.live.eq(1)]
            return m

        written, held = Signal(self.config.bins), Signal(self.config.bins)
        before = Mux(self.first, 0, written)
        here = Const(1, self.config.bins) << self.late.bin
        m.d.comb += [
            self.fresh.eq(~(before & here).any()),
            self.live.eq(held.bit_select(self.read_bin, 1)),
        ]
        with m.If(self.late_valid):
            m.d.sync += written.eq(before | Mux(self.late.nonzero, here, 0))
        with m.If(self.capture):
            m.d.sync += held.eq(written)
        return m


class Array(wiring.Component):
    """Takes one weight slice and one activation per column each cycle; gives a tile's dot products.

    Ports
    -----
    valid, first, last: a slice is there; it is the first or the last of its tile
    weights: ``rows`` RF8 codes
    x: ``cols`` activations
    active: columns that take part; constant while a tile is under way
    busy: a tile waits for its results to leave. The *last* slice of the next one must wait for
        it to fall: that is what the double buffer cannot hide.
    idle: no tile is complete whose results have yet to leave; the last of them leave some cycles
        after ``busy`` has fallen
    invalid: a code of the slice was invalid (one cycle pulse, with `valid`)
    result_valid, result_row, result: the dot products of one row, for each column

    Latency: the results of row r come ``latency + r * bins`` cycles after the last slice.
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        # decode, product, accumulate, capture; then the bins of row 0 and the combiner
        self.latency = Row.latency + Lane.latency + 1 + config.bins - 1 + Combiner.latency
        super().__init__(
            {
                "valid": In(1),
                "first": In(1),
                "last": In(1),
                "weights": In(8).array(config.rows),
                "x": In(signed(config.act_bits)).array(config.cols),
                "active": In(config.cols),
                "busy": Out(1),
                "idle": Out(1),
                "invalid": Out(1),
                "result_valid": Out(1),
                "result_row": Out(range(config.rows)),
                "result": Out(signed(config.acc_bits)).array(config.cols),
            }
        )

    def elaborate(self, platform):
        m = Module()
        rows, cols, bins = self.config.rows, self.config.cols, self.config.bins

        # The slice's way: decode (1), product (2), accumulate (3), capture (4).
        valid = [self.valid] + [Signal(name=f"valid{n}") for n in (1, 2)]
        first = [self.first] + [Signal(name=f"first{n}") for n in (1, 2)]
        last = [self.last] + [Signal(name=f"last{n}") for n in (1, 2)]
        capture, bank = Signal(), Signal()
        for n in (1, 2):
            m.d.sync += [
                valid[n].eq(valid[n - 1]),
                first[n].eq(first[n - 1]),
                last[n].eq(last[n - 1]),
            ]
        m.d.sync += [capture.eq(valid[2] & last[2]), bank.eq(bank ^ (valid[2] & last[2]))]
        xs = [
            Signal(signed(self.config.act_bits + 5), name=f"x{c}", reset_less=True)
            for c in range(cols)
        ]
        for c in range(cols):
            with m.If(self.valid & self.active[c]):
                m.d.sync += xs[c].eq(self.x[c])

        # The results' way: one bin of one row each cycle, the highest first.
        draining, row = Signal(), Signal(range(rows))
        read_bin = Signal(range(max(2, bins)), init=bins - 1)
        with m.If(capture):
            m.d.sync += draining.eq(1)
        with m.If(draining):
            with m.If(read_bin == 0):
                m.d.sync += [read_bin.eq(bins - 1), row.eq(row + 1)]
                with m.If(row == rows - 1):
                    m.d.sync += draining.eq(0)
            with m.Else():
                m.d.sync += read_bin.eq(read_bin - 1)
        with m.If(self.valid & self.last):
            m.d.sync += self.busy.eq(1)
        with m.Elif(draining & (row == rows - 1) & (read_bin == 0)):
            m.d.sync += self.busy.eq(0)

        row_parts = []
        for r in range(rows):
            m.submodules[f"row{r}"] = part = Row(self.config)
            row_parts.append(part)
            m.d.comb += [
                part.code.eq(self.weights[r]),
                part.valid.eq(self.valid),
                part.late_valid.eq(valid[2]),
                part.first.eq(first[2]),
                part.capture.eq(capture),
                part.read_bin.eq(read_bin),
            ]
        m.d.comb += self.invalid.eq(reduce(or_, (part.invalid for part in row_parts)))
        live = Choice(part.live for part in row_parts)

        for c in range(cols):
            m.submodules[f"combiner{c}"] = combiner = Combiner(self.config)
            m.d.comb += [
                combiner.row.eq(row),
                combiner.live.eq(live[row]),
                combiner.top.eq(read_bin == bins - 1),
                combiner.enable.eq(draining & self.active[c]),
                self.result[c].eq(combiner.sum),
            ]
            for r in range(rows):
                m.submodules[f"lane{r}_{c}"] = lane = Lane(self.config)
                m.d.comb += [
                    lane.weight.eq(row_parts[r].weight),
                    lane.valid.eq(valid[1]),
                    lane.late.eq(row_parts[r].late),
                    lane.late_valid.eq(valid[2]),
                    lane.first.eq(first[2]),
                    lane.fresh.eq(row_parts[r].fresh),
                    lane.enable.eq(self.active[c]),
                    lane.x.eq(xs[c]),
                    lane.bank.eq(bank),
                    lane.capture.eq(capture),
                    lane.read_bin.eq(read_bin),
                    combiner.bins[r].eq(lane.bin),
                ]

        done = [Signal(name=f"done{n}") for n in range(Combiner.latency)]
        done_row = [Signal(range(rows), name=f"done_row{n}") for n in range(Combiner.latency)]
        m.d.sync += [done[0].eq(draining & (read_bin == 0)), done_row[0].eq(row)]
        for n in range(1, Combiner.latency):
            m.d.sync += [done[n].eq(done[n - 1]), done_row[n].eq(done_row[n - 1])]
        m.d.comb += [
            self.result_valid.eq(done[-1]),
            self.result_row.eq(done_row[-1]),
            self.idle.eq(~(self.busy | Cat(done).any())),
        ]
        return m
