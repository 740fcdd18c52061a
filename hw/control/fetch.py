"""Instruction fetch: reads, checks and dispatches the program ahead of its execution."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from golden.config import INSTRUCTION_BYTES, AccelConfig
from golden.isa import Opcode

from ..lib.instruction import POSITION_BITS, JobSignature
from ..memory.axi import read_port
from ..memory.weight_fetch import Descriptor
from .check import Checker
from .entry import Entry
from .prefetch import Prefetch, part_bits


class InstructionFetch(wiring.Component):
    """Walks a program from ``program`` on until HALT, an instruction that cannot run, or ``stop``.

    A MATMUL's weight stream is handed to the weight fetch as soon as it is seen, so that reading
    runs ahead of execution. A FENCE waits until all instructions before it are done, and STOREs
    answered; it alone keeps later streams from reading what earlier instructions store.

    An instruction takes a cycle for each beat of its slot and one for its dispatch, beside what
    `Checker` takes.

    Ports
    -----
    job (in, `JobSignature`): ``start`` begins the program; no read may be on its way then.
    position (in, 24): Position of the token in column 0; constant while a program runs.
    tokens (in, 24, for each column): The tokens; constant while a program runs.
    memory (out, `read_port`): To the bus.
    entries (out, stream of `Entry`): Instructions in order, for the sequencer.
    weights (out, stream of `Descriptor`): Weight streams in order, for the weight fetch.
    quiet (in, 1): High when all entries are done and STOREs answered, but for entries given less
        than `StreamQueue.latency` cycles ago.
    stop (in, 1): High: dispatch nothing more.
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "job": In(JobSignature),
                "position": In(POSITION_BITS),
                "tokens": In(POSITION_BITS).array(config.cols),
                "memory": Out(read_port(config)),
                "entries": Out(stream.Signature(Entry)),
                "weights": Out(stream.Signature(Descriptor)),
                "quiet": In(1),
                "stop": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, start = self.config, self.job.start
        m.submodules.prefetch = prefetch = Prefetch(config)
        m.submodules.checker = checker = Checker(config)
        connect(m, prefetch.memory, flipped(self.memory))
        m.d.comb += [
            prefetch.start.eq(start),
            prefetch.program.eq(self.job.program),
            checker.position.eq(self.position),
            *(checker.tokens[c].eq(self.tokens[c]) for c in range(config.cols)),
        ]

        beats = 8 * INSTRUCTION_BYTES // part_bits(config)
        raw = Signal(8 * INSTRUCTION_BYTES, reset_less=True)
        left = Signal(range(beats + 1))
        failed = Signal()
        entry = self.entries.payload
        opcode = checker.operands.opcode
        m.d.comb += [
            checker.operands.as_value().eq(raw),
            entry.failed.eq(failed),
            entry.illegal.eq(~checker.legal),
            entry.far.eq(checker.far),
            entry.lane.eq(checker.lane),
            entry.chained.eq(checker.chained),
            checker.first.eq(start),
            entry.operands.eq(checker.resolved),
            self.weights.payload.address.eq(checker.operands.address),
            self.weights.payload.beats.eq(checker.beats),
        ]

        m.d.sync += checker.taken.eq(self.entries.valid & self.entries.ready)
        with m.FSM() as fsm:
            with m.State("IDLE"), m.If(start):
                m.d.sync += [left.eq(beats), failed.eq(0)]
                m.next = "READ"
            with m.State("READ"):
                m.d.comb += prefetch.o.ready.eq(1)
                with m.If(prefetch.o.valid):
                    m.d.sync += [
                        raw.eq(Cat(raw, prefetch.o.payload.data)[-len(raw) :]),
                        failed.eq(failed | prefetch.o.payload.error),
                        left.eq(left - 1),
                    ]
                    with m.If(left == 1):
                        m.d.comb += checker.start.eq(1)
                        m.next = "CHECK"
            with m.State("CHECK"), m.If(checker.done):
                m.next = "DISPATCH"
            with m.State("DISPATCH"):
                m.d.comb += self.entries.valid.eq(~self.stop)
                with m.If(self.entries.valid & self.entries.ready):
                    m.d.sync += [left.eq(beats), failed.eq(0)]
                    with m.If(entry.failed | entry.illegal | entry.far | (opcode == Opcode.HALT)):
                        m.next = "IDLE"
                    with m.Elif(opcode == Opcode.MATMUL):
                        m.next = "STREAM"
                    with m.Elif(opcode == Opcode.FENCE):
                        m.next = "FENCE"
                    with m.Else():
                        m.next = "READ"
            with m.State("STREAM"):
                m.d.comb += self.weights.valid.eq(1)
                with m.If(self.weights.ready):
                    m.next = "READ"
            with m.State("FENCE"), m.If(self.quiet):
                m.next = "READ"
        m.d.comb += prefetch.enable.eq(~fsm.ongoing("IDLE"))
        return m
