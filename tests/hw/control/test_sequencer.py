"""The sequencer, cycle by cycle against a model in plain Python, and the order of its errors."""

from dataclasses import dataclass, field
from itertools import permutations

import numpy as np
import pytest
from hardware import simulate, word_of

from golden.config import get_config
from golden.isa import ErrorCode, Flag, Opcode
from hw.control.sequencer import Sequencer
from hw.lib.instruction import UNITS

CONFIG = get_config("tiny")
SEED = 51
INSTRUCTION = {
    ErrorCode.ILLEGAL_INSTRUCTION,
    ErrorCode.POSITION,
    ErrorCode.BUS_READ,
    ErrorCode.INVALID_WEIGHT,
}
"""Errors of an instruction: those of STOREs before it come first."""
BITS = (
    *("start", "abort", "valid", "failed", "illegal", "far", "chained", "another_load"),
    *("another_matmul", "answered", "invalid_weight", "failed_weight", "failed_load"),
    *("failed_store", "progress", "bus_idle", *(f"done_{unit}" for unit in UNITS.values())),
)
NUMBERS = ("program", "watchdog", "opcode", "indexed", "lane", "tag_load", "tag_store")
QUIET = dict.fromkeys((*BITS, *NUMBERS), 0) | {"opcode": int(Opcode.FENCE)}


@dataclass
class Model:
    """What the docstring of `Sequencer` says, a cycle at a time."""

    state: str = "IDLE"
    finished: bool = False
    error: ErrorCode = ErrorCode.NONE
    at: int = 0  # where the error was
    pc: int = 0
    opcode: int = 0
    lane: int = 0
    waited: int = 0
    expired: bool = False
    weight_failed: bool = False  # a cycle late
    weight_invalid: bool = False
    clear: bool = True
    seen: set = field(default_factory=set)

    @property
    def unit(self):
        return UNITS.get(self.opcode)

    def outputs(self, i):
        stopping = self.state in ("STOPPING", "CLEAR", "CLEARED")
        starts = self.state == "START" and (i["answered"] or self.opcode != Opcode.LOAD)
        stores_too = self.state != "STOPPING" or self.error not in INSTRUCTION
        return {
            "busy": self.state != "IDLE",
            "finished": self.finished,
            "error": self.error,
            "error_address": self.at,
            "ready": self.state == "NEXT",
            "quiet": self.state == "NEXT" and not i["valid"] and bool(i["answered"]),
            "stop": stopping,
            "stop_stores": stopping and stores_too,
            "clear": self.clear,
            "started": self.unit if starts else None,
            "running": self.unit if self.state == "RUN" else None,
        }

    def wrong(self, i):
        """The error of this cycle, and at which instruction."""
        if i["abort"] and self.state != "IDLE":
            return ErrorCode.ABORTED, self.pc
        if i["failed_store"]:
            return ErrorCode.BUS_WRITE, i["tag_store"]
        if i["failed_load"]:
            return ErrorCode.BUS_READ, i["tag_load"]
        if self.weight_failed:
            return ErrorCode.BUS_READ, self.pc
        if self.weight_invalid:
            return ErrorCode.INVALID_WEIGHT, self.pc
        if self.expired:
            return ErrorCode.WATCHDOG, self.pc
        return None

    def follows(self, i):
        """Whether what comes next may begin before the unit is done."""
        sound = i["valid"] and not (i["failed"] or i["illegal"] or i["far"])
        if not sound or i["opcode"] != self.opcode:
            return False
        if self.opcode == Opcode.LOAD:
            return bool(i["another_load"] and i["answered"] and not i["indexed"])
        return bool(i["another_matmul"] and i["chained"])

    def step(self, i):
        state, wrong, busy = self.state, self.wrong(i), self.state != "IDLE"
        self.clear = state == "CLEAR"
        if state == "IDLE" and i["start"]:
            self.state, self.finished, self.error, self.at = "NEXT", False, ErrorCode.NONE, 0
            self.pc = i["program"]
        elif state == "NEXT" and i["valid"]:
            self.opcode, self.lane = i["opcode"], i["lane"]
            if wrong is None:
                wrong = self.refused(i)
            if wrong is None and i["opcode"] == Opcode.HALT:
                self.state = "FINISH"
            elif wrong is None and i["opcode"] != Opcode.FENCE:
                self.state = "START"
            elif i["opcode"] == Opcode.FENCE and not self.refused(i):
                self.pc += CONFIG.slot_bytes
        elif state == "START" and (i["answered"] or self.opcode != Opcode.LOAD):
            self.state = "RUN"
        elif state == "RUN":
            done = any(i[f"done_{unit}"] for unit in UNITS.values())
            if done or self.follows(i):
                self.seen.add("done" if done else f"{self.unit} followed")
                self.pc += CONFIG.slot_bytes
                self.state = "NEXT"
        elif state == "FINISH" and wrong is None and i["bus_idle"] and i["answered"]:
            self.state, self.finished = "IDLE", True
            self.seen.add("finished")
        elif state == "STOPPING":
            later = self.error in INSTRUCTION
            if later and i["failed_store"]:
                self.error, self.at = ErrorCode.BUS_WRITE, i["tag_store"]
                self.seen.add("replaced")
            elif i["bus_idle"] and (i["answered"] or not later):
                self.state = "CLEAR"
        elif state == "CLEAR":
            self.state = "CLEARED"
        elif state == "CLEARED":
            self.state = "IDLE"
        if wrong and state in ("NEXT", "START", "RUN", "FINISH"):
            self.state, (self.error, self.at) = "STOPPING", wrong
            self.seen.add((state, wrong[0].name))
        self.expired = bool(busy and i["watchdog"] and self.waited >= i["watchdog"])
        self.waited = 0 if i["progress"] or not busy else self.waited + 1
        self.weight_failed = bool(i["failed_weight"])
        self.weight_invalid = bool(i["invalid_weight"])

    def refused(self, i):
        if i["failed"]:
            return ErrorCode.BUS_READ, self.pc
        if i["illegal"]:
            return ErrorCode.ILLEGAL_INSTRUCTION, self.pc
        if i["far"]:
            return ErrorCode.POSITION, self.pc
        return None


