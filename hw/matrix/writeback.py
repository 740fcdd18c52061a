"""Writeback: dot products leave the array, are scaled, packed and written to the scratchpad."""

from itertools import pairwise

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from golden.config import BIAS_PLANES, RESULT_BITS, AccelConfig

from .requantize import Requantizer


class Writeback(wiring.Component):
    """Requantises the results of one row for all columns, each cycle at most.

    Ports
    -----
    header, plane, slice: a header slice of the coming tile: row exponents (plane 0), bias bytes
    bare: tiles have no bias planes; constant while an instruction is under way
    take: the tile whose header came last is complete; its header is needed from now on
    exponent: shared exponent of each column's activations; until ``take`` of the last tile
    shift: the instruction's, until then
    valid, dot: from the array; next_row: of the next cycle's dot
    start, dst, count: first word of the results, and tiles. Results of the instruction before may
        be still to come, unless it is ``full``.
    enable, address, data: to the scratchpad, a word for each column
    active: columns that take part; constant while results are to come
    idle: nothing is under way

    Latency: `latency` cycles from the last dot product of a word to its write.
    """

    latency = Requantizer.latency + 2

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "header": In(1),
                "plane": In(range(BIAS_PLANES)),
                "bare": In(1),
                "slice": In(8).array(config.rows),
                "take": In(1),
                "exponent": In(signed(8)).array(config.cols),
                "shift": In(signed(8)),
                "valid": In(1),
                "next_row": In(range(config.rows)),
                "dot": In(signed(config.acc_bits)).array(config.cols),
                "start": In(1),
                "dst": In(range(config.scratch_words)),
                "count": In(16),
                "full": Out(1),
                "active": In(config.cols),
                "enable": Out(config.cols),
                "address": Out(range(config.scratch_words)),
                "data": Out(8 * config.bus_bytes).array(config.cols),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        rows = self.config.rows

        # Headers, one wide register for each plane, row r in byte r. `coming` is filled while the
        # tile before is still leaving the array; the next tile's last slice may come while the
        # last row of the tile before is still in the combiner, hence a cycle of delay.
        taken = Signal()
        m.d.sync += taken.eq(self.take)
        # Registers, as the headers' are many and far.
        header = Signal()
        plane_in = Signal.like(self.plane)
        slice_in = Signal(8 * rows, reset_less=True)
        m.d.sync += [header.eq(self.header), plane_in.eq(self.plane), slice_in.eq(Cat(self.slice))]
        picked = []
        for plane in range(BIAS_PLANES):
            coming = Signal(8 * rows, name=f"coming{plane}", reset_less=True)
            current = Signal(8 * rows, name=f"current{plane}", reset_less=True)
            with m.If(header & (plane_in == plane)):
                m.d.sync += coming.eq(slice_in)
            with m.If(taken):
                m.d.sync += current.eq(Mux(self.bare, 0, coming) if plane else coming)
            pick = Signal(8, name=f"picked{plane}", reset_less=True)
            m.d.sync += pick.eq(current.word_select(self.next_row, 8))
            picked.append(pick)

        per_word = self.config.results_per_word
        delayed = [self.valid] + [Signal(name=f"valid{n}") for n in range(self.latency - 1)]
        for before, after in pairwise(delayed):
            m.d.sync += after.eq(before)
        place = Signal(range(max(2, per_word)))
        full = Signal()
        write = Signal()
        m.d.comb += full.eq(delayed[-1] & (place == per_word - 1))
        with m.If(delayed[-1]):
            m.d.sync += place.eq(place + 1)
            with m.If(full):
                m.d.sync += place.eq(0)
        m.d.sync += write.eq(full)
        self._places(m, write)
        m.d.comb += [
            self.idle.eq(~(Cat(delayed).any() | write)),
            self.enable.eq(write.replicate(self.config.cols) & self.active),
        ]

        row_exponent = picked[0].as_signed()
        for column in range(self.config.cols):
            m.submodules[f"requant{column}"] = requant = Requantizer(self.config)
            scale = Signal(signed(9), name=f"scale{column}")
            with m.If(taken):
                m.d.sync += scale.eq(self.exponent[column] + self.shift)
            m.d.sync += [
                requant.valid.eq(self.valid & self.active[column]),
                requant.dot.eq(self.dot[column]),
                requant.scale.eq(row_exponent + scale),
                requant.bias.eq(Cat(picked[1:]).as_signed()),
            ]
            word = Signal(8 * self.config.bus_bytes, name=f"word{column}", reset_less=True)
            with m.If(requant.result_valid):
                m.d.sync += word.eq(Cat(word[RESULT_BITS:], requant.result))
            m.d.comb += self.data[column].eq(word)
        return m

    def _places(self, m, write) -> None:
        """Where the next word goes: one place on, or where the next instruction's begin."""
        config = self.config
        words = self.count << exact_log2(config.rows // config.results_per_word)
        left = Signal(len(words))
        next_left = Signal(len(words))
        next_address = Signal.like(self.address)
        ends = Signal()
        m.d.comb += ends.eq(write & (left == 1))
        with m.If(write):
            m.d.sync += [left.eq(left - 1), self.address.eq(self.address + 1)]
        with m.If(self.start):
            m.d.sync += [next_address.eq(self.dst), next_left.eq(words)]
        with m.If(ends | (left == 0)):
            m.d.sync += [
                self.address.eq(Mux(self.full, next_address, self.dst)),
                left.eq(Mux(self.full, next_left, Mux(self.start, words, 0))),
                self.full.eq(0),
            ]
        with m.Elif(self.start):
            m.d.sync += self.full.eq(1)
