"""What all testbenches share: several designs in one build, runs that count, stalls, memories.

A bench module is named ``tb_<name>`` and has a docstring, ``parts()`` (name -> component), a line
``CONFIGURATIONS`` for the report, and tests made with `bench_test`. Its parts go into one Verilog
module, each with a clock of its own, so that a part which is not under test costs no time.
"""

import functools
import json
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from amaranth.hdl import ClockDomain, ClockSignal, DomainRenamer, Module, ResetSignal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from cocotb.clock import Clock
from cocotb.simtime import convert, get_sim_time
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp, AxiSlaveRead
from numpy.typing import ArrayLike

from golden.registers import REGISTERS, counter_offset

PERIOD_NS = 10


class Bundle(wiring.Component):
    """Independent components in one design.

    Ports are ``<name>_clk``, ``<name>_rst`` and ``<name>__<port>`` for each of ``parts``.
    """

    def __init__(self, parts: dict[str, wiring.Component]):
        self.parts = parts
        members: dict[str, Any] = {}
        for name, part in parts.items():
            members[f"{name}_clk"] = In(1)
            members[f"{name}_rst"] = In(1)
            members[name] = Out(part.signature)
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        for name, part in self.parts.items():
            m.domains += ClockDomain(name)
            m.d.comb += [
                ClockSignal(name).eq(getattr(self, f"{name}_clk")),
                ResetSignal(name).eq(getattr(self, f"{name}_rst")),
            ]
            m.submodules[name] = DomainRenamer(name)(part)
            connect(m, part, flipped(getattr(self, name)))
        return m


class Part:
    """The ports of one part of a `Bundle`, by the names that its component gives them."""

    def __init__(self, dut: Any, name: str):
        self._dut, self._name = dut, name
        self.clk = getattr(dut, f"{name}_clk")
        self.rst = getattr(dut, f"{name}_rst")

    def __getattr__(self, port: str) -> Any:
        handle = getattr(self._dut, f"{self._name}__{port}")
        setattr(self, port, handle)  # the next look-up is a plain attribute
        return handle

    def array(self, port: str, length: int) -> list[Any]:
        """The handles of an array port."""
        return [getattr(self, f"{port}__{index}") for index in range(length)]

    def prefix(self, port: str) -> tuple[Any, str]:
        """What ``from_prefix`` of a bus in cocotbext-axi takes."""
        return self._dut, f"{self._name}__{port}"


class Run:
    """One test: its part, clock, random numbers and the count of its checks."""

    def __init__(self, dut: Any, part: str, name: str):
        seed = int(os.environ["RF8_BENCH_SEED"])
        self.name, self.part = name, part
        self.rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        self.checks = 0
        self.dut = Part(dut, part)
        self._clock: Clock | None = None
        self._started = get_sim_time("step")

    async def start(self, **inputs: int) -> Part:
        """Give ``inputs`` their first values, start the clock and reset the part."""
        for name, value in inputs.items():
            getattr(self.dut, name).value = value
        Clock(self.dut.clk, PERIOD_NS, unit="ns").start()
        await self.reset()
        return self.dut

    async def reset(self, cycles: int = 2) -> None:
        """Reset the part for some cycles."""
        self.dut.rst.value = 1
        await ClockCycles(self.dut.clk, cycles)
        self.dut.rst.value = 0
        await RisingEdge(self.dut.clk)

    @property
    def cycle(self) -> int:
        """Clock cycles since the test began."""
        return (get_sim_time("step") - self._started) // convert(PERIOD_NS, "ns", to="step")

    def check(self, actual: ArrayLike, expected: ArrayLike, what: str) -> None:
        """Compare with ``==``, element by element."""
        a, b = np.asarray(actual), np.asarray(expected)
        what = f"{self.name}: {what}"  # cocotb's own name of the test tells only numbers
        assert a.shape == b.shape, f"{what}: shape {a.shape}, expected {b.shape}"
        wrong = np.argwhere(a != b)
        if len(wrong):
            first = tuple(int(i) for i in wrong[0])
            place = f" at {first}" if first else ""
            raise AssertionError(
                f"{what}: {len(wrong)} of {a.size} differ, first{place}: "
                f"{a[first]} where {b[first]} is right"
            )
        self.checks += max(1, a.size)

    def stalls(self, chance: float, longest: int = 1) -> Iterator[bool]:
        """An endless pattern of pauses, for loops and for cocotbext-axi.

        ``chance`` is the share of cycles that are pauses; pauses last 1 to ``longest`` cycles.
        """
        begin = chance / (chance + (1 - chance) * (longest + 1) / 2) if chance else 0.0
        while True:
            for pause in (self.rng.random(256) < begin).tolist():
                length = int(self.rng.integers(1, longest + 1)) if pause else 1
                yield from [pause] * length

    def report(self) -> None:
        """Add this test to the report of the bench."""
        line = json.dumps({"test": self.name, "checks": self.checks, "cycles": self.cycle})
        with Path(os.environ["RF8_BENCH_REPORT"]).open("a") as out:
            out.write(line + "\n")