class Driver:
    """Sets all inputs of a cycle by name."""

    def __init__(self, ctx, dut):
        self.ctx, self.dut = ctx, dut
        entry = dut.entries.payload
        self.ports = {
            "start": dut.job.start, "abort": dut.job.abort, "program": dut.job.program,
            "watchdog": dut.job.watchdog, "valid": dut.entries.valid, "failed": entry.failed,
            "illegal": entry.illegal, "far": entry.far, "chained": entry.chained,
            "lane": entry.lane, "failed_load": dut.failed_load.failed,
            "failed_store": dut.failed_store.failed, "tag_load": dut.failed_load.tag,
            "tag_store": dut.failed_store.tag,
        }  # fmt: skip
        for name in ("another_load", "another_matmul", "answered", "invalid_weight"):
            self.ports[name] = getattr(dut, name)
        for name in ("failed_weight", "progress", "bus_idle"):
            self.ports[name] = getattr(dut, name)
        for unit in UNITS.values():
            self.ports[f"done_{unit}"] = getattr(dut, unit).done
        self.last = {}

    def set(self, i):
        for name, port in self.ports.items():
            if self.last.get(name) != i[name]:
                self.ctx.set(port, i[name])
        word = {"opcode": i["opcode"], "flags": Flag.INDEX if i["indexed"] else 0}
        operands = self.dut.entries.payload.operands.as_value()
        self.ctx.set(operands, word_of(word | {"address": i["lane"]}))
        self.last = dict(i)

    def outputs(self):
        ctx, dut, status = self.ctx, self.dut, self.dut.status
        started = [unit for unit in UNITS.values() if ctx.get(getattr(dut, unit).start)]
        running = [unit for unit in UNITS.values() if ctx.get(getattr(dut, f"running_{unit}"))]
        assert len(started) <= 1 and len(running) <= 1
        return {
            "busy": ctx.get(status.busy),
            "finished": ctx.get(status.finished),
            "error": ctx.get(status.error),
            "error_address": ctx.get(status.error_address),
            "ready": ctx.get(dut.entries.ready),
            "quiet": ctx.get(dut.quiet),
            "stop": ctx.get(dut.stop),
            "stop_stores": ctx.get(dut.stop_stores),
            "clear": ctx.get(dut.clear),
            "started": started[0] if started else None,
            "running": running[0] if running else None,
        }

    async def cycle(self, **inputs):
        """A cycle with these inputs, the others low; its outputs."""
        self.set(QUIET | inputs)
        found = self.outputs()
        await self.ctx.tick()
        return found


OPCODES = np.array([*Opcode, Opcode.LOAD, Opcode.MATMUL], int)


def random_rates(rng):
    """How likely each of `BITS` is in a cycle: what happens all the time, and some of the rest."""
    usual = {"start": 0.5, "valid": 0.5, "answered": 0.6, "progress": 0.7, "bus_idle": 0.4}
    usual |= dict.fromkeys(("another_load", "another_matmul", "chained"), 0.6)
    usual |= dict.fromkeys((f"done_{unit}" for unit in UNITS.values()), 0.06)
    rates = dict.fromkeys(BITS, 0) | usual
    for name in rng.permutation(BITS)[: max(0, int(rng.integers(-2, 5)))].tolist():
        rates[name] = rng.choice([0.02, 0.1, 0.4])
    return np.array([*rates.values()])


