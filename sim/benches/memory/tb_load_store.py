"""LOAD and STORE with a scratchpad between them, against a memory with its own pace."""

import cocotb
import numpy as np
from amaranth.hdl import Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiReadBus, AxiResp, AxiSlaveRead, AxiSlaveWrite, AxiWriteBus

from golden.config import AccelConfig, get_config
from golden.format import INTEGERS
from golden.isa import Flag, exact_log2
from hw.memory.axi import ReadManager, axi4_read, axi4_write
from hw.memory.load import Load
from hw.memory.scratchpad import Scratchpad
from hw.memory.store import Store
from sim.benches.harness import Memory, Run, answer_errors_with, bench_test

TINY = get_config("tiny").replace(scratch_words=256)
CONFIGS = {
    config.name: config
    for config in (
        TINY,
        TINY.replace(name="one_column", cols=1, burst_beats=16),
        TINY.replace(name="wide_bus", cols=3, bus_bytes=16, burst_beats=4),
        TINY.replace(name="single_beats", burst_beats=1),
    )
}
CONFIGURATIONS = "1 to 3 columns; bursts of 1, 4, 8 and 16 beats of 4 and 16 bytes"
MEMORY = 1 << 15


class LoadStore(wiring.Component):
    """`Load` and `Store`, wired to a `Scratchpad` and the bus as in the accelerator."""

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "start_load": In(1),
                "start_store": In(1),
                "address": In(32),
                "count": In(16),
                "word": In(16),
                "column": In(range(max(2, config.cols))),
                "lanes": In(1),
                "shift": In(8),
                "lane": In(7),
                "tag": In(32),
                "stop": In(1),
                "ready_load": Out(1),
                "done_load": Out(1),
                "done_store": Out(1),
                "answered": Out(1),
                "failed_load": Out(1),
                "failed_store": Out(1),
                "tag_load": Out(32),
                "tag_store": Out(32),
                "idle_load": Out(1),
                "idle_store": Out(1),
                "read": Out(axi4_read(config)),
                "write": Out(axi4_write(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.reader = reader = ReadManager(self.config)
        m.submodules.load = load = Load(self.config)
        m.submodules.store = store = Store(self.config)
        m.submodules.scratchpad = scratchpad = Scratchpad(self.config)
        connect(m, reader.axi, flipped(self.read))
        connect(m, store.axi, flipped(self.write))
        connect(m, load.memory, reader.load)
        connect(m, load.write, scratchpad.load)
        connect(m, store.read, scratchpad.store)
        for unit, place in ((load, "dst"), (store, "src")):
            o = unit.run.operands
            m.d.comb += [
                o.address.eq(self.address),
                o.count.eq(self.count),
                o[place].eq(self.word),
                o.column.eq(self.column),
                unit.run.lane.eq(self.lane),
                unit.run.tag.eq(self.tag),
            ]
        m.d.comb += [
            load.run.start.eq(self.start_load),
            load.run.operands.flags.eq(Mux(self.lanes, int(Flag.INDEX), 0)),
            store.run.start.eq(self.start_store),
            store.run.operands.shift.eq(self.shift),
            reader.stop.eq(self.stop),
            store.stop.eq(self.stop),
            self.ready_load.eq(load.ready),
            self.done_load.eq(load.run.done),
            self.done_store.eq(store.run.done),
            self.answered.eq(store.answered),
            self.failed_load.eq(load.failure.failed),
            self.tag_load.eq(load.failure.tag),
            self.failed_store.eq(store.failure.failed),
            self.tag_store.eq(store.failure.tag),
            self.idle_load.eq(reader.idle),
            self.idle_store.eq(store.idle),
        ]
        return m


def parts():
    return {name: LoadStore(config) for name, config in CONFIGS.items()}


class Bench:
    """Runs loads and stores on the hardware and on arrays."""

    def __init__(self, run: Run):
        self.run, self.dut, self.config = run, run.dut, CONFIGS[run.part]
        self.memory = Memory(MEMORY, run.rng)
        shape = (self.config.cols, self.config.scratch_words, self.config.bus_bytes)
        self.scratch = np.zeros(shape, np.uint8)
        self.addresses = self.answers = 0  # write bursts begun and answered
        self.tag = 0
        self.failed: list[tuple[str, int]] = []  # unit and tag, one for each failed beat or answer

    async def start(self, pace: float = 0, longest: int = 1) -> None:
        run, dut = self.run, self.run.dut
        quiet = dict.fromkeys(("start_load", "start_store", "stop", "count"), 0)
        quiet |= dict.fromkeys(("read__arready", "read__rvalid"), 0)
        await run.start(**quiet, write__awready=0, write__wready=0, write__bvalid=0)
        read = AxiReadBus.from_prefix(*dut.prefix("read"), bus_separator="__")
        write = AxiWriteBus.from_prefix(*dut.prefix("write"), bus_separator="__")
        self.reads = AxiSlaveRead(read, dut.clk, dut.rst, target=self.memory)
        self.writes = AxiSlaveWrite(write, dut.clk, dut.rst, target=self.memory)
        channels = [self.reads.ar_channel, self.reads.r_channel]
        channels += [self.writes.aw_channel, self.writes.w_channel, self.writes.b_channel]
        for channel in channels:
            channel.set_pause_generator(run.stalls(pace, longest))
        cocotb.start_soon(self.watch())

    async def watch(self) -> None:
        """Count write bursts and their answers, and check where bursts end."""
        dut, config, run = self.dut, self.config, self.run
        limit = config.burst_beats * config.bus_bytes
        while True:
            await RisingEdge(dut.clk)
            for channel in ("read__ar", "write__aw"):
                ports = [getattr(dut, channel + port) for port in ("valid", "ready", "addr", "len")]
                valid, ready, address, length = (int(port.value) for port in ports)
                if valid and ready:
                    end = address + (length + 1) * config.bus_bytes
                    run.check(address // limit, (end - 1) // limit, f"block of {address:#x}")
                    self.addresses += channel == "write__aw"
            self.answers += int(dut.write__bvalid.value) and int(dut.write__bready.value)
            for unit in ("load", "store"):
                if int(getattr(dut, f"failed_{unit}").value):
                    self.failed.append((unit, int(getattr(dut, f"tag_{unit}").value)))

    def random_operands(self) -> tuple[int, int, int, int]:
        """address, count, word, column"""
        config, rng = self.config, self.run.rng
        count = int(rng.choice([1, 2, 3, rng.integers(1, config.scratch_words + 1)]))
        word = int(rng.integers(0, config.scratch_words - count + 1))
        slots = MEMORY // config.bus_bytes - count
        address = int(rng.integers(0, slots + 1))
        if rng.random() < 0.4:  # across a page's end
            page = 4096 // config.bus_bytes
            address = min(slots, max(0, (address // page + 1) * page - int(rng.integers(0, 20))))
        return address * config.bus_bytes, count, word, int(rng.integers(config.cols))

    async def begin(
        self, unit: str, address: int, count: int, word: int, column: int, *, shift: int = 0,
        lane: int = 0,
    ) -> None:  # fmt: skip
        dut = self.dut
        dut.address.value, dut.count.value = address, count
        dut.word.value, dut.column.value = word, column
        dut.lanes.value, dut.shift.value, dut.lane.value = int(shift > 0), shift, lane
        self.tag = int(self.run.rng.integers(1 << 32))
        dut.tag.value = self.tag
        getattr(dut, f"start_{unit}").value = 1
        await RisingEdge(dut.clk)
        getattr(dut, f"start_{unit}").value = 0
        # Operands are taken with the start.
        dut.lanes.value, dut.shift.value, dut.lane.value, dut.column.value = 1, 3, 0, 0
        dut.tag.value = 0

    async def finish(self, unit: str) -> bool:
        """Wait for `done`, and for a STORE until all is answered; whether there was a failure."""
        dut = self.dut
        done = getattr(dut, f"done_{unit}")
        while not int(done.value):
            await RisingEdge(dut.clk)
        await RisingEdge(dut.clk)
        self.run.check(int(done.value), 0, "done in the cycle after done")
        while unit == "store" and not int(dut.answered.value):
            await RisingEdge(dut.clk)
        await RisingEdge(dut.clk)
        failed, self.failed = self.failed, []
        self.run.check(failed, [(unit, self.tag)] * len(failed), "who has failed")
        return bool(failed)

    def words(self, address: int, count: int) -> np.ndarray:
        """A view of memory [count, bus_bytes]."""
        size = self.config.bus_bytes
        return self.memory.bytes[address : address + count * size].reshape(count, size)

    async def load(self, address: int, count: int, word: int, column: int) -> bool:
        await self.begin("load", address, count, word, column)
        self.scratch[column, word : word + count] = self.words(address, count)
        return await self.finish("load")

    async def fill(self) -> None:
        """Load all of the scratchpad."""
        for column in range(self.config.cols):
            await self.load(column * 64, self.config.scratch_words, 0, column)

    async def load_lane(self, address: int, count: int, word: int, column: int, lane: int) -> None:
        """A column of memory: a number, then codes."""
        config = self.config
        beats = self.words(address, count)[:, lane]
        per_word = config.results_per_word
        words = 1 + -(-(count - 1) // per_word)
        elements = np.zeros((words, per_word), "<i4")
        elements[0, 0] = beats.view(np.int8)[0]
        for n, code in enumerate(beats[1:].tolist()):
            elements[1 + n // per_word, n % per_word] = INTEGERS[code]
        shift = exact_log2(config.bus_bytes)
        await self.begin("load", address, count, word, column, shift=shift, lane=lane)
        self.scratch[column, word : word + words] = elements.view(np.uint8).reshape(words, -1)
        self.run.check(await self.finish("load"), False, "failed")

    async def store_lane(
        self, address: int, count: int, word: int, column: int, lane: int, width: int
    ) -> None:
        """A column of memory, bytes or elements; all around it stays."""
        config, size = self.config, self.config.bus_bytes
        per_word, words = config.results_per_word, self.scratch[column, word:]
        want = self.memory.bytes.copy()
        for n in range(count):
            at, element = (1 + (n - 1) // per_word, (n - 1) % per_word) if n else (0, 0)
            data = words[at, 4 * element : 4 * element + width]
            first = address + n * size + lane * width
            want[first : first + width] = data
        shift = exact_log2(size // width)
        await self.begin("store", address, count, word, column, shift=shift, lane=lane)
        self.run.check(await self.finish("store"), False, "failed")
        self.run.check(self.answers, self.addresses, "write bursts answered")
        what = f"lane {lane} of {width} bytes, {count} at {address:#x}"
        beats = want[address : address + count * size].view("<u4")
        self.run.check(self.words(address, count).reshape(-1).view("<u4"), beats, what)
        self.run.check(np.array_equal(self.memory.bytes, want), True, f"memory around {what}")

    async def store(self, address: int, count: int, word: int, column: int) -> bool:
        """Store, and compare memory as soon as it is idle: all answers must have come by then."""
        before = self.memory.bytes.copy()
        await self.begin("store", address, count, word, column)
        failed = await self.finish("store")
        self.run.check(self.answers, self.addresses, "write bursts answered")
        if not failed:
            size = self.config.bus_bytes
            stored = self.scratch[column, word : word + count]
            what = f"{count} words at {address:#x}"
            self.run.check(self.words(address, count).view("<u4"), stored.view("<u4"), what)
            before[address : address + count * size] = stored.reshape(-1)
            same = np.array_equal(self.memory.bytes, before)
            self.run.check(same, True, f"memory around {what} is as before")
        return failed


@bench_test(limit=60_000, part=list(CONFIGS), pace=[0, 0.3, 0.7])
async def contents(run: Run, pace: float) -> None:
    bench = Bench(run)
    await bench.start(pace, longest=10)
    await bench.fill()
    for _ in range(20):
        unit = bench.load if run.rng.random() < 0.5 else bench.store
        failed = await unit(*bench.random_operands())
        run.check(failed, False, "failed")


@bench_test(limit=100_000, part=list(CONFIGS), pace=[0, 0.3, 0.7])
async def lanes(run: Run, pace: float) -> None:
    """Columns of memory, to and fro, between plain moves."""
    bench = Bench(run)
    config, rng = bench.config, run.rng
    await bench.start(pace, longest=10)
    await bench.fill()
    for _ in range(40):
        address, count, word, column = bench.random_operands()
        longest = 1 + (config.scratch_words - word - 1) * config.results_per_word
        slots = (MEMORY - address) // config.bus_bytes
        count = min(int(rng.choice([count, 1, 2, rng.integers(1, 120)])), longest, slots)
        lane = int(rng.integers(config.bus_bytes))
        match int(rng.integers(5)):
            case 0:
                await bench.load_lane(address, count, word, column, lane)
            case 1:
                await bench.store_lane(address, count, word, column, lane, 1)
            case 2 if config.bus_bytes > 4:
                await bench.store_lane(address, count, word, column, lane // 4, 4)
            case 3:
                await bench.load(address, min(count, config.scratch_words - word), word, column)
            case _:
                await bench.store(address, min(count, config.scratch_words - word), word, column)


@bench_test(limit=60_000, part=list(CONFIGS), pace=[0, 0.3])
async def many_loads(run: Run, pace: float) -> None:
    """LOADs are asked for before those ahead of them have come; a bad word is that of its LOAD."""
    bench = Bench(run)
    dut, config = run.dut, bench.config
    await bench.start(pace, longest=10)
    answer_errors_with(bench.reads.r_channel, AxiResp.SLVERR)
    await bench.fill()
    ahead = 0
    for _ in range(6):
        tags, bad = [], int(run.rng.integers(20))
        for number in range(20):
            address, count, word, column = bench.random_operands()
            count = min(count, 12)
            if number == bad:
                address, count = 0x800, 1
                bench.memory.broken[0x800] = True
                spoilt = word, column
            elif address <= 0x800 < address + count * config.bus_bytes:
                address = 0x800 + config.bus_bytes
            while not int(dut.ready_load.value):
                await RisingEdge(dut.clk)
            ahead += not int(dut.idle_load.value)
            bench.scratch[column, word : word + count] = bench.words(address, count)
            await bench.begin("load", address, count, word, column)
            tags.append(bench.tag)
            await RisingEdge(dut.clk)
        while not int(dut.done_load.value):
            await RisingEdge(dut.clk)
        await ClockCycles(dut.clk, 2)
        run.check(bench.failed, [("load", tags[bad])], "who has failed")
        bench.failed = []
        bench.memory.broken[:] = False
        await bench.load(0x1000, 1, *spoilt)
        for column in range(config.cols):
            await bench.store(0x4000, config.scratch_words, 0, column)
    run.check(ahead > 20, True, f"{ahead} LOADs began while others were under way")


@bench_test(limit=60_000, part=list(CONFIGS), pace=[0, 0.3])
async def many_stores(run: Run, pace: float) -> None:
    """STOREs do not wait for the answers of those before them; a bad one is told by its tag."""
    bench = Bench(run)
    dut, config = run.dut, bench.config
    await bench.start(pace, longest=10)
    answer_errors_with(bench.writes.b_channel, AxiResp.SLVERR)
    await bench.fill()
    for _ in range(4):
        want, tags, bad = bench.memory.bytes.copy(), [], int(run.rng.integers(30))
        broken = bench.memory.broken
        broken[:] = False
        for number in range(30):
            address, count, word, column = bench.random_operands()
            address, count = max(address, 0x1000), min(count, 9)
            if number == bad:
                address, count, word = 0x800, 1, min(word, config.scratch_words - 1)
                broken[0x800 : 0x800 + config.bus_bytes] = True
            else:
                size = count * config.bus_bytes
                want[address : address + size] = bench.scratch[column, word : word + count].flat
            await bench.begin("store", address, count, word, column)
            tags.append(bench.tag)
            while not int(dut.done_store.value):
                await RisingEdge(dut.clk)
        while not int(dut.answered.value):
            await RisingEdge(dut.clk)
        await ClockCycles(dut.clk, 2)
        run.check(bench.failed, [("store", tags[bad])], "who has failed")
        bench.failed = []
        bench.memory.bytes[0x800 : 0x800 + config.bus_bytes] = want[
            0x800 : 0x800 + config.bus_bytes
        ]
        run.check(np.array_equal(bench.memory.bytes, want), True, "memory")


@bench_test(limit=10_000, part=["single_beats", "wide_bus"])
async def every_code(run: Run) -> None:
    """A LOAD of all bytes, codes or not, and numbers at their ends."""
    bench = Bench(run)
    size = bench.config.bus_bytes
    await bench.start()
    for number in (0, 127, 128, 255):
        codes = np.arange(128 * (number % 2), 128 * (number % 2) + 128)
        column = bench.words(0x1000, 129)
        column[:, 2] = [number, *codes]
        await bench.load_lane(0x1000, 129, 3, 0, 2)
        words = 1 + 128 * 4 // size
        await bench.store(0x4000, words, 3, 0)


@bench_test(limit=5_000, part=list(CONFIGS), response=[AxiResp.SLVERR, AxiResp.DECERR])
async def errors(run: Run, response: AxiResp) -> None:
    """One bad word anywhere makes the instruction fail; the next one is clean."""
    bench = Bench(run)
    await bench.start(pace=0.2)
    answer_errors_with(bench.reads.r_channel, response)
    answer_errors_with(bench.writes.b_channel, response)
    memory, size = bench.memory, bench.config.bus_bytes
    for unit in (bench.load, bench.store):
        for bad in (0, 20, 39):
            memory.broken[0x800 + bad * size] = True
            run.check(await unit(0x800, 40, 3, 0), True, f"failed with word {bad} bad")
            memory.broken[:] = False
            run.check(await unit(0x800, 40, 3, 0), False, "failed with good memory")


@bench_test(limit=5_000, part=list(CONFIGS))
async def stop(run: Run) -> None:
    """After `stop` no burst is begun; what is under way ends, and only then the bus is idle."""
    bench = Bench(run)
    dut = run.dut
    await bench.start(pace=0.3)
    for unit, prefix in (("load", "read__ar"), ("store", "write__aw")):
        await bench.begin(unit, 0, 200, 0, 0)
        await ClockCycles(dut.clk, int(run.rng.integers(5, 60)))
        dut.stop.value = 1
        await ClockCycles(dut.clk, 2)  # one for the signal, one for a burst that was just begun
        valid, ready = getattr(dut, f"{prefix}valid"), getattr(dut, f"{prefix}ready")
        idle = getattr(dut, f"idle_{unit}")
        begun = int(valid.value)  # may still wait for the memory
        for _ in range(200):
            await RisingEdge(dut.clk)
            now = int(valid.value)
            run.check(now <= begun, True, "no burst begun after stop")
            begun = now and not int(ready.value)
        run.check(int(idle.value), 1, f"idle of {unit}")
        run.check(bench.answers, bench.addresses, "write bursts answered")
        dut.stop.value = 0
        await run.reset()


@bench_test(limit=2_000, part=list(CONFIGS), width=["word", "byte"])
async def one_beat_each_cycle(run: Run, width: str) -> None:
    """With a memory that takes everything at once, a burst has no gaps."""
    bench = Bench(run)
    dut, config = run.dut, bench.config
    await bench.start()
    for channel in (bench.writes.aw_channel, bench.writes.w_channel):
        channel.queue_occupancy_limit = -1
    if width == "word":
        cocotb.start_soon(bench.store(0, 4 * config.burst_beats, 0, 0))
    else:
        cocotb.start_soon(bench.store_lane(0, 4 * config.burst_beats, 0, 0, 3, 1))
    sent = []
    while len(sent) < 4 * config.burst_beats:
        await RisingEdge(dut.clk)
        if int(dut.write__wvalid.value) and int(dut.write__wready.value):
            sent.append(run.cycle)
    gaps = np.diff(sent).reshape(-1)
    inside = np.arange(1, len(sent)) % config.burst_beats != 0
    run.check(gaps[inside], np.ones(inside.sum(), int), "cycles between words of a burst")
    run.check(int(gaps.max()) <= 4, True, "at most three idle cycles between bursts")
