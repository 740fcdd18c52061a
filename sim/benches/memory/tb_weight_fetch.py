"""The weight fetch behind the shared read channel, against a memory with its own pace."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import cocotb
import numpy as np
from amaranth.hdl import Cat, Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiReadBus, AxiSlaveRead

from golden.config import AccelConfig, get_config
from hw.memory.axi import READ_CLIENTS, Burst, ReadManager, axi4_read
from hw.memory.weight_fetch import Descriptor, WeightFetch
from sim.benches.harness import InterleavedReads, Memory, Run, bench_test

TINY = get_config("tiny")
CONFIGS = {
    config.name: config
    for config in (
        TINY,
        TINY.replace(name="two_slices", bus_bytes=8, fifo_beats=16),
        TINY.replace(name="four_slices", bus_bytes=16, burst_beats=16),
        TINY.replace(name="single_beats", burst_beats=1, fifo_beats=8),
    )
}
CONFIGURATIONS = "1, 2 and 4 slices in a beat; bursts of 1, 8 and 16"
MEMORY = 1 << 16
WEIGHTS, LOAD = READ_CLIENTS.index("weights"), READ_CLIENTS.index("load")


class FetchAndBus(wiring.Component):
    """`WeightFetch` and `ReadManager`, and a port for another client of the bus."""

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "descriptor": In(stream.Signature(Descriptor)),
                "slice": Out(8).array(config.rows),
                "valid": Out(1),
                "failed": Out(1),
                "ready": In(1),
                "end": In(1),
                "other": In(stream.Signature(Burst)),
                "beat": Out(len(READ_CLIENTS)),
                "data": Out(8 * config.bus_bytes),
                "axi": Out(axi4_read(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.fetch = fetch = WeightFetch(self.config)
        m.submodules.reader = reader = ReadManager(self.config)
        connect(m, flipped(self.descriptor), fetch.descriptor)
        connect(m, fetch.memory, reader.weights)
        connect(m, flipped(self.other), reader.load.request)
        connect(m, reader.axi, flipped(self.axi))
        m.d.comb += [
            *(mine.eq(its) for mine, its in zip(self.slice, fetch.slice.bytes, strict=True)),
            self.failed.eq(fetch.control.failed),
            fetch.control.ready.eq(self.ready),
            fetch.control.end.eq(self.end),
            self.beat.eq(Cat(getattr(reader, name).beat for name in READ_CLIENTS)),
            self.data.eq(reader.load.data),
        ]
        m.d.sync += self.valid.eq(fetch.control.next_valid)
        return m


def parts():
    return {name: FetchAndBus(config) for name, config in CONFIGS.items()}


@dataclass(frozen=True)
class Stream:
    """A stream: where it begins, and how many slices are taken of it (not all, perhaps)."""

    address: int
    slices: int


class Bench:
    """Memory, monitors and the two streams of a `FetchAndBus`."""

    def __init__(self, run: Run, config: AccelConfig):
        self.run, self.dut, self.config = run, run.dut, config
        self.memory = Memory(MEMORY, run.rng)
        self.asked = self.popped = self.most = 0  # beats
        self.slices = run.dut.array("slice", config.rows)

    async def start(self, *, interleaved: bool = False, pace: float = 0, longest: int = 1) -> None:
        run = self.run
        await run.start(
            descriptor__valid=0, other__valid=0, ready=0, end=0, axi__arready=0, axi__rvalid=0
        )
        bus = AxiReadBus.from_prefix(*run.dut.prefix("axi"), bus_separator="__")
        options = {"target": self.memory}
        if interleaved:
            self.slave = InterleavedReads(run.rng, bus, run.dut.clk, run.dut.rst, **options)
        else:
            self.slave = AxiSlaveRead(bus, run.dut.clk, run.dut.rst, **options)
        for channel in (self.slave.ar_channel, self.slave.r_channel):
            channel.set_pause_generator(run.stalls(pace, longest))
        cocotb.start_soon(self.watch_requests())

    async def watch_requests(self) -> None:
        """Rules of every burst, and the room that must be there for it."""
        dut, config, run = self.dut, self.config, self.run
        limit = config.burst_beats * config.bus_bytes
        while True:
            await RisingEdge(dut.clk)
            if not (int(dut.axi__arvalid.value) and int(dut.axi__arready.value)):
                continue
            if int(dut.axi__arid.value) != WEIGHTS:
                continue
            address, beats = int(dut.axi__araddr.value), int(dut.axi__arlen.value) + 1
            end = address + beats * config.bus_bytes
            run.check(address // limit, (end - 1) // limit, f"block of burst {address:#x}")
            run.check(address >> 12, (end - 1) >> 12, f"4 KiB page of burst {address:#x}")
            self.asked += beats
            self.most = max(self.most, self.asked - self.popped)
            # Two more than the FIFO holds: beats wait in the registers behind it.
            assert self.most <= config.fifo_beats + 2, f"{self.most} beats asked for and not taken"

    async def ask(self, streams: list[Stream], pace: float) -> None:
        """Hand over descriptors."""
        dut, config, stalls = self.dut, self.config, self.run.stalls(pace)
        for stream_ in streams:
            while next(stalls):
                await RisingEdge(dut.clk)
            beats = -(-stream_.slices // config.slices_per_beat)
            dut.descriptor__payload.value = stream_.address | beats << 32
            dut.descriptor__valid.value = 1
            await RisingEdge(dut.clk)
            while not int(dut.descriptor__ready.value):
                await RisingEdge(dut.clk)
            dut.descriptor__valid.value = 0

    async def take(self, streams: list[Stream], pace: float, longest: int = 1) -> None:
        """Take all slices, and compare them with the memory."""
        dut, config, stalls = self.dut, self.config, self.run.stalls(pace, longest)
        for stream_ in streams:
            got: list[list[int]] = []
            failed: list[int] = []
            while len(got) < stream_.slices:
                last = len(got) == stream_.slices - 1
                ready = not next(stalls)
                dut.ready.value, dut.end.value = ready, last
                await RisingEdge(dut.clk)
                if ready and int(dut.valid.value):
                    got.append([int(handle.value) for handle in self.slices])
                    failed.append(int(dut.failed.value))
                    self.popped += last or len(got) % config.slices_per_beat == 0
            dut.ready.value = dut.end.value = 0
            size = stream_.slices * config.rows
            here = slice(stream_.address, stream_.address + size)
            want = self.memory.bytes[here].reshape(-1, config.rows)
            beats = np.arange(stream_.slices) // config.slices_per_beat * config.bus_bytes
            broken = [
                bool(self.memory.broken[a : a + config.bus_bytes].any())
                for a in stream_.address + beats
            ]
            what = f"of {size} bytes at {stream_.address:#x}"
            self.run.check(failed, broken, f"failed flags {what}")
            good = ~np.array(broken)
            self.run.check(np.array(got)[good], want[good], f"slices {what}")


def random_streams(run: Run, config: AccelConfig, count: int) -> Iterator[Stream]:
    """Streams of one slice and more, many of them across a burst's or a page's end."""
    for _ in range(count):
        slices = int(run.rng.choice([1, 2, 3, 5, 17, run.rng.integers(1, 200)]))
        room = MEMORY - slices * config.rows - config.bus_bytes
        address = int(run.rng.integers(0, room))
        if run.rng.random() < 0.5:
            address = min(room, max(0, (address | 0xFFF) - int(run.rng.integers(0, 60))))
        yield Stream(address // config.bus_bytes * config.bus_bytes, slices)


async def check_streams(run: Run, bench: Bench, count: int, pace: float, longest: int) -> None:
    streams = list(random_streams(run, bench.config, count))
    cocotb.start_soon(bench.ask(streams, pace))
    await bench.take(streams, pace, longest)
    total = sum(-(-s.slices // bench.config.slices_per_beat) for s in streams)
    run.check(bench.asked, total, "beats asked for")


@bench_test(limit=40_000, part=list(CONFIGS), pace=[0, 0.3, 0.7])
async def streams_equal_memory(run: Run, pace: float) -> None:
    bench = Bench(run, CONFIGS[run.part])
    await bench.start(pace=pace, longest=12)
    await check_streams(run, bench, 30, pace, 12)


@bench_test(limit=20_000, part=list(CONFIGS))
async def slow_consumer_fast_memory(run: Run) -> None:
    """The fetch runs ahead until the FIFO is full, and not a beat farther."""
    config = CONFIGS[run.part]
    bench = Bench(run, config)
    await bench.start()
    long = Stream(0, 4 * config.fifo_beats * config.slices_per_beat)
    cocotb.start_soon(bench.ask([long], 0))
    await ClockCycles(run.dut.clk, 12 * config.fifo_beats)
    room = config.fifo_beats + 2  # and the registers behind the FIFO
    whole = room // config.burst_beats * config.burst_beats
    run.check(bench.asked, whole, "beats read ahead")
    await bench.take([long], 0.8, 5)


@bench_test(limit=20_000, part=list(CONFIGS), pace=[0, 0.4])
async def shares_the_bus(run: Run, pace: float) -> None:
    """Another client with more weight, and a memory that mixes the answers to both."""
    bench = Bench(run, CONFIGS[run.part])
    config, dut, memory = bench.config, run.dut, bench.memory
    await bench.start(interleaved=True, pace=pace, longest=5)
    expected: deque[int] = deque()

    async def other_client() -> None:
        stalls = run.stalls(0.8, 20)
        while True:
            while next(stalls):
                await RisingEdge(dut.clk)
            beats = int(run.rng.integers(1, 9))
            address = int(run.rng.integers(MEMORY // 64)) * 64
            beats = min(beats, (MEMORY - address) // config.bus_bytes)
            for n in range(beats):
                here = address + n * config.bus_bytes
                word = memory.bytes[here : here + config.bus_bytes].tobytes()
                expected.append(int.from_bytes(word, "little"))
            dut.other__payload.value, dut.other__valid.value = address | beats << 32, 1
            await RisingEdge(dut.clk)
            while not int(dut.other__ready.value):
                await RisingEdge(dut.clk)
            dut.other__valid.value = 0

    async def other_beats() -> None:
        while True:
            await RisingEdge(dut.clk)
            if int(dut.beat.value) >> LOAD & 1:
                run.check(int(dut.data.value), expected.popleft(), "beat of the other client")

    cocotb.start_soon(other_client())
    cocotb.start_soon(other_beats())
    await check_streams(run, bench, 20, pace, 5)


@bench_test(limit=20_000, part=list(CONFIGS))
async def flagged_beats(run: Run) -> None:
    """An error of the memory is seen with the slices of its beat, and with no others."""
    bench = Bench(run, CONFIGS[run.part])
    bench.memory.broken[:] = run.rng.random(MEMORY) < 0.01
    await bench.start(pace=0.3)
    await check_streams(run, bench, 20, 0.3, 3)


@bench_test(limit=300, part=list(CONFIGS))
async def latency(run: Run) -> None:
    """From a beat on the bus to its first slice."""
    bench = Bench(run, CONFIGS[run.part])
    await bench.start()
    dut = run.dut
    cocotb.start_soon(bench.ask([Stream(0x100, 1)], 0))
    while not int(dut.axi__rvalid.value):
        await RisingEdge(dut.clk)
    beat = run.cycle
    while not int(dut.valid.value):
        await RisingEdge(dut.clk)
    run.check(run.cycle - beat, WeightFetch.latency, "latency")