def random_inputs(rng, model, rates, watchdog):
    i = dict(zip(BITS, (rng.random(len(BITS)) < rates).astype(int).tolist(), strict=True))
    i["start"] &= model.state == "IDLE"
    i["opcode"] = int(OPCODES[rng.integers(len(OPCODES))])
    if model.state == "RUN" and rng.random() < 0.5:
        i["opcode"] = int(model.opcode)
    i["program"] = int(rng.integers(1 << 20)) * CONFIG.slot_bytes
    i["watchdog"] = watchdog
    i["indexed"] = int(rng.random() < 0.3)
    i["lane"] = int(rng.integers(128))
    i["tag_load"], i["tag_store"] = rng.integers(1 << 32, size=2).tolist()
    return i


def test_every_cycle_is_that_of_the_model():
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    dut, model = Sequencer(CONFIG), Model()

    async def bench(ctx):
        driver = Driver(ctx, dut)
        for cycle in range(3000):
            if cycle % 30 == 0:
                rates, watchdog = random_rates(rng), int(rng.choice([0, 0, 0, 3, 12]))
            i = random_inputs(rng, model, rates, watchdog)
            driver.set(i)
            assert driver.outputs() == model.outputs(i), f"cycle {cycle}, {model}, inputs {i}"
            if model.unit and model.state in ("START", "RUN"):
                unit = getattr(dut, model.unit)
                assert ctx.get(unit.tag) == model.pc % (1 << 32)
                assert ctx.get(unit.lane) == model.lane
                assert ctx.get(unit.operands.opcode) == model.opcode
                assert ctx.get(unit.operands.address) == model.lane
            model.step(i)
            await ctx.tick()

    simulate(dut, bench, limit=8000)
    print(sorted(map(str, model.seen)))
    assert {"done", "finished", "replaced", "load followed", "matmul followed"} <= model.seen
    errors = {seen[1] for seen in model.seen if isinstance(seen, tuple)}
    assert errors == {code.name for code in ErrorCode} - {"NONE"}


PC, LOADED, STORED = 0x40, 0x1000, 0x2000
CAUSES = {
    "abort": (ErrorCode.ABORTED, PC),
    "failed_store": (ErrorCode.BUS_WRITE, STORED),
    "failed_load": (ErrorCode.BUS_READ, LOADED),
    "failed_weight": (ErrorCode.BUS_READ, PC),
    "invalid_weight": (ErrorCode.INVALID_WEIGHT, PC),
    "watchdog": (ErrorCode.WATCHDOG, PC),
}
"""In the order in which they win when they come together."""


async def run_to(driver, opcode, steps):
    """Start the machine, and let it take an instruction."""
    await driver.cycle()
    await driver.cycle(start=1, program=PC)
    for _ in range(steps):
        await driver.cycle(valid=1, opcode=int(opcode), progress=1, answered=1)


async def settle(driver):
    """Let it stop; the error and the instruction that are told then."""
    for _ in range(20):
        found = await driver.cycle(bus_idle=1, answered=1)
        if not found["busy"]:
            return ErrorCode(found["error"]), found["error_address"]
    raise AssertionError("it never stops")


def inputs_of(causes):
    """Inputs of two cycles: what comes of an array is seen a cycle late, as is the watchdog."""
    before = {name: 1 for name in causes if name.endswith("weight")}
    if "watchdog" in causes:
        before["watchdog"] = 1
    at = {name: 1 for name in causes if name not in ("failed_weight", "invalid_weight", "watchdog")}
    return before, at | {"tag_load": LOADED, "tag_store": STORED}


def test_of_two_causes_in_a_cycle_the_first_wins():
    dut = Sequencer(CONFIG)
    order = [*CAUSES]

    async def bench(ctx):
        driver = Driver(ctx, dut)
        for pair in [*permutations(order, 2), *((cause, cause) for cause in order)]:
            await run_to(driver, Opcode.MATMUL, 2)
            await driver.cycle()  # one without progress
            before, at = inputs_of(pair)
            await driver.cycle(**before)
            found = await driver.cycle(**at)
            assert found["error"] == ErrorCode.NONE and not found["stop"], pair
            found = await driver.cycle()
            winner = min(pair, key=order.index)
            assert (found["error"], found["error_address"]) == CAUSES[winner], pair
            assert found["stop"] and found["busy"], pair
            assert await settle(driver) == CAUSES[winner], pair

    simulate(dut, bench, limit=1000)


