"""Instruction fetch: reads, checks and dispatches the program ahead of its execution."""

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from golden.config import BIAS_PLANES, INSTRUCTION_BYTES, AccelConfig
from golden.isa import FIELDS, Flag, Opcode

from .axi import Burst
from .weight_fetch import Descriptor

OPERANDS = data.StructLayout(
    {name: signed(width) if negative else width for name, (_, width, negative) in FIELDS.items()}
)
"""The fields of an instruction, as in `golden.isa.FIELDS`."""


class Entry(data.Struct):
    """An instruction that waits for execution: whether it may run, and its operands."""

    illegal: 1
    failed: 1
    operands: OPERANDS


def legal(operands, config: AccelConfig):
    """Whether the instruction may run: the rules of `golden.isa.check`, as one signal."""
    o = operands
    depth = config.scratch_words
    aligned = (o.address & (config.bus_bytes - 1)) == 0
    reachable = (o.address >> config.addr_bits) == 0
    placed = aligned & reachable & (o.count != 0)
    step = exact_log2(config.acts_per_word)
    x_words = ((o.k - 1)[:16] >> step) + 2
    per_tile = exact_log2(config.rows // config.results_per_word)
    y_words = o.count << per_tile
    unused = {
        Opcode.LOAD: Cat(o.flags, o.shift, o.k, o.src),
        Opcode.STORE: Cat(o.flags, o.shift, o.k, o.dst),
        Opcode.FENCE: o.as_value()[8:],
        Opcode.HALT: o.as_value()[8:],
    }
    rules = {
        Opcode.MATMUL: placed
        & (o.flags[1:] == 0)
        & (o.column != 0)
        & (o.column <= config.cols)
        & (o.k != 0)
        & (o.k <= config.max_k)
        & (o.src + x_words <= depth)
        & (o.dst + y_words <= depth)
        & ((o.src + x_words <= o.dst) | (o.dst + y_words <= o.src)),
        Opcode.LOAD: placed & (o.column < config.cols) & (o.dst + o.count <= depth),
        Opcode.STORE: placed & (o.column < config.cols) & (o.src + o.count <= depth),
        Opcode.FENCE: True,
        Opcode.HALT: True,
    }
    result = 0
    for opcode, rule in rules.items():
        clean = (unused[opcode] == 0) if opcode in unused else True
        result = result | ((o.opcode == opcode) & rule & clean)
    return result


class InstructionFetch(wiring.Component):
    """Walks a program from ``program`` on until HALT, an illegal instruction or ``stop``.

    A MATMUL's weight stream is handed to the weight fetch as soon as it is seen, so that reading
    runs ahead of execution. A FENCE waits until all instructions before it are done; it alone keeps
    later streams from reading what earlier instructions store.

    Ports
    -----
    start, program: begin here
    request, beat, data, error: to `ReadMaster`
    entries: instructions in order, for the sequencer
    weights: streams in order, for the weight fetch
    quiet: all entries taken are done
    stop: dispatch nothing more
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "program": In(32),
                "request": Out(stream.Signature(Burst)),
                "beat": In(1),
                "data": In(8 * config.bus_bytes),
                "error": In(1),
                "entries": Out(stream.Signature(Entry)),
                "weights": Out(stream.Signature(Descriptor)),
                "quiet": In(1),
                "stop": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        bits = 8 * config.bus_bytes
        beats = config.slot_bytes // config.bus_bytes

        pc, left, failed = Signal(32), Signal(range(beats + 1)), Signal()
        raw = Signal(8 * config.slot_bytes, reset_less=True)
        operands = Signal(OPERANDS)
        entry = Signal(Entry)
        is_legal = Signal()
        stream_beats = Signal(32)
        for name, (first, width, _) in FIELDS.items():
            m.d.comb += operands[name].eq(raw[first : first + width])
        reserved = raw[max(f + w for f, w, _ in FIELDS.values()) : 8 * INSTRUCTION_BYTES]

        m.d.comb += [
            self.request.payload.address.eq(pc),
            self.request.payload.beats.eq(beats),
            self.entries.payload.eq(entry),
            self.weights.payload.address.eq(entry.operands.address),
            self.weights.payload.beats.eq(stream_beats),
        ]
        is_matmul = entry.operands.opcode == Opcode.MATMUL
        runs = ~(entry.illegal | entry.failed)
        tile = Signal(17)

        with m.FSM():
            with m.State("IDLE"), m.If(self.start):
                m.d.sync += pc.eq(self.program)
                m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += self.request.valid.eq(~self.stop)
                m.d.sync += [left.eq(beats), failed.eq(0)]
                with m.If(self.request.valid & self.request.ready):
                    m.next = "READ"
            with m.State("READ"), m.If(self.beat):
                m.d.sync += [
                    raw.eq(Cat(raw[bits:], self.data)),
                    failed.eq(failed | self.error),
                    left.eq(left - 1),
                ]
                with m.If(left == 1):
                    m.next = "CHECK"
            with m.State("CHECK"):
                has_bias = operands.flags[0]
                m.d.sync += [
                    entry.failed.eq(failed),
                    entry.operands.eq(operands),
                    is_legal.eq(legal(operands, config) & (reserved == 0)),
                    tile.eq(operands.k + 1 + Cat(0, 0, has_bias)),
                ]
                m.next = "MULTIPLY"
            with m.State("MULTIPLY"):
                slices = tile * entry.operands.count
                per_beat = config.slices_per_beat
                m.d.sync += [
                    entry.illegal.eq(~is_legal),
                    stream_beats.eq((slices + (per_beat - 1)) >> exact_log2(per_beat)),
                ]
                m.next = "DISPATCH"
            with m.State("DISPATCH"):
                m.d.comb += self.entries.valid.eq(~self.stop)
                with m.If(self.entries.valid & self.entries.ready):
                    m.d.sync += pc.eq(pc + config.slot_bytes)
                    with m.If(~runs | (entry.operands.opcode == Opcode.HALT)):
                        m.next = "IDLE"
                    with m.Elif(is_matmul):
                        m.next = "STREAM"
                    with m.Elif(entry.operands.opcode == Opcode.FENCE):
                        m.next = "FENCE"
                    with m.Else():
                        m.next = "ASK"
            with m.State("STREAM"):
                m.d.comb += self.weights.valid.eq(1)
                with m.If(self.weights.ready):
                    m.next = "ASK"
            with m.State("FENCE"), m.If(self.quiet):
                m.next = "ASK"
        return m


assert Flag.BIAS == 1 and BIAS_PLANES == 5, "the slice count in CHECK is written for these"
