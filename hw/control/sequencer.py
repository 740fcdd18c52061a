"""The sequencer: runs instructions one after the other and stops the machine on errors."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from golden.config import AccelConfig
from golden.isa import ErrorCode, Opcode

from ..lib.instruction import (
    ADDRESS,
    INDEXED,
    LANE_BITS,
    OPERANDS,
    UNITS,
    FailureSignature,
    JobSignature,
    StatusSignature,
    UnitSignature,
    holds,
)
from .entry import Entry

LATER = {*ErrorCode} - {ErrorCode.NONE, ErrorCode.BUS_WRITE, ErrorCode.ABORTED, ErrorCode.WATCHDOG}
"""Errors after which the STOREs before the instruction are still finished: a bus error of one of
those replaces them."""


class Sequencer(wiring.Component):
    """Takes entries in order, starts their unit and waits until it is done.

    Three things go on meanwhile. A LOAD may be asked for while LOADs before it are to come, and a
    MATMUL that is ``chained`` begins while the results of the one before are being written. A STORE
    is done when its words are read, on their way to the buffer; for the memory's answers waits what
    could see the difference: FENCE, HALT and LOAD. An error is that of the first instruction in the
    program's order: after one of an instruction, the STOREs before it are still finished.

    On an error it stops: no more requests, everything that is on the bus is let finish, then all
    units are cleared, and the machine can be started again. The error's code and the instruction's
    address stay until the next start. An error that no instruction
    caused (abort, watchdog) and that comes between two names the later one.
    After HALT, too, the bus has to fall silent: the program may have been read beyond its end.

    Ports
    -----
    job (in, `JobSignature`): What the host wants.
    status (out, `StatusSignature`): What the host may know.
    entries (in, stream of `Entry`): Instructions in order.
    matmul, load, store, vector (out, `UnitSignature`): The units.
    running_matmul, running_load, running_store, running_vector (out, 1): High from the cycle after
        the unit's start until it is done, or until the next instruction follows.
    another_load (in, 1): High when LOAD accepts a further one without INDEX or TOKEN before it is
        done.
    another_matmul (in, 1): High when MATMUL accepts a chained one before it is done.
    answered (in, 1): High when no STORE waits for the memory.
    invalid_weight (in, 1): Pulses when a weight of the MATMUL under way was invalid.
    failed_weight (in, 1): Pulses when a weight slice of the MATMUL under way came with a bus
        error.
    failed_load, failed_store (in, `FailureSignature`): Bus errors of LOADs and STOREs.
    progress (in, 1): High when something moved in this cycle: the watchdog counts from there.
    bus_idle (in, 1): High when nothing is on its way on the bus.
    stop (out, 1): High: begin nothing new.
    stop_stores (out, 1): High: nor send what STOREs have left.
    clear (out, 1): High for a cycle to reset the units, after the machine's own reset, too.
    quiet (out, 1): High when no entry is waiting or under way, and the memory has answered all
        STOREs.
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "job": In(JobSignature),
                "status": Out(StatusSignature),
                "entries": In(stream.Signature(Entry)),
                **{unit: Out(UnitSignature) for unit in UNITS.values()},
                **{f"running_{unit}": Out(1) for unit in UNITS.values()},
                "another_load": In(1),
                "another_matmul": In(1),
                "answered": In(1),
                "invalid_weight": In(1),
                "failed_weight": In(1),
                "failed_load": In(FailureSignature),
                "failed_store": In(FailureSignature),
                "progress": In(1),
                "bus_idle": In(1),
                "stop": Out(1),
                "stop_stores": Out(1),
                "clear": Out(1, init=1),
                "quiet": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        entry, status = self.entries.payload, self.status
        pc = Signal(ADDRESS)
        next_pc = pc + self.config.slot_bytes
        operands, lane = self._units(m, pc)
        wrong, wrong_at = self._causes(m, pc, self._expired(m))

        def fail(code, address=pc):
            m.d.sync += [status.error.eq(code), status.error_address.eq(address)]
            m.next = "STOPPING"

        def fail_if_wrong():
            with m.If(wrong != ErrorCode.NONE):
                fail(wrong, wrong_at)

        # One bit for each unit: it executes the instruction that was taken from the queue.
        chosen = {code: Signal(name=f"is_{unit}") for code, unit in UNITS.items()}
        opcode = entry.operands.opcode
        follows = self._follows(m, operands, chosen)

        m.d.sync += self.clear.eq(0)
        with m.FSM() as fsm:
            with m.State("IDLE"), m.If(self.job.start):
                m.d.sync += [status.finished.eq(0), status.error.eq(ErrorCode.NONE)]
                m.d.sync += [status.error_address.eq(0), pc.eq(self.job.program)]
                m.next = "NEXT"
            with m.State("NEXT"):
                m.d.comb += self.quiet.eq(~self.entries.valid & self.answered)
                m.d.comb += self.entries.ready.eq(1)
                with m.If(self.entries.valid):
                    m.d.sync += [operands.eq(entry.operands), lane.eq(entry.lane)]
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
                    m.d.comb += getattr(self, unit).start.eq(chosen[code] & ready)
                with m.If(~held):
                    m.next = "RUN"
                fail_if_wrong()
            with m.State("RUN"):
                for code, unit in UNITS.items():
                    m.d.comb += getattr(self, f"running_{unit}").eq(chosen[code])
                done = Cat(getattr(self, unit).done for unit in UNITS.values()).any()
                with m.If(done | follows):
                    m.d.sync += pc.eq(next_pc)
                    m.next = "NEXT"
                fail_if_wrong()
            with m.State("FINISH"):
                with m.If(self.bus_idle & self.answered & (wrong == ErrorCode.NONE)):
                    m.d.sync += status.finished.eq(1)
                    m.next = "IDLE"
                fail_if_wrong()
            self._stopping(m, fail)
        m.d.comb += status.busy.eq(~fsm.ongoing("IDLE"))
        return m

    def _stopping(self, m, fail) -> None:
        """The states after an error: until the bus is at rest, then the units are cleared."""
        with m.State("STOPPING"):
            # STOREs before the instruction that failed are finished; if one of them fails, its
            # error is the first of the program, and replaces that of the instruction.
            later = Cat(self.status.error == code for code in LATER).any()
            m.d.comb += [self.stop.eq(1), self.stop_stores.eq(~later)]
            with m.If(self.failed_store.failed & later):
                fail(ErrorCode.BUS_WRITE, self.failed_store.tag)
            with m.Elif(self.bus_idle & (self.answered | ~later)):
                m.next = "CLEAR"
        with m.State("CLEAR"):
            m.d.comb += [self.stop.eq(1), self.stop_stores.eq(1)]
            m.d.sync += self.clear.eq(1)
            m.next = "CLEARED"
        with m.State("CLEARED"):  # `clear` is a register, so it is high in this cycle
            m.d.comb += [self.stop.eq(1), self.stop_stores.eq(1)]
            m.next = "IDLE"

    def _units(self, m, pc):
        """The instruction under way, for all units."""
        operands = Signal(OPERANDS)
        lane = Signal(LANE_BITS)
        for name in UNITS.values():
            unit = getattr(self, name)
            m.d.comb += [unit.operands.eq(operands), unit.lane.eq(lane), unit.tag.eq(pc)]
        return operands, lane

    def _expired(self, m):
        """Whether the watchdog has run out."""
        busy, watchdog = self.status.busy, self.job.watchdog
        waited = Signal.like(watchdog)
        expired = Signal()
        m.d.sync += expired.eq(busy & (watchdog != 0) & (waited >= watchdog))
        with m.If(self.progress | ~busy):
            m.d.sync += waited.eq(0)
        with m.Else():
            m.d.sync += waited.eq(waited + 1)
        return expired

    def _causes(self, m, pc, expired):
        """What went wrong in this cycle, and at which instruction."""
        # Registers, as these signals come from the array, far away on the chip.
        failed_weight = Signal()
        invalid_weight = Signal()
        m.d.sync += [
            failed_weight.eq(self.failed_weight),
            invalid_weight.eq(self.invalid_weight),
        ]
        # Where several apply in one cycle, the first line wins.
        wrong = Signal(ErrorCode)
        wrong_at = Signal(ADDRESS)
        causes = [
            (self.job.abort & self.status.busy, ErrorCode.ABORTED, pc),
            (self.failed_store.failed, ErrorCode.BUS_WRITE, self.failed_store.tag),
            (self.failed_load.failed, ErrorCode.BUS_READ, self.failed_load.tag),
            (failed_weight, ErrorCode.BUS_READ, pc),
            (invalid_weight, ErrorCode.INVALID_WEIGHT, pc),
            (expired, ErrorCode.WATCHDOG, pc),
        ]
        for condition, code, address in reversed(causes):
            with m.If(condition):
                m.d.comb += [wrong.eq(code), wrong_at.eq(address)]
        return wrong, wrong_at

    def _follows(self, m, operands, chosen):
        """Whether the entry that comes next may begin while the unit is at work."""
        entry = self.entries.payload
        sound = Signal()
        follows = Signal()
        m.d.comb += [
            sound.eq(~(entry.failed | entry.illegal | entry.far) & self.entries.valid),
            follows.eq(
                sound
                & (entry.operands.opcode == operands.opcode)
                & Mux(
                    chosen[Opcode.LOAD],
                    self.another_load & self.answered & ~holds(entry.operands.flags, INDEXED),
                    self.another_matmul & entry.chained,
                )
            ),
        ]
        return follows
