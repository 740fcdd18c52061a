"""Matrix product control: pairs weight slices with activations, tile after tile."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from golden.config import BIAS_PLANES, AccelConfig
from golden.isa import Flag

from ..lib.instruction import COUNT, UnitSignature
from ..memory.scratchpad import bank_read
from ..memory.weight_fetch import SliceControl
from .array import array_feed
from .lane import delay
from .writeback import headers

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
    run (in, `UnitSignature`): Pulses ``done`` when all results are written.
    streamed (out, 1): High when all slices have been taken, and their errors shown: the next MATMUL
        may start, if it needs none of the results.
    slices (in, `SliceControl`): Handshake of the weight stream.
    read (out, `bank_read`): Activations, a cycle after they are asked for. ``enable`` is high from
        the start until ``done``, as the banks are far away.
    feed (out, `array_feed`): Slices and activations for the array.
    headers (out, `headers`): Header slices for the writeback.
    results_idle (in, 1): High when array and writeback hold no results.
    failed (out, 1): Pulses when a slice was taken whose beat the memory had flagged as an error.
    stall_weights (out, 1): High when no slice was taken because the weight stream had none.
    stall_drain (out, 1): High when none was taken because the array is full.
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "run": In(UnitSignature),
                "streamed": Out(1),
                "slices": In(SliceControl),
                "read": Out(bank_read(config)),
                "feed": Out(array_feed(config)),
                "headers": Out(headers(config)),
                "results_idle": In(1),
                "failed": Out(1),
                "stall_weights": Out(1),
                "stall_drain": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        o, feed, headers = self.run.operands, self.feed, self.headers
        start = self.run.start

        # Operands, taken at the start.
        k_last = Signal.like(o.k)
        before_last = Signal.like(o.k)
        tiles = Signal(COUNT)
        bias = Signal()
        final_tile = Signal()
        first_word = Signal.like(self.read.address)
        with m.If(start):
            m.d.sync += [
                k_last.eq(o.k - 1),
                before_last.eq(o.k - 2),
                tiles.eq(o.count),
                final_tile.eq(o.count == 1),
                bias.eq(o.flags & Flag.BIAS),
                first_word.eq(o.src + 1),
            ]

        # How far the instruction is: the slice of the tile, and its activation's place in a word.
        k = Signal.like(o.k)
        position = Signal(range(self.config.acts_per_word))
        in_header = Signal()
        running = Signal()
        taken = Signal()
        self._activations(m, turned := Signal(), position)
        one_slice, last, turn, next_last, ends = self._known_ahead(
            m, k, k_last, before_last, position, in_header, taken
        )
        header_ends = Signal()
        m.d.comb += [
            feed.last.eq(last),
            feed.valid.eq(taken & ~in_header),
            self.slices.end.eq(last & final_tile & ~in_header),
            headers.valid.eq(taken & in_header),
            headers.bare.eq(~bias),
            headers.take.eq(feed.valid & last),
            header_ends.eq(~bias | (headers.plane == BIAS_PLANES - 1)),
        ]
        m.d.sync += self.failed.eq(taken & self.slices.failed)
        waits, waits_after = self._waits(
            m, in_header, header_ends, one_slice, last, final_tile, turn, next_last, ends
        )
        ready = self._take(m, taken, running, in_header, last)
        advance, restart = self._words(m, turned, k_last, first_word)

        def begin():
            m.d.sync += [self.read.address.eq(o.src), k.eq(0), position.eq(0)]
            m.d.sync += [in_header.eq(1), headers.plane.eq(0), self.read.enable.eq(1)]
            m.next = "READ"

        # What is not needed at once follows a cycle later: that a slice is taken comes late.
        since = Signal(range(ERROR_LATENCY + 1))
        ended = Signal()
        m.d.sync += [self.run.done.eq(0), self.streamed.eq(0), ended.eq(0)]
        with m.FSM():
            with m.State("IDLE"), m.If(start):
                begin()
            with m.State("READ"):
                m.d.sync += self.read.address.eq(first_word)
                m.next = "EXPONENT"
            with m.State("EXPONENT"):
                for exponent, word in zip(headers.exponent, self.read.data, strict=True):
                    m.d.sync += exponent.eq(word[:8])
                restart()
                m.next = "FIRST"
            with m.State("FIRST"):
                advance()
                m.d.comb += ready.eq(1)
                m.d.sync += running.eq(1)
                m.next = "RUN"
            with m.State("RUN"):  # and `running`
                m.d.comb += ready.eq(running & ~Mux(taken, waits_after, waits))
                with m.If(taken & in_header):
                    m.d.sync += headers.plane.eq(headers.plane + 1)
                    with m.If(header_ends):
                        m.d.sync += [in_header.eq(0), headers.plane.eq(0)]
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
                m.d.sync += self.streamed.eq((since >= ERROR_LATENCY - 1) & ~start)
                with m.If(since != ERROR_LATENCY):
                    m.d.sync += since.eq(since + 1)
                with m.If(start):
                    begin()
                with m.Elif(self.results_idle):
                    m.d.sync += [self.run.done.eq(1), self.read.enable.eq(0)]
                    m.next = "IDLE"
        return m

    def _activations(self, m, turned, position) -> None:
        """Activations for the array: `delay` cycles after the slice, out of words that are kept
        when they are ``turned`` to."""
        place, load = position, turned
        for _ in range(delay(self.config)):
            load = Signal()
            place = Signal.like(position)
            m.d.sync += [load.eq(turned), place.eq(position)]
        for column, (x, word) in enumerate(zip(self.feed.x, self.read.data, strict=True)):
            kept = Signal.like(word, name=f"word{column}", reset_less=True)
            with m.If(load):
                m.d.sync += kept.eq(word)
            m.d.comb += x.eq(kept.word_select(place, self.config.act_bits))

    def _known_ahead(self, m, k, k_last, before_last, position, in_header, taken):
        """What everything waits for is known a cycle ahead: whether a tile has one slice, whether
        this slice is the tile's last, whether another word follows it, and the first two of these
        of the next slice."""
        one_slice = Signal()
        last = Signal()
        turn = Signal()
        next_last = Signal()
        ends = Signal()
        per_word = self.config.acts_per_word
        m.d.comb += [next_last.eq(k == before_last), ends.eq(position == per_word - 2)]
        m.d.sync += one_slice.eq(k_last == 0)
        with m.If(in_header):
            m.d.sync += [last.eq(one_slice), turn.eq(one_slice)]
        with m.Elif(taken):
            m.d.sync += [last.eq(next_last), turn.eq(next_last | ends)]
        return one_slice, last, turn, next_last, ends

    def _words(self, m, turned, k_last, first_word):
        """The word after the current one comes to the read port a cycle later. Gives two functions
        for the state machine: to the next word, and back to the first."""
        port = Signal.like(k_last)  # index of the word on the read port
        before_end = Signal.like(k_last)
        single = Signal()
        ends_words = Signal()
        last_word = k_last >> exact_log2(self.config.acts_per_word)
        m.d.sync += [before_end.eq(last_word - 1), single.eq(last_word == 0)]

        def advance():
            """The word on the read port becomes current; read the next, or the first again."""
            m.d.comb += turned.eq(1)
            with m.If(ends_words):
                m.d.sync += [port.eq(0), ends_words.eq(single), self.read.address.eq(first_word)]
            with m.Else():
                m.d.sync += [port.eq(port + 1), ends_words.eq(port == before_end)]
                m.d.sync += self.read.address.eq(self.read.address + 1)

        def restart():
            m.d.sync += [port.eq(0), ends_words.eq(single)]

        return advance, restart

    def _waits(self, m, in_header, header_ends, one_slice, last, final_tile, turn, next_last, ends):
        """Whether the next slice must wait, if this one is not taken, and if it is.

        It may not be taken while the array is full, or when the word that it needs is only being
        read.
        """
        waits = Signal()
        waits_after = Signal()

        def full(ends_tile):
            """Whether the array takes no slice in the next cycle, one that ends its tile or not."""
            return (ends_tile & self.feed.stays) | self.feed.next_hold

        m.d.comb += waits.eq(~in_header & full(last))
        with m.If(in_header):
            m.d.comb += waits_after.eq(header_ends & full(one_slice))
        with m.Elif(last):
            m.d.comb += waits_after.eq(final_tile)
        with m.Else():
            m.d.comb += waits_after.eq(full(next_last) | (turn & (next_last | ends)))
        return waits, waits_after

    def _take(self, m, taken, running, in_header, last):
        """Whether a slice is taken. Gives the signal that says so for the next cycle: it goes far,
        so it is found a cycle ahead.

        ``ready`` of the weight stream and ``blocked`` are one bit in two registers, for the weight
        fetch and for here, and ``valid`` is a copy of the weight fetch's: inverted and without
        reset, as synthesis joins registers that are the same.
        """
        valid = Signal(reset_less=True)
        blocked = Signal(init=1)
        ready = Signal()
        m.d.sync += [
            valid.eq(self.slices.next_valid),
            blocked.eq(~ready),
            self.slices.ready.eq(ready),
        ]
        m.d.comb += [
            taken.eq(valid & ~blocked),
            self.stall_weights.eq(~valid & ~blocked),
            self.stall_drain.eq(running & ~in_header & ((last & self.feed.busy) | self.feed.hold)),
        ]
        return ready
