"""Matrix product control: pairs weight slices with activations, tile after tile."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from golden.config import BIAS_PLANES, AccelConfig

from .lane import delay

ERROR_LATENCY = 4
"""Cycles from a slice until the sequencer knows whether its codes are valid."""


class Matmul(wiring.Component):
    """Runs one MATMUL.

    First the shared exponents and the first word of activations are read. Then each tile takes its
    header slices and ``k`` weight slices as fast as the weight stream brings them; activations are
    read one word ahead. The last slice of a tile waits until the results of the tile before have
    left the array.

    Ports
    -----
    start, k, count, src, bias: operands, taken when ``start`` is high
    streamed: all slices have been taken, and their errors shown: the next MATMUL may start, if it
        needs none of the results
    done: for one cycle, when all results are written
    weights_next, weights_failed, weights_ready, weights_end: the weight stream; a slice is there in
        the next cycle
    x_enable, x_address, x_word: the scratchpad, latency 1; enabled from the start until done, as
        its banks are far away
    array_valid, array_last, array_busy, array_stays, array_hold, array_next_hold, x: the array (`x`
        its `delay` cycles later)
    header, plane, bare, take, exponent: to the writeback
    results_idle: array and writeback hold no results
    failed: a weight slice came from a beat that the memory flagged
    stall_weights, stall_drain: why no slice was taken in this cycle
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        act = config.act_bits
        super().__init__(
            {
                "start": In(1),
                "k": In(16),
                "count": In(16),
                "src": In(16),
                "bias": In(1),
                "streamed": Out(1),
                "done": Out(1),
                "weights_next": In(1),
                "weights_failed": In(1),
                "weights_ready": Out(1),
                "weights_end": Out(1),
                "x_enable": Out(1),
                "x_address": Out(range(config.scratch_words)),
                "x_word": In(8 * config.bus_bytes).array(config.cols),
                "array_valid": Out(1),
                "array_last": Out(1),
                "array_busy": In(1),
                "array_stays": In(1),
                "array_hold": In(1),
                "array_next_hold": In(1),
                "x": Out(signed(act)).array(config.cols),
                "header": Out(1),
                "plane": Out(range(BIAS_PLANES)),
                "bare": Out(1),
                "take": Out(1),
                "exponent": Out(signed(8)).array(config.cols),
                "results_idle": In(1),
                "failed": Out(1),
                "stall_weights": Out(1),
                "stall_drain": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        per_word = self.config.acts_per_word
        cols = range(self.config.cols)

        # Operands and how far the instruction is.
        k_last = Signal(16)
        before_last = Signal(16)
        tiles = Signal(16)
        bias = Signal()
        one_slice = Signal()
        first_word = Signal.like(self.x_address)
        k = Signal(16)
        in_header = Signal()
        final_tile = Signal()
        running = Signal()
        words = [Signal(8 * self.config.bus_bytes, name=f"word{c}", reset_less=True) for c in cols]
        position = Signal(range(per_word))

        with m.If(self.start):
            m.d.sync += [
                k_last.eq(self.k - 1),
                before_last.eq(self.k - 2),
                tiles.eq(self.count),
                final_tile.eq(self.count == 1),
                bias.eq(self.bias),
                first_word.eq(self.src + 1),
            ]

        last = Signal()
        turn = Signal()
        taken = Signal()
        m.d.comb += [
            self.array_last.eq(last),
            self.weights_end.eq(last & final_tile & ~in_header),
            self.array_valid.eq(taken & ~in_header),
            self.header.eq(taken & in_header),
            self.bare.eq(~bias),
            self.take.eq(self.array_valid & last),
        ]
        # Activations, `delay` cycles after the slice, and their words.
        turned = Signal()
        place = position
        load = turned
        for _ in range(delay(self.config)):
            load = Signal()
            place = Signal.like(position)
            m.d.sync += [load.eq(turned), place.eq(position)]
        with m.If(load):
            m.d.sync += [words[c].eq(self.x_word[c]) for c in cols]
        m.d.comb += [self.x[c].eq(words[c].word_select(place, self.config.act_bits)) for c in cols]
        m.d.sync += self.failed.eq(taken & self.weights_failed)
        # Known a cycle ahead, as everything waits for them.
        next_last = Signal()
        ends = Signal()
        m.d.comb += [next_last.eq(k == before_last), ends.eq(position == per_word - 2)]
        m.d.sync += one_slice.eq(k_last == 0)
        with m.If(in_header):
            m.d.sync += [last.eq(one_slice), turn.eq(one_slice)]
        with m.Elif(taken):
            m.d.sync += [last.eq(next_last), turn.eq(next_last | ends)]

        # The word after the current one comes to the read port a cycle later; `port` is its index.
        port = Signal(16)
        before_end = Signal(16)
        single = Signal()
        ends_words = Signal()
        last_word = k_last >> exact_log2(per_word)
        m.d.sync += [before_end.eq(last_word - 1), single.eq(last_word == 0)]

        def advance():
            """The word on the read port becomes current; read the next, or the first again."""
            m.d.comb += turned.eq(1)
            with m.If(ends_words):
                m.d.sync += [port.eq(0), ends_words.eq(single), self.x_address.eq(first_word)]
            with m.Else():
                m.d.sync += [port.eq(port + 1), ends_words.eq(port == before_end)]
                m.d.sync += self.x_address.eq(self.x_address + 1)

        def begin():
            m.d.sync += [self.x_address.eq(self.src), k.eq(0), position.eq(0)]
            m.d.sync += [in_header.eq(1), self.plane.eq(0), self.x_enable.eq(1)]
            m.next = "READ"

        # Whether the next slice may be taken goes far, so it is found a cycle ahead, both for the
        # case that this one is taken and that it is not. It may not while the array is full, or
        # when the word that it needs is only being read. `weights_ready` and `blocked` are one bit
        # in two registers, for the weight fetch and for here, and `valid` is a copy of the weight
        # fetch's: inverted and without reset, as synthesis joins registers that are the same.
        valid = Signal(reset_less=True)
        blocked = Signal(init=1)
        ready = Signal()
        waits = Signal()
        waits_after = Signal()
        header_ends = Signal()

        def full(ends_tile):
            """Whether the array takes no slice in the next cycle, one that ends its tile or not."""
            return (ends_tile & self.array_stays) | self.array_next_hold

        m.d.comb += [
            waits.eq(~in_header & full(last)),
            header_ends.eq(~bias | (self.plane == BIAS_PLANES - 1)),
        ]
        with m.If(in_header):
            m.d.comb += waits_after.eq(header_ends & full(one_slice))
        with m.Elif(last):
            m.d.comb += waits_after.eq(final_tile)
        with m.Else():
            m.d.comb += waits_after.eq(full(next_last) | (turn & (next_last | ends)))
        m.d.sync += [
            valid.eq(self.weights_next),
            blocked.eq(~ready),
            self.weights_ready.eq(ready),
        ]
        m.d.comb += [
            taken.eq(valid & ~blocked),
            self.stall_weights.eq(~valid & ~blocked),
            self.stall_drain.eq(
                running & ~in_header & ((last & self.array_busy) | self.array_hold)
            ),
        ]

        # What is not needed at once follows a cycle later: that a slice is taken comes late.
        since = Signal(range(ERROR_LATENCY + 1))
        ended = Signal()
        m.d.sync += [self.done.eq(0), self.streamed.eq(0), ended.eq(0)]
        with m.FSM():
            with m.State("IDLE"), m.If(self.start):
                begin()
            with m.State("READ"):
                m.d.sync += self.x_address.eq(first_word)
                m.next = "EXPONENT"
            with m.State("EXPONENT"):
                m.d.sync += [self.exponent[c].eq(self.x_word[c][:8]) for c in cols]
                m.d.sync += [port.eq(0), ends_words.eq(single)]
                m.next = "FIRST"
            with m.State("FIRST"):
                advance()
                m.d.comb += ready.eq(1)
                m.d.sync += running.eq(1)
                m.next = "RUN"
            with m.State("RUN"):  # and `running`
                m.d.comb += ready.eq(running & ~Mux(taken, waits_after, waits))
                with m.If(taken & in_header):
                    m.d.sync += self.plane.eq(self.plane + 1)
                    with m.If(header_ends):
                        m.d.sync += [in_header.eq(0), self.plane.eq(0)]
                with m.If(taken & ~in_header):
                    m.d.sync += [k.eq(k + 1), position.eq(position + 1)]
                    with m.If(turn):
                        advance()
                        m.d.sync += position.eq(0)
                    with m.If(last):
                        m.d.sync += [k.eq(0), in_header.eq(1), ended.eq(1)]
                        with m.If(final_tile):
                            m.d.sync += running.eq(0)
                with m.If(ended):
                    m.d.sync += [tiles.eq(tiles - 1), final_tile.eq(tiles == 2)]
                with m.If(~running):
                    m.d.sync += since.eq(1)
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                m.d.sync += self.streamed.eq((since >= ERROR_LATENCY - 1) & ~self.start)
                with m.If(since != ERROR_LATENCY):
                    m.d.sync += since.eq(since + 1)
                with m.If(self.start):
                    begin()
                with m.Elif(self.results_idle):
                    m.d.sync += [self.done.eq(1), self.x_enable.eq(0)]
                    m.next = "IDLE"
        return m
