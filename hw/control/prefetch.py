"""Prefetch: reads a program ahead of its execution, burst by burst."""

from amaranth.hdl import Cat, Module, ResetInserter, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from golden.config import INSTRUCTION_BYTES, AccelConfig

from ..lib.instruction import ADDRESS
from ..memory.axi import read_port

SLOTS = 16
"""The most instructions that one burst asks for, and the fewest that the buffer holds."""


def burst_beats(config: AccelConfig) -> int:
    """Beats of a burst."""
    return min(config.burst_beats, SLOTS * config.slot_bytes // config.bus_bytes)


def buffer_beats(config: AccelConfig) -> int:
    """Beats that the buffer holds: two bursts, or `SLOTS` where bursts are short."""
    return max(2 * burst_beats(config), SLOTS * config.slot_bytes // config.bus_bytes)


def part_bits(config: AccelConfig) -> int:
    """Bits of a beat that instructions use; the rest of a slot is of no meaning."""
    return 8 * min(config.bus_bytes, INSTRUCTION_BYTES)


class Prefetch(wiring.Component):
    """Reads a program ahead of its execution, burst by burst, as far as the buffer has room.

    What lies beyond the end of a program is read, too, and may be no memory: errors are handed on
    with their beat, and matter only to who uses it.

    Ports
    -----
    start (in, 1): Pulses to begin anew at ``program``. No beat of an earlier program may be on its
        way.
    program (in, 32): Byte address of the first instruction.
    enable (in, 1): High: ask for more.
    memory (out, `read_port`): To the bus.
    o (out, stream of {data, error}): The beats in order. ``data`` is the part of a beat that
        instructions use, `part_bits` wide; ``error`` is high when the memory flagged the beat.
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "program": In(ADDRESS),
                "enable": In(1),
                "memory": Out(read_port(config)),
                "o": Out(
                    stream.Signature(data.StructLayout({"data": part_bits(config), "error": 1}))
                ),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        size = exact_log2(config.bus_bytes)
        longest, depth = burst_beats(config), buffer_beats(config)
        fine = exact_log2(longest)
        width = part_bits(config)
        fifo = SyncFIFOBuffered(width=width + 1, depth=depth)
        m.submodules.fifo = ResetInserter(self.start)(fifo)

        # Bursts end on multiples of the longest length, so that none crosses 4 KiB. A burst is
        # asked for only with room for the longest, so that its length need not be compared.
        beat = Signal(config.addr_bits - size)
        beats = Signal(range(longest + 1))
        room = Signal(range(depth + 1), init=depth)
        asked = Signal()
        taken = Signal()
        m.d.comb += [
            self.memory.request.payload.address.eq(beat << size),
            self.memory.request.payload.beats.eq(beats),
            self.memory.request.valid.eq(self.enable & room[fine:].any()),
            asked.eq(self.memory.request.valid & self.memory.request.ready),
            taken.eq(self.o.valid & self.o.ready),
        ]
        with m.If(self.start):
            first = self.program >> size
            m.d.sync += [beat.eq(first), beats.eq(longest - first[:fine]), room.eq(depth)]
        with m.Elif(asked):
            m.d.sync += [
                beat.eq((beat[fine:] + 1) << fine),
                beats.eq(longest),
                room.eq(room - beats + taken),
            ]
        with m.Else():
            m.d.sync += room.eq(room + taken)

        m.d.comb += [
            fifo.w_data.eq(Cat(self.memory.data[:width], self.memory.error)),
            fifo.w_en.eq(self.memory.beat),
            self.o.payload.as_value().eq(fifo.r_data),
            self.o.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.o.ready),
        ]
        return m