@pytest.mark.parametrize("steps", [0, 1, 2], ids=["NEXT", "START", "RUN"])
def test_only_a_store_that_came_before_replaces_an_error(steps):
    """In STOPPING: errors of an instruction give way to that of a STORE, no others do."""
    dut = Sequencer(CONFIG)

    async def bench(ctx):
        driver = Driver(ctx, dut)
        for cause, (code, at) in CAUSES.items():
            await run_to(driver, Opcode.VECTOR, steps)
            await driver.cycle()
            before, now = inputs_of([cause])
            await driver.cycle(**before)
            await driver.cycle(**now)
            later = code in INSTRUCTION
            for other in CAUSES:  # nothing else does
                if other != "failed_store":
                    found = await driver.cycle(**{**inputs_of([other])[1], "watchdog": 1})
                    assert (found["error"], found["error_address"]) == (code, at), (cause, other)
                    assert found["stop"] and found["stop_stores"] == (not later), cause
            # With a STORE on its way the bus may be idle in between.
            if later:
                found = await driver.cycle(bus_idle=1)
                assert (await driver.cycle())["stop_stores"] == 0
            await driver.cycle(failed_store=1, tag_store=STORED + 4, bus_idle=1, answered=1)
            want = (ErrorCode.BUS_WRITE, STORED + 4) if later else (code, at)
            found = await driver.cycle()
            assert (found["error"], found["error_address"]) == want, cause
            assert await settle(driver) == want, cause

    simulate(dut, bench, limit=1000)


def test_the_first_bit_of_an_entry_stops_and_other_causes_go_before():
    dut = Sequencer(CONFIG)
    bits = {
        "failed": ErrorCode.BUS_READ,
        "illegal": ErrorCode.ILLEGAL_INSTRUCTION,
        "far": ErrorCode.POSITION,
    }

    async def bench(ctx):
        driver = Driver(ctx, dut)
        for chosen in range(1, 8):
            entry = {name: 1 for n, name in enumerate(bits) if chosen >> n & 1}
            for cause in (None, *CAUSES):
                await run_to(driver, Opcode.FENCE, 0)
                await driver.cycle()
                before, at = inputs_of([cause] if cause else [])
                await driver.cycle(**before)
                found = await driver.cycle(valid=1, opcode=int(Opcode.LOAD), **entry, **at)
                assert found["ready"] and found["started"] is None
                want = CAUSES[cause] if cause else (bits[next(iter(entry))], PC)
                assert await settle(driver) == want, (entry, cause)

    simulate(dut, bench, limit=2000)


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_watchdog_expires_after_its_cycles(limit):
    """After ``limit`` cycles without progress, of which the machine learns two cycles later."""
    dut = Sequencer(CONFIG)

    async def bench(ctx):
        driver = Driver(ctx, dut)
        await run_to(driver, Opcode.STORE, 2)
        for _ in range(3):  # in time
            for _ in range(limit - 1):
                assert not (await driver.cycle(watchdog=limit))["stop"]
            assert not (await driver.cycle(watchdog=limit, progress=1))["stop"]
            for _ in range(2):
                assert not (await driver.cycle(progress=1))["stop"]
        for _ in range(3 * limit + 9):  # 0 is never
            assert not (await driver.cycle(watchdog=0))["stop"]
        await driver.cycle(progress=1)
        for cycle in range(limit + 2):
            assert not (await driver.cycle(watchdog=limit))["stop"], cycle
        assert (await driver.cycle(watchdog=limit))["error"] == ErrorCode.WATCHDOG
        assert await settle(driver) == (ErrorCode.WATCHDOG, PC)
        assert not (await driver.cycle(watchdog=limit))["busy"]

    simulate(dut, bench, limit=1000)


def test_it_clears_the_units_once_and_starts_again():
    dut = Sequencer(CONFIG)

    async def bench(ctx):
        driver = Driver(ctx, dut)
        assert (await driver.cycle())["clear"]  # after the machine's own reset
        for _ in range(2):
            assert not (await driver.cycle(abort=1))["busy"]  # of no meaning now
            await run_to(driver, Opcode.VECTOR, 1)
            await driver.cycle(abort=1)
            for _ in range(5):  # something is on the bus
                found = await driver.cycle(answered=1)
                assert found["stop"] and found["stop_stores"] and not found["clear"]
            found = [await driver.cycle(bus_idle=1) for _ in range(4)]
            assert [f["clear"] for f in found] == [0, 0, 1, 0]
            assert [f["stop"] for f in found] == [1, 1, 1, 0]
            assert [f["busy"] for f in found] == [1, 1, 1, 0]
            assert found[-1]["error"] == ErrorCode.ABORTED and not found[-1]["finished"]
            await driver.cycle(start=1, program=PC)
            found = await driver.cycle(valid=1, opcode=int(Opcode.HALT))
            assert (found["error"], found["error_address"]) == (ErrorCode.NONE, 0)
            for idle, answered in ((0, 0), (1, 0), (0, 1)):
                found = await driver.cycle(bus_idle=idle, answered=answered)
                assert found["busy"] and not found["finished"]
            await driver.cycle(bus_idle=1, answered=1)
            found = await driver.cycle()
            assert found["finished"] and not found["busy"]

    simulate(dut, bench, limit=200)
