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


class Progress:
    """How far a MATMUL is: signals that the parts of `Matmul` share.

    Attributes
    ----------
    k_last, before_last: index of a tile's last slice, and of that before it
    tiles, final_tile: tiles that are left, and whether there is but one
    bias: whether tiles have a layer bias
    first_word: address of the first word of activations
    k, position: index of the slice in its tile, and place of its activation in a word
    in_header: whether the slice that comes is a header slice; header_ends: the last one
    running: whether slices are still to be taken; taken: in this cycle one is
    last, turn: whether it is the tile's last, and whether the next word of activations follows it
    next_last, next_turn: whether the slice after it is the tile's last, and is the last of a word
    one_slice: whether tiles have one slice only
    turned: pulses when the word at the read port becomes the current one
    """

    def __init__(self, config, operands, address):
        self.k_last = Signal.like(operands.k)
        self.before_last = Signal.like(operands.k)
        self.tiles = Signal(COUNT)
        self.bias = Signal()
        self.final_tile = Signal()
        self.first_word = Signal.like(address)
        self.k = Signal.like(operands.k)
        self.position = Signal(range(config.acts_per_word))
        self.in_header = Signal()
        self.header_ends = Signal()
        self.running = Signal()
        self.taken = Signal()
        self.last = Signal()
        self.turn = Signal()
        self.next_last = Signal()
        self.next_turn = Signal()
        self.one_slice = Signal()
        self.turned = Signal()


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
        s = Progress(self.config, o, self.read.address)
        with m.If(self.run.start):
            m.d.sync += [
                s.k_last.eq(o.k - 1),
                s.before_last.eq(o.k - 2),
                s.tiles.eq(o.count),
                s.final_tile.eq(o.count == 1),
                s.bias.eq(o.flags & Flag.BIAS),
                s.first_word.eq(o.src + 1),
            ]
        m.d.comb += [
            feed.last.eq(s.last),
            feed.valid.eq(s.taken & ~s.in_header),
            self.slices.end.eq(s.last & s.final_tile & ~s.in_header),
            headers.valid.eq(s.taken & s.in_header),
            headers.bare.eq(~s.bias),
            headers.take.eq(feed.valid & s.last),
            s.header_ends.eq(~s.bias | (headers.plane == BIAS_PLANES - 1)),
        ]
        m.d.sync += self.failed.eq(s.taken & self.slices.failed)
        self._known_ahead(m, s)
        self._activations(m, s)
        ready = self._take(m, s)
        self._control(m, s, ready, *self._waits(m, s), *self._words(m, s))
        return m

    def _known_ahead(self, m, s) -> None:
        """What everything waits for is known a cycle ahead."""
        per_word = self.config.acts_per_word
        m.d.comb += [
            s.next_last.eq(s.k == s.before_last),
            s.next_turn.eq(s.position == per_word - 2),
        ]
        m.d.sync += s.one_slice.eq(s.k_last == 0)
        with m.If(s.in_header):
            m.d.sync += [s.last.eq(s.one_slice), s.turn.eq(s.one_slice)]
        with m.Elif(s.taken):
            m.d.sync += [s.last.eq(s.next_last), s.turn.eq(s.next_last | s.next_turn)]

    def _activations(self, m, s) -> None:
        """Activations for the array, `delay` cycles after the slice, out of the current words."""
        place, load = s.position, s.turned
        for _ in range(delay(self.config)):
            load = Signal()
            place = Signal.like(s.position)
            m.d.sync += [load.eq(s.turned), place.eq(s.position)]
        for column, (x, word) in enumerate(zip(self.feed.x, self.read.data, strict=True)):
            current = Signal.like(word, name=f"word{column}", reset_less=True)
            with m.If(load):
                m.d.sync += current.eq(word)
            m.d.comb += x.eq(current.word_select(place, self.config.act_bits))

    def _words(self, m, s):
        """The word after the current one comes to the read port a cycle later. Gives two functions
        for the state machine: to the next word, and back to the first."""
        port = Signal.like(s.k_last)  # index of the word on the read port
        before_end = Signal.like(s.k_last)
        single = Signal()
        ends_words = Signal()
        last_word = s.k_last >> exact_log2(self.config.acts_per_word)
        m.d.sync += [before_end.eq(last_word - 1), single.eq(last_word == 0)]

        def advance():
            """The word on the read port becomes current; read the next, or the first again."""
            m.d.comb += s.turned.eq(1)
            with m.If(ends_words):
                m.d.sync += [port.eq(0), ends_words.eq(single), self.read.address.eq(s.first_word)]
            with m.Else():
                m.d.sync += [port.eq(port + 1), ends_words.eq(port == before_end)]
                m.d.sync += self.read.address.eq(self.read.address + 1)

        def restart():
            m.d.sync += [port.eq(0), ends_words.eq(single)]

        return advance, restart

    def _waits(self, m, s):
        """Whether the next slice must wait, if this one is not taken, and if it is.

        It may not be taken while the array is full, or when the word that it needs is only being
        read.
        """
        waits = Signal()
        waits_after = Signal()

        def full(ends_tile):
            """Whether the array takes no slice in the next cycle, one that ends its tile or not."""
            return (ends_tile & self.feed.stays) | self.feed.next_hold

        m.d.comb += waits.eq(~s.in_header & full(s.last))
        with m.If(s.in_header):
            m.d.comb += waits_after.eq(s.header_ends & full(s.one_slice))
        with m.Elif(s.last):
            m.d.comb += waits_after.eq(s.final_tile)
        with m.Else():
            ends_word = s.turn & (s.next_last | s.next_turn)
            m.d.comb += waits_after.eq(full(s.next_last) | ends_word)
        return waits, waits_after

    def _take(self, m, s):
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
            s.taken.eq(valid & ~blocked),
            self.stall_weights.eq(~valid & ~blocked),
            self.stall_drain.eq(
                s.running & ~s.in_header & ((s.last & self.feed.busy) | self.feed.hold)
            ),
        ]
        return ready

    def _control(self, m, s, ready, waits, waits_after, advance, restart) -> None:
        """The state machine: exponents, first word, slices, drain."""
        headers, start = self.headers, self.run.start

        def begin():
            m.d.sync += [self.read.address.eq(self.run.operands.src), s.k.eq(0), s.position.eq(0)]
            m.d.sync += [s.in_header.eq(1), headers.plane.eq(0), self.read.enable.eq(1)]
            m.next = "READ"

        # `taken` comes late in its cycle, so what is not needed at once follows a cycle later.
        since = Signal(range(ERROR_LATENCY + 1))
        ended = Signal()
        m.d.sync += [self.run.done.eq(0), self.streamed.eq(0), ended.eq(0)]
        with m.FSM():
            with m.State("IDLE"), m.If(start):
                begin()
            with m.State("READ"):
                m.d.sync += self.read.address.eq(s.first_word)
                m.next = "EXPONENT"
            with m.State("EXPONENT"):
                for exponent, word in zip(headers.exponent, self.read.data, strict=True):
                    m.d.sync += exponent.eq(word[:8])
                restart()
                m.next = "FIRST"
            with m.State("FIRST"):
                advance()
                m.d.comb += ready.eq(1)
                m.d.sync += s.running.eq(1)
                m.next = "RUN"
            with m.State("RUN"):  # ends when `running` is low
                m.d.comb += ready.eq(s.running & ~Mux(s.taken, waits_after, waits))
                self._move_on(m, s, advance, ended)
                with m.If(~s.running):
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

    def _move_on(self, m, s, advance, ended) -> None:
        """To the next slice and, with the last one of a tile, to the next tile."""
        headers = self.headers
        with m.If(s.taken & s.in_header):
            m.d.sync += headers.plane.eq(headers.plane + 1)
            with m.If(s.header_ends):
                m.d.sync += [s.in_header.eq(0), headers.plane.eq(0)]
        with m.If(s.taken & ~s.in_header):
            m.d.sync += [s.k.eq(s.k + 1), s.position.eq(s.position + 1)]
            with m.If(s.turn):
                advance()
                m.d.sync += s.position.eq(0)
            with m.If(s.last):
                m.d.sync += [s.k.eq(0), s.in_header.eq(1), ended.eq(1)]
                with m.If(s.final_tile):
                    m.d.sync += s.running.eq(0)
        with m.If(ended):
            m.d.sync += [s.tiles.eq(s.tiles - 1), s.final_tile.eq(s.tiles == 2)]
