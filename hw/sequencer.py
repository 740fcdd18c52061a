"""The sequencer: runs instructions one after the other and stops the machine on errors."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from golden.config import AccelConfig
from golden.isa import ErrorCode, Opcode

from .operands import OPERANDS, Entry

UNITS = {
    Opcode.MATMUL: "matmul",
    Opcode.LOAD: "load",
    Opcode.STORE: "store",
    Opcode.VECTOR: "vector",
}
"""Opcodes that a unit executes, and its name in ports."""


class Sequencer(wiring.Component):
    """Takes entries in order, starts their unit and waits until it is done.

    On an error it stops: no more requests, everything that is on the bus is let finish, then all
    units are cleared, and the machine can be started again. The error's code and the instruction's
    address stay until the next start. Between instructions, that is the one that was to come next.
    After HALT, too, the bus has to fall silent: the program may have been read beyond its end.

    Ports
    -----
    start, abort, program: from the host
    entries: from the instruction fetch
    operands, lane: of the instruction under way
    start_<unit>, done_<unit>: the units
    invalid_weight, failed_read, failed_write: one-cycle error pulses
    progress: something moved in this cycle
    watchdog: cycles without progress that are too many; 0: never
    bus_idle: nothing is on its way on the bus
    stop: begin nothing new; clear: reset the units
    running_<unit>: for the counters
    quiet: no entry is waiting or under way
    busy, finished, error, error_address: for the host
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "abort": In(1),
                "program": In(32),
                "entries": In(stream.Signature(Entry)),
                "operands": Out(OPERANDS),
                "lane": Out(7),
                **{f"start_{unit}": Out(1) for unit in UNITS.values()},
                **{f"done_{unit}": In(1) for unit in UNITS.values()},
                **{f"running_{unit}": Out(1) for unit in UNITS.values()},
                "invalid_weight": In(1),
                "failed_read": In(1),
                "failed_write": In(1),
                "progress": In(1),
                "watchdog": In(32),
                "bus_idle": In(1),
                "stop": Out(1),
                "clear": Out(1),
                "quiet": Out(1),
                "busy": Out(1),
                "finished": Out(1),
                "error": Out(ErrorCode),
                "error_address": Out(32),
            }
        )

    def elaborate(self, platform):
        m = Module()
        entry = self.entries.payload
        pc = Signal(32)
        next_pc = pc + self.config.slot_bytes
        waited = Signal(32)
        expired = Signal()
        m.d.comb += expired.eq((self.watchdog != 0) & (waited >= self.watchdog))
        with m.If(self.progress | ~self.busy):
            m.d.sync += waited.eq(0)
        with m.Else():
            m.d.sync += waited.eq(waited + 1)

        # What went wrong in this cycle; the first line that applies wins.
        wrong = Signal(ErrorCode)
        causes = [
            (self.abort, ErrorCode.ABORTED),
            (self.failed_read, ErrorCode.BUS_READ),
            (self.failed_write, ErrorCode.BUS_WRITE),
            (self.invalid_weight, ErrorCode.INVALID_WEIGHT),
            (expired, ErrorCode.WATCHDOG),
        ]
        for condition, code in reversed(causes):
            with m.If(condition):
                m.d.comb += wrong.eq(code)

        def fail(code):
            m.d.sync += [self.error.eq(code), self.error_address.eq(pc)]
            m.next = "STOPPING"

        with m.FSM() as fsm:
            with m.State("IDLE"), m.If(self.start):
                m.d.sync += [self.finished.eq(0), self.error.eq(ErrorCode.NONE)]
                m.d.sync += [self.error_address.eq(0), pc.eq(self.program)]
                m.next = "NEXT"
            with m.State("NEXT"):
                m.d.comb += self.quiet.eq(~self.entries.valid)
                m.d.comb += self.entries.ready.eq(1)
                with m.If(self.entries.valid):
                    m.d.sync += [self.operands.eq(entry.operands), self.lane.eq(entry.lane)]
                    with m.If(entry.failed):
                        fail(ErrorCode.BUS_READ)
                    with m.Elif(entry.illegal):
                        fail(ErrorCode.ILLEGAL_INSTRUCTION)
                    with m.Elif(entry.far):
                        fail(ErrorCode.POSITION)
                    with m.Elif(entry.operands.opcode == Opcode.HALT):
                        m.next = "FINISH"
                    with m.Elif(entry.operands.opcode == Opcode.FENCE):
                        m.d.sync += pc.eq(next_pc)
                    with m.Else():
                        m.next = "START"
                with m.If(wrong != ErrorCode.NONE):
                    fail(wrong)
            with m.State("START"):
                for opcode, unit in UNITS.items():
                    chosen = self.operands.opcode == opcode
                    m.d.comb += getattr(self, f"start_{unit}").eq(chosen)
                m.next = "RUN"
                with m.If(wrong != ErrorCode.NONE):
                    fail(wrong)
            with m.State("RUN"):
                for opcode, unit in UNITS.items():
                    chosen = self.operands.opcode == opcode
                    m.d.comb += getattr(self, f"running_{unit}").eq(chosen)
                done = Cat(getattr(self, f"done_{unit}") for unit in UNITS.values()).any()
                with m.If(wrong != ErrorCode.NONE):
                    fail(wrong)
                with m.Elif(done):
                    m.d.sync += pc.eq(next_pc)
                    m.next = "NEXT"
            with m.State("FINISH"):
                with m.If(wrong != ErrorCode.NONE):
                    fail(wrong)
                with m.Elif(self.bus_idle):
                    m.d.sync += self.finished.eq(1)
                    m.next = "IDLE"
            with m.State("STOPPING"):
                m.d.comb += self.stop.eq(1)
                with m.If(self.bus_idle):
                    m.next = "CLEAR"
            with m.State("CLEAR"):  # a cycle of its own: it goes everywhere
                m.d.comb += [self.stop.eq(1), self.clear.eq(1)]
                m.next = "IDLE"
        m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
        return m
