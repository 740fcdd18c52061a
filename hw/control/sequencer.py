"""The sequencer: runs instructions one after the other and stops the machine on errors."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from golden.config import AccelConfig
from golden.isa import ErrorCode, Opcode

from ..lib.instruction import INDEXED, OPERANDS, holds
from .entry import Entry

UNITS = {
    Opcode.MATMUL: "matmul",
    Opcode.LOAD: "load",
    Opcode.STORE: "store",
    Opcode.VECTOR: "vector",
}
"""Opcodes that a unit executes, and its name in ports."""

LATER = {*ErrorCode} - {ErrorCode.NONE, ErrorCode.BUS_WRITE, ErrorCode.ABORTED, ErrorCode.WATCHDOG}
"""Errors of an instruction that give way to that of a STORE before it."""


class Sequencer(wiring.Component):
    """Takes entries in order, starts their unit and waits until it is done.

    Three things go on meanwhile. A LOAD may be asked for while LOADs before it are to come, and a
    MATMUL that is ``chained`` begins while the results of the one before are being written. A STORE
    is done when its words are read, on their way to the buffer; for the memory's answers waits what
    could see the difference: FENCE, HALT and LOAD. An error is that of the first instruction in the
    program's order: after one of an instruction, the STOREs before it are still finished.

    On an error it stops: no more requests, everything that is on the bus is let finish, then all
    units are cleared, and the machine can be started again. The error's code and the instruction's
    address stay until the next start. Between instructions, that is the one that was to come next.
    After HALT, too, the bus has to fall silent: the program may have been read beyond its end.

    Ports
    -----
    start, abort, program: from the host
    entries: from the instruction fetch
    operands, lane, address: of the instruction under way
    start_<unit>, done_<unit>: the units
    another_load, another_matmul: the unit takes one before it is done
    answered: no STORE waits for the memory
    invalid_weight, failed_weight, failed_load, failed_store: one-cycle error pulses
    load_address, store_address: of the instruction that failed
    progress: something moved in this cycle
    watchdog: cycles without progress that are too many; 0: never
    bus_idle: nothing is on its way on the bus
    stop: begin nothing new; stop_stores: nor send what STOREs have left
    clear: reset the units; after reset, too
    running_<unit>: for the counters
    quiet: no entry is waiting or under way, and the memory has answered all STOREs
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
                "address": Out(32),
                **{f"start_{unit}": Out(1) for unit in UNITS.values()},
                **{f"done_{unit}": In(1) for unit in UNITS.values()},
                **{f"running_{unit}": Out(1) for unit in UNITS.values()},
                "another_load": In(1),
                "another_matmul": In(1),
                "answered": In(1),
                "invalid_weight": In(1),
                "failed_weight": In(1),
                "failed_load": In(1),
                "load_address": In(32),
                "failed_store": In(1),
                "store_address": In(32),
                "progress": In(1),
                "watchdog": In(32),
                "bus_idle": In(1),
                "stop": Out(1),
                "stop_stores": Out(1),
                "clear": Out(1, init=1),
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
        m.d.sync += expired.eq(self.busy & (self.watchdog != 0) & (waited >= self.watchdog))
        with m.If(self.progress | ~self.busy):
            m.d.sync += waited.eq(0)
        with m.Else():
            m.d.sync += waited.eq(waited + 1)

        # From the array and its control; they are far away.
        failed_weight = Signal()
        invalid_weight = Signal()
        m.d.sync += [
            failed_weight.eq(self.failed_weight),
            invalid_weight.eq(self.invalid_weight),
        ]

        # What went wrong in this cycle; the first line that applies wins.
        wrong = Signal(ErrorCode)
        wrong_at = Signal(32)
        causes = [
            (self.abort, ErrorCode.ABORTED, pc),
            (self.failed_store, ErrorCode.BUS_WRITE, self.store_address),
            (self.failed_load, ErrorCode.BUS_READ, self.load_address),
            (failed_weight, ErrorCode.BUS_READ, pc),
            (invalid_weight, ErrorCode.INVALID_WEIGHT, pc),
            (expired, ErrorCode.WATCHDOG, pc),
        ]
        for condition, code, address in reversed(causes):
            with m.If(condition):
                m.d.comb += [wrong.eq(code), wrong_at.eq(address)]

        def fail(code, address=pc):
            m.d.sync += [self.error.eq(code), self.error_address.eq(address)]
            m.next = "STOPPING"

        def fail_if_wrong():
            with m.If(wrong != ErrorCode.NONE):
                fail(wrong, wrong_at)

        # Which unit executes what was taken.
        chosen = {code: Signal(name=f"is_{unit}") for code, unit in UNITS.items()}

        # Whether the entry that comes next may begin while the unit is at work.
        opcode = entry.operands.opcode
        sound = Signal()
        follows = Signal()
        m.d.comb += [
            self.address.eq(pc),
            sound.eq(~(entry.failed | entry.illegal | entry.far) & self.entries.valid),
            follows.eq(
                sound
                & (opcode == self.operands.opcode)
                & Mux(
                    chosen[Opcode.LOAD],
                    self.another_load & self.answered & ~holds(entry.operands.flags, INDEXED),
                    self.another_matmul & entry.chained,
                )
            ),
        ]

        m.d.sync += self.clear.eq(0)
        with m.FSM() as fsm:
            with m.State("IDLE"), m.If(self.start):
                m.d.sync += [self.finished.eq(0), self.error.eq(ErrorCode.NONE)]
                m.d.sync += [self.error_address.eq(0), pc.eq(self.program)]
                m.next = "NEXT"
            with m.State("NEXT"):
                m.d.comb += self.quiet.eq(~self.entries.valid & self.answered)
                m.d.comb += self.entries.ready.eq(1)
                with m.If(self.entries.valid):
                    m.d.sync += [self.operands.eq(entry.operands), self.lane.eq(entry.lane)]
                    m.d.sync += [is_it.eq(opcode == code) for code, is_it in chosen.items()]
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
                fail_if_wrong()
            with m.State("START"):
                held = Signal()
                m.d.comb += held.eq(chosen[Opcode.LOAD] & ~self.answered)
                for code, unit in UNITS.items():
                    ready = ~held if code == Opcode.LOAD else 1
                    m.d.comb += getattr(self, f"start_{unit}").eq(chosen[code] & ready)
                with m.If(~held):
                    m.next = "RUN"
                fail_if_wrong()
            with m.State("RUN"):
                for code, unit in UNITS.items():
                    m.d.comb += getattr(self, f"running_{unit}").eq(chosen[code])
                done = Cat(getattr(self, f"done_{unit}") for unit in UNITS.values()).any()
                with m.If(done | follows):
                    m.d.sync += pc.eq(next_pc)
                    m.next = "NEXT"
                fail_if_wrong()
            with m.State("FINISH"):
                with m.If(self.bus_idle & self.answered & (wrong == ErrorCode.NONE)):
                    m.d.sync += self.finished.eq(1)
                    m.next = "IDLE"
                fail_if_wrong()
            with m.State("STOPPING"):
                # STOREs come before an instruction that has failed: they end, or fail first.
                later = Cat(self.error == code for code in LATER).any()
                m.d.comb += [self.stop.eq(1), self.stop_stores.eq(~later)]
                with m.If(self.failed_store & later):
                    fail(ErrorCode.BUS_WRITE, self.store_address)
                with m.Elif(self.bus_idle & (self.answered | ~later)):
                    m.next = "CLEAR"
            with m.State("CLEAR"):
                m.d.comb += [self.stop.eq(1), self.stop_stores.eq(1)]
                m.d.sync += self.clear.eq(1)
                m.next = "CLEARED"
            with m.State("CLEARED"):  # out of a register, as it goes everywhere
                m.d.comb += [self.stop.eq(1), self.stop_stores.eq(1)]
                m.next = "IDLE"
        m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
        return m