def bench_test(*, limit: int, part: list[str], **parameters: list[Any]) -> Callable[..., Any]:
    """A cocotb test for each of the parts (and of the parameters), of ``limit`` cycles at most.

    The decorated function gets a `Run`, and the parameters by name.
    """

    def decorate(body: Callable[..., Any]) -> Any:
        @cocotb.test(timeout_time=limit * PERIOD_NS, timeout_unit="ns")
        @cocotb.parametrize(part=part, **parameters)
        @functools.wraps(body)
        async def test(dut: Any, part: str, **values: Any) -> None:
            label = "/".join([body.__name__, part, *(str(v) for v in values.values())])
            run = Run(dut, part, label)
            await body(run, **values)
            assert run.checks, f"{label} compared nothing"
            run.report()

        return test

    return decorate


def signed(value: int, bits: int) -> int:
    """The two's-complement number in the low ``bits`` of ``value``."""
    value &= (1 << bits) - 1
    return value - (value >> (bits - 1) << bits)


class Memory:
    """External memory for the bus models of cocotbext-axi, which call ``read`` and ``write``.

    An access that touches a byte past the end, or one in ``broken``, is answered with an error.
    """

    def __init__(self, size: int, rng: np.random.Generator):
        self.bytes = rng.integers(0, 256, size, dtype=np.uint8)
        self.broken = np.zeros(size, bool)

    async def read(self, address: int, length: int) -> bytes:
        self._check(address, length)
        return self.bytes[address : address + length].tobytes()

    async def write(self, address: int, data: bytes) -> None:
        self._check(address, len(data))
        self.bytes[address : address + len(data)] = np.frombuffer(data, np.uint8)

    def _check(self, address: int, length: int) -> None:
        if address + length > len(self.bytes) or self.broken[address : address + length].any():
            raise ValueError(f"no memory at {address:#x}")


class InterleavedReads(AxiSlaveRead):
    """A memory that answers reads of different IDs in any order, beat by beat.

    AXI allows it: only the beats of one ID must keep their order.
    """

    def __init__(self, rng: np.random.Generator, *arguments: Any, **options: Any):
        self._rng = rng
        self._waiting: dict[int, deque[tuple[int, bool]]] = {}
        super().__init__(*arguments, **options)

    def _handle_reset(self, state: bool) -> None:
        self._waiting.clear()
        super()._handle_reset(state)

    def _take(self, request: Any) -> None:
        beats = int(request.arlen) + 1
        first, size = int(request.araddr), self.byte_lanes
        queue = self._waiting.setdefault(int(request.arid), deque())
        queue.extend((first + n * size, n == beats - 1) for n in range(beats))

    async def _process_read(self) -> None:
        while True:
            while not self.ar_channel.empty() or not any(self._waiting.values()):
                self._take(await self.ar_channel.recv())
            identity = int(self._rng.choice([i for i, queue in self._waiting.items() if queue]))
            address, last = self._waiting[identity].popleft()
            beat = self.r_channel._transaction_obj()
            beat.rid, beat.rlast, beat.rresp = identity, last, AxiResp.OKAY
            try:
                beat.rdata = int.from_bytes(
                    await self.target.read(address, self.byte_lanes), "little"
                )
            except ValueError:
                beat.rdata, beat.rresp = 0, AxiResp.SLVERR
            await self.r_channel.send(beat)


CHANNELS = {
    "ar": ("arid", "araddr", "arlen", "arsize", "arburst"),
    "aw": ("awid", "awaddr", "awlen", "awsize", "awburst"),
    "w": ("wdata", "wstrb", "wlast"),
}
"""What a manager says on its AXI4 channels."""


async def watch_handshakes(run: Run, prefix: str) -> None:
    """AXI's rule for a manager: what waits for ``ready`` stays as it is. Runs until cancelled."""
    handles = {
        channel: [
            getattr(run.dut, prefix + port)
            for port in (f"{channel}ready", f"{channel}valid", *payload)
        ]
        for channel, payload in CHANNELS.items()
    }
    waiting: dict[str, list[int]] = {}
    while True:
        await RisingEdge(run.dut.clk)
        for channel, (ready, *rest) in handles.items():
            now = [int(handle.value) for handle in rest] if int(rest[0].value) else [0]
            if channel in waiting:
                before = waiting.pop(channel)
                run.check(now == before, True, f"{channel} keeps {before} while it waits: {now}")
            if now[0] and not int(ready.value):
                waiting[channel] = now


class Host:
    """Reads and writes the control registers by name, with pauses on every channel."""

    def __init__(self, run: Run, bus: AxiLiteBus, pace: float):
        self.master = AxiLiteMaster(bus, run.dut.clk, run.dut.rst)
        write, read = self.master.write_if, self.master.read_if
        channels = (write.aw_channel, write.w_channel, write.b_channel)
        for channel in (*channels, read.ar_channel, read.r_channel):
            channel.set_pause_generator(run.stalls(pace, 4))

    async def write(self, register: str, value: int) -> None:
        await self.master.write_dword(REGISTERS[register][0], value)

    async def read(self, register: str) -> int:
        return int(await self.master.read_dword(REGISTERS[register][0]))

    async def counter(self, name: str) -> int:
        return int(await self.master.read_qword(counter_offset(name)))


def answer_errors_with(channel: Any, response: AxiResp) -> None:
    """Make an R or B channel of cocotbext-axi, which knows SLVERR only, say ``response`` for it."""
    send = channel.send

    async def changed(beat: Any) -> None:
        for name in ("rresp", "bresp"):
            if getattr(beat, name, None) == AxiResp.SLVERR:
                setattr(beat, name, response)
        await send(beat)

    channel.send = changed
