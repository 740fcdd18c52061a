"""The whole accelerator against the golden machine: programs, errors, resets.

The host writes registers over AXI4-Lite; the memory is a model of cocotbext-axi with random pauses
on every channel. After a run, all of the memory must be as the golden machine leaves it.
"""

from collections.abc import Iterator
from dataclasses import replace

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import (
    AxiLiteBus,
    AxiReadBus,
    AxiResp,
    AxiSlaveRead,
    AxiSlaveWrite,
    AxiWriteBus,
)

from golden import isa
from golden.config import AccelConfig, get_config
from golden.isa import ErrorCode, Flag, Instruction, Opcode
from golden.machine import Machine, RunResult
from golden.rf8 import is_valid
from hw.axi import READ_CLIENTS
from hw.top import Accelerator
from sim.benches.harness import (
    Host,
    InterleavedReads,
    Memory,
    Run,
    answer_errors_with,
    bench_test,
    watch_handshakes,
)

SMALL = get_config("tiny").replace(scratch_words=128, max_k=96)
CONFIGS = {
    config.name: config
    for config in (
        get_config("tiny"),
        SMALL.replace(name="one_bin", align=4, bus_bytes=8, act_bits=8, cols=1, burst_beats=16),
        SMALL.replace(name="wide_bus", align=0, span=8, bus_bytes=16, cols=3, addr_bits=20),
        SMALL.replace(name="eight_rows", align=3, span=12, rows=8, bus_bytes=8, fifo_beats=16),
        SMALL.replace(name="short_queue", align=1, span=10, act_bits=8, bus_bytes=8, queue=2),
    )
}
SHORT = [name for name, config in CONFIGS.items() if config.scratch_words == 128]  # for many runs
CONFIGURATIONS = f"{len(CONFIGS)} machines: 4 and 8 rows, 1 to 3 columns, 4 to 16 bus bytes"
PACES = [0, 0.3, 0.7]

MEMORY = 1 << 17
PROGRAM, DATA, WEIGHTS = 0x0000, 0x2000, 0x6000  # where these areas begin


HALT = Instruction(opcode=Opcode.HALT)


def parts():
    return {name: Accelerator(config) for name, config in CONFIGS.items()}


class Author:
    """Writes random programs, and the weight streams that they use, into a memory.

    Programs keep what the instruction set asks of them: the results of a MATMUL do not overlap its
    activations, and memory that a STORE writes is a weight stream only after a FENCE.
    """

    def __init__(self, rng: np.random.Generator, config: AccelConfig, memory: np.ndarray):
        self.rng, self.config, self.memory = rng, config, memory
        codes = np.arange(256, dtype=np.uint8)
        in_span = (codes >> 3 & 15) >= 16 - config.span
        self.codes = codes[is_valid(codes) & (in_span | (codes == 0))]
        self.free = WEIGHTS
        # What the scratchpad holds in the end goes behind all the rest.
        self.results = MEMORY - config.cols * config.scratch_words * config.bus_bytes

    def fill(self) -> None:
        """New data. Any word may be the head of an activation block: most exponents are small."""
        self.memory[DATA:WEIGHTS] = self.rng.integers(0, 256, WEIGHTS - DATA)
        heads = self.memory[DATA : WEIGHTS : self.config.bus_bytes]
        small = self.rng.integers(-6, 7, len(heads)).astype(np.int8).view(np.uint8)
        heads[:] = np.where(self.rng.random(len(heads)) < 0.9, small, heads)
        self.free = WEIGHTS

    def allocate(self, size: int) -> int:
        """Memory for a weight stream, from a new beat on."""
        address, bus = self.free, self.config.bus_bytes
        self.free += -(-size // bus) * bus + int(self.rng.integers(0, 3)) * bus
        assert self.free <= self.results, "the program needs more memory for weights"
        return address

    def weights(self, k: int, tiles: int, bias: bool) -> bytes:
        """A weight stream with results in the range of int32, mostly."""
        rng, rows, out = self.rng, self.config.rows, bytearray()
        for _ in range(tiles):
            wild = rng.random() < 0.1
            exponents = rng.integers(-128, 128, rows) if wild else rng.integers(-4, 5, rows)
            out += exponents.astype(np.int8).tobytes()
            if bias:
                out += (
                    rng.integers(-(1 << 31), 1 << 31, rows)
                    .astype("<i4")
                    .view(np.uint8)
                    .reshape(rows, 4)
                    .T.tobytes()
                )
            pool = rng.choice(self.codes, int(rng.integers(1, 64)))
            codes = rng.choice(pool, (k, rows))
            codes[rng.random(codes.shape) < rng.choice([0, 0.5, 0.95])] = 0
            out += codes.astype(np.uint8).tobytes()
        return bytes(out)

    def place(self, words: int) -> int:
        """A place for ``words`` in the scratchpad; often at one of its ends."""
        room = self.config.scratch_words - words
        return int(self.rng.choice([0, room, *self.rng.integers(0, room + 1, 4)]))

    def matmul(self, *, k: int | None = None, tiles: int | None = None) -> Instruction:
        rng, config = self.rng, self.config
        longest = min(config.max_k, 96)  # what goes quickly
        k = k or int(rng.choice([1, 2, 3, 8, longest, *rng.integers(1, longest + 1, 5)]))
        tiles = tiles or int(rng.choice([1, 1, 2, 3, 7]))
        flags = Flag.BIAS if rng.random() < 0.5 else 0
        stream = self.weights(k, tiles, bool(flags))
        address = self.allocate(len(stream))
        self.memory[address : address + len(stream)] = np.frombuffer(stream, np.uint8)
        words_in = isa.block_words(k, config)
        words_out = tiles * config.rows // config.results_per_word
        while True:
            src, dst = self.place(words_in), self.place(words_out)
            if src + words_in <= dst or dst + words_out <= src:
                break
        return Instruction(
            opcode=Opcode.MATMUL,
            flags=flags,
            column=int(rng.integers(1, config.cols + 1)),
            shift=int(rng.integers(-35, 5)) if rng.random() < 0.9 else int(rng.integers(-128, 128)),
            address=address,
            count=tiles,
            k=k,
            src=src,
            dst=dst,
        )

    def transfer(self, opcode: Opcode, *, count: int | None = None) -> Instruction:
        """A LOAD or STORE between the data area and the scratchpad."""
        rng, config = self.rng, self.config
        count = count or int(rng.choice([1, 2, rng.integers(1, 60)]))
        slots = (WEIGHTS - DATA) // config.bus_bytes - count
        address = DATA + int(rng.integers(0, slots + 1)) * config.bus_bytes
        column, word = int(rng.integers(config.cols)), self.place(count)
        side = {"dst" if opcode is Opcode.LOAD else "src": word}
        return Instruction(opcode=opcode, column=column, address=address, count=count, **side)

    def moved_weights(self) -> Iterator[Instruction]:
        """A MATMUL whose weight stream the program itself puts into place."""
        matmul = self.matmul(k=5, tiles=1)
        count = isa.stream_beats(matmul, self.config)
        target = self.allocate(count * self.config.bus_bytes)
        via = {"column": int(self.rng.integers(self.config.cols)), "count": count}
        word = self.place(count)
        yield Instruction(opcode=Opcode.LOAD, address=matmul.address, dst=word, **via)
        yield Instruction(opcode=Opcode.STORE, address=target, src=word, **via)
        yield Instruction(opcode=Opcode.FENCE)
        yield replace(matmul, address=target)

    def there_and_back(self) -> Iterator[Instruction]:
        """A STORE, and a LOAD of what it has written."""
        store = self.transfer(Opcode.STORE, count=int(self.rng.integers(1, 40)))
        yield store
        column, word = int(self.rng.integers(self.config.cols)), self.place(store.count)
        yield replace(store, opcode=Opcode.LOAD, column=column, src=0, dst=word)

    def all_columns(self, opcode: Opcode) -> Iterator[Instruction]:
        """Load or store all of the scratchpad."""
        words = self.config.scratch_words
        for column in range(self.config.cols):
            address = DATA + column * (words // 4) * self.config.bus_bytes
            if opcode is Opcode.STORE:
                address = self.results + column * words * self.config.bus_bytes
            yield Instruction(opcode=opcode, column=column, address=address, count=words)

    def program(self, length: int) -> list[Instruction]:
        """Loads the scratchpad, does this and that, stores all of the scratchpad, and halts."""
        rng, out = self.rng, list(self.all_columns(Opcode.LOAD))
        kinds = {
            "matmul": 0.5,
            "load": 0.1,
            "store": 0.2,
            "fence": 0.05,
            "moved": 0.1,
            "copy": 0.05,
        }
        for _ in range(length):
            kind = str(rng.choice(list(kinds), p=list(kinds.values())))
            if kind == "matmul":
                out.append(self.matmul())
                if rng.random() < 0.7:  # see the results before they are gone
                    words = out[-1].count * self.config.rows // self.config.results_per_word
                    column = int(rng.integers(out[-1].column))
                    store = self.transfer(Opcode.STORE, count=words)
                    out.append(replace(store, column=column, src=out[-1].dst))
            elif kind == "moved":
                out.extend(self.moved_weights())
            elif kind == "copy":
                out.extend(self.there_and_back())
            elif kind == "fence":
                out.append(Instruction(opcode=Opcode.FENCE))
            else:
                out.append(self.transfer(Opcode[kind.upper()]))
        return [*out, *self.all_columns(Opcode.STORE), HALT]

    def write(self, instructions: list[Instruction]) -> int:
        """Put a program into memory; its address."""
        data = isa.encode_program(instructions, self.config)
        slot = self.config.slot_bytes
        address = int(self.rng.integers(0, (DATA - PROGRAM - len(data)) // slot)) * slot
        self.memory[address : address + len(data)] = np.frombuffer(data, np.uint8)
        return address


class Bench:
    """The accelerator, its host and its memory; and the golden machine with a memory like it."""

    def __init__(self, run: Run):
        self.run, self.dut, self.config = run, run.dut, CONFIGS[run.part]
        self.memory = Memory(MEMORY, run.rng)
        self.author = Author(run.rng, self.config, self.memory.bytes)
        self.golden = Machine(self.memory.bytes.copy(), self.config)

    async def start(self, pace: float = 0, longest: int = 8, *, interleaved: bool = False) -> None:
        run, dut = self.run, self.dut
        inputs = ("arready", "rvalid", "awready", "wready", "bvalid")
        await run.start(**{f"m_axi_{name}": 0 for name in inputs})
        read = AxiReadBus.from_prefix(*dut.prefix("m_axi"))
        write = AxiWriteBus.from_prefix(*dut.prefix("m_axi"))
        common = {"target": self.memory}
        if interleaved:
            self.reads = InterleavedReads(run.rng, read, dut.clk, dut.rst, **common)
        else:
            self.reads = AxiSlaveRead(read, dut.clk, dut.rst, **common)
        self.writes = AxiSlaveWrite(write, dut.clk, dut.rst, **common)
        self.channels = {
            "ar": self.reads.ar_channel,
            "r": self.reads.r_channel,
            "aw": self.writes.aw_channel,
            "w": self.writes.w_channel,
            "b": self.writes.b_channel,
        }
        for channel in self.channels.values():
            channel.set_pause_generator(run.stalls(pace, longest) if pace else None)
        self.host = Host(run, AxiLiteBus.from_prefix(*dut.prefix("s_axi")), pace / 2)
        await self.host.write("INTERRUPT", 1)

    async def begin(self, program: int) -> None:
        await self.host.write("PROGRAM", program)
        await self.host.write("CONTROL", 1)

    async def stopped(self) -> tuple[ErrorCode, int]:
        """Wait for the interrupt; error code and address."""
        if not int(self.dut.irq.value):
            await RisingEdge(self.dut.irq)
        status = await self.host.read("STATUS")
        code = ErrorCode(status >> 8)
        flags = 2 if code == ErrorCode.NONE else 4
        self.run.check(status & 0xFF, flags, "STATUS: neither busy, nor both done and failed")
        return code, await self.host.read("ERROR_ADDRESS")

    async def beats_of(self, client: str, count: int) -> None:
        """Wait until some beats for a client of the read channel have come."""
        dut, identity = self.dut, READ_CLIENTS.index(client)
        while count:
            await RisingEdge(dut.clk)
            valid, ready = int(dut.m_axi_rvalid.value), int(dut.m_axi_rready.value)
            count -= valid and ready and int(dut.m_axi_rid.value) == identity

    def expect(self, program: int) -> RunResult:
        """What the golden machine makes of the memory as it is now."""
        self.golden.memory[:] = self.memory.bytes
        return self.golden.run(program)

    async def check_run(self, program: int) -> RunResult:
        """Run on both, and compare the end, the memory and the counters."""
        before = self.memory.bytes.view("<u4").copy()
        want = self.expect(program)
        await self.begin(program)
        code, address = await self.stopped()
        self.run.check([code, address], [want.error, want.error_address], "error and address")
        if want.error == ErrorCode.NONE:
            self.check_memory(before)
            await self.check_counters(program, want)
        return want

    def check_memory(self, before: np.ndarray) -> None:
        """Each word that the program changes counts as a check, all the others as one."""
        got, want = self.memory.bytes.view("<u4"), self.golden.memory.view("<u4")
        changed = want != before
        self.run.check(got[changed], want[changed], "words of memory that were written")
        same = np.array_equal(got[~changed], want[~changed])
        self.run.check(same, True, "the other words are as before")

    async def check_counters(self, program: int, want: RunResult) -> None:
        got = {name: await self.host.counter(name) for name in isa.COUNTERS}
        config, check = self.config, self.run.check
        for name in ("read_weights", "written", "slices", "column_slices"):
            check(got[name], getattr(want, name), f"counter {name}")
        slot = config.slot_bytes
        size = want.instructions * slot
        data = self.memory.bytes[program : program + size].tobytes()
        decoded = [isa.decode(data[at : at + slot]) for at in range(0, size, slot)]
        loaded = sum(i.count for i in decoded if i.opcode is Opcode.LOAD)
        check(got["read_other"], loaded + size // config.bus_bytes, "counter read_other")
        units = got["matmul"] + got["load"] + got["store"]
        check(0 < units <= got["cycles"], True, "cycles of units within all cycles")
        matmul = got["slices"] + got["stall_weights"] + got["stall_drain"]
        check(matmul <= got["matmul"], True, "slices and stalls within cycles of MATMUL")

    def random_program(self, length: int) -> int:
        self.author.fill()
        return self.author.write(self.author.program(length))

    async def check_random(self, length: int) -> None:
        want = await self.check_run(self.random_program(length))
        assert want.error == ErrorCode.NONE, f"a random program is wrong: {want}"


@bench_test(limit=80_000, part=list(CONFIGS), pace=PACES)
async def random_programs(run: Run, pace: float) -> None:
    """Several programs, one after the other, without a reset."""
    bench = Bench(run)
    await bench.start(pace)
    cocotb.start_soon(watch_handshakes(run, "m_axi_"))
    for _ in range(3):
        await bench.check_random(length=12)


@bench_test(limit=80_000, part=list(CONFIGS))
async def interleaved_memory(run: Run) -> None:
    """The memory mixes the beats of fetch, loads and weights, as AXI allows."""
    bench = Bench(run)
    await bench.start(0.3, interleaved=True)
    await bench.check_random(length=16)


@bench_test(limit=60_000, part=list(CONFIGS))
async def many_small_tiles(run: Run) -> None:
    """Tiles of few slices: the array waits for its bins all the time."""
    bench = Bench(run)
    author, config = bench.author, bench.config
    await bench.start()
    author.fill()
    most = config.scratch_words // 2 * config.results_per_word // config.rows
    program = list(author.all_columns(Opcode.LOAD))
    for k in (1, 2, 3, 5, 7, 11):
        program.append(author.matmul(k=k, tiles=min(most, 40)))
        words = program[-1].count * config.rows // config.results_per_word
        for column in range(program[-1].column):
            store = author.transfer(Opcode.STORE, count=words)
            program.append(replace(store, column=column, src=program[-1].dst))
    await bench.check_run(author.write([*program, HALT]))


@bench_test(limit=20_000, part=list(CONFIGS))
async def longest_dot_products(run: Run) -> None:
    """As many terms as the accumulators are made for."""
    bench = Bench(run)
    author, config = bench.author, bench.config
    await bench.start(0.1)
    author.fill()
    room = config.scratch_words - isa.block_words(config.max_k, config)
    tiles = min(2, room * config.results_per_word // config.rows)
    assert tiles, "no room for results beside the longest activations"
    matmul = replace(author.matmul(k=config.max_k, tiles=tiles), column=config.cols)
    program = [*author.all_columns(Opcode.LOAD), matmul, *author.all_columns(Opcode.STORE), HALT]
    await bench.check_run(author.write(program))


@bench_test(limit=80_000, part=list(CONFIGS))
async def reset_under_way(run: Run) -> None:
    """A reset at any time leaves a machine that works; registers are as after power-up."""
    bench = Bench(run)
    await bench.start(0.2)
    for _ in range(8):
        await bench.begin(bench.random_program(6))
        await ClockCycles(run.dut.clk, int(run.rng.integers(20, 1200)))
        await run.reset()
        for name in ("STATUS", "ERROR_ADDRESS", "PROGRAM", "WATCHDOG", "INTERRUPT"):
            run.check(await bench.host.read(name), 0, f"{name} after the reset")
        await bench.host.write("INTERRUPT", 1)
    await bench.check_random(length=6)


def illegal_instructions(config: AccelConfig) -> Iterator[bytes]:
    """Every rule that `golden.isa` has, broken by one instruction each."""
    depth, bus = config.scratch_words, config.bus_bytes
    matmul = Instruction(opcode=Opcode.MATMUL, column=1, address=WEIGHTS, count=1, k=4, dst=8)
    load = Instruction(opcode=Opcode.LOAD, address=DATA, count=2)
    store = Instruction(opcode=Opcode.STORE, address=DATA, count=2)
    tile_words = config.rows // config.results_per_word
    for broken in (
        replace(matmul, flags=2),
        replace(matmul, flags=0x80),
        replace(matmul, column=0),
        replace(matmul, column=config.cols + 1),
        replace(matmul, address=WEIGHTS + bus // 2),
        replace(matmul, count=0),
        replace(matmul, k=0),
        replace(matmul, k=config.max_k + 1),
        replace(matmul, k=0xFFFF),
        replace(matmul, src=depth - 1),
        replace(matmul, src=0xFFFF),
        replace(matmul, dst=depth - tile_words + 1),
        replace(matmul, dst=0xFFFF),
        replace(matmul, count=depth // tile_words + 1, dst=0),
        replace(matmul, count=0xFFFF, dst=0),
        replace(load, flags=1),
        replace(load, column=config.cols),
        replace(load, column=255),
        replace(load, shift=-1),
        replace(load, address=DATA + 1),
        replace(load, count=0),
        replace(load, k=1),
        replace(load, src=1),
        replace(load, dst=depth - 1),
        replace(load, dst=0xFFFF, count=0xFFFF),
        replace(store, flags=1),
        replace(store, column=config.cols),
        replace(store, shift=1),
        replace(store, address=DATA + bus - 1),
        replace(store, count=0),
        replace(store, k=1),
        replace(store, dst=1),
        replace(store, src=depth - 1),
    ):
        yield broken.encode()
    if config.addr_bits < 32:
        for instruction in (matmul, load, store):
            yield replace(instruction, address=1 << config.addr_bits).encode()
    for opcode in (0, 6, 0x81, 0xFF):
        yield bytes([opcode]).ljust(32, b"\0")
    for opcode in Opcode:
        for word in (1, 2, 3, 4, 5, 6, 7):
            if word >= 4 or opcode in (Opcode.FENCE, Opcode.HALT):
                yield bytes([opcode]).ljust(4 * word, b"\0").ljust(32, b"\1")


@bench_test(limit=80_000, part=list(CONFIGS))
async def illegal_instruction(run: Run) -> None:
    """Each stops the machine, with its address; what comes before it is done, and no more."""
    bench = Bench(run)
    author, slot = bench.author, bench.config.slot_bytes
    await bench.start()
    for broken in illegal_instructions(bench.config):
        author.fill()
        before = int(run.rng.integers(0, 3))
        good = [author.transfer(Opcode.LOAD, count=2) for _ in range(before)]
        program = author.write([*good, HALT, HALT])
        place = program + before * slot
        bench.memory.bytes[place : place + 32] = np.frombuffer(broken, np.uint8)
        want = await bench.check_run(program)
        run.check(want.error, ErrorCode.ILLEGAL_INSTRUCTION, f"{broken.hex()} in the golden model")
        run.check(want.error_address, place, f"{broken.hex()} in the golden model")
    await bench.check_random(length=4)


@bench_test(limit=150_000, part=list(CONFIGS))
async def nearly_legal_instructions(run: Run) -> None:
    """One random field of a legal instruction changed: both machines judge it alike."""
    bench = Bench(run)
    author, config = bench.author, bench.config
    await bench.start()
    # Any address may become a weight stream: let all of the memory hold valid codes.
    bench.memory.bytes[:] = run.rng.choice(author.codes, MEMORY)
    await bench.check_run(author.write([*author.all_columns(Opcode.LOAD), HALT]))
    edges = [0, 1, config.scratch_words, config.max_k, config.cols]
    seen = dict.fromkeys(ErrorCode, 0)
    for _ in range(60):
        author.free = WEIGHTS
        kind = run.rng.integers(3)
        if kind == 0:
            good = replace(author.matmul(tiles=1), src=0, dst=config.scratch_words // 2)
        else:
            good = author.transfer(Opcode.LOAD if kind == 1 else Opcode.STORE)
        name = str(run.rng.choice(list(isa.FIELDS)))
        first, width, _ = isa.FIELDS[name]
        value = int(run.rng.choice(edges)) + int(run.rng.integers(-2, 3))
        if run.rng.random() < 0.3:
            value = getattr(good, name) ^ 1 << int(run.rng.integers(width))
        mask = (1 << width) - 1
        word = int.from_bytes(good.encode(), "little") & ~(mask << first) | (value & mask) << first
        program = author.write([HALT, HALT])
        changed = np.frombuffer(word.to_bytes(32, "little"), np.uint8)
        bench.memory.bytes[program : program + 32] = changed
        if overlaps(changed.tobytes(), config):
            continue
        want = await bench.check_run(program)
        seen[want.error] += 1
    assert seen[ErrorCode.NONE] and seen[ErrorCode.ILLEGAL_INSTRUCTION], seen


def overlaps(data: bytes, config: AccelConfig) -> bool:
    """Whether a MATMUL writes results over its activations, which has no defined outcome."""
    try:
        i = isa.decode(data)
    except isa.IllegalInstruction:
        return False
    words_in = isa.block_words(i.k, config)
    words_out = i.count * config.rows // config.results_per_word
    disjoint = i.src + words_in <= i.dst or i.dst + words_out <= i.src
    return i.opcode is Opcode.MATMUL and not disjoint


@bench_test(limit=80_000, part=SHORT)
async def invalid_weight(run: Run) -> None:
    """One bad byte anywhere among the codes of a stream stops the machine at its MATMUL."""
    bench = Bench(run)
    author, config, memory = bench.author, bench.config, bench.memory.bytes
    bad = np.setdiff1d(np.arange(256), author.codes)
    await bench.start(0.2)
    for _ in range(12):
        author.fill()
        program = [*author.all_columns(Opcode.LOAD), author.matmul(), author.matmul(), HALT]
        victim = program[-2 - int(run.rng.integers(2))]
        slices = isa.tile_slices(victim.k, victim.flags, config)
        tile, k = int(run.rng.integers(victim.count)), int(run.rng.integers(1, victim.k + 1))
        row = int(run.rng.integers(config.rows))
        place = victim.address + ((tile + 1) * slices - k) * config.rows + row
        memory[place] = run.rng.choice(bad)
        want = await bench.check_run(author.write(program))
        run.check(want.error, ErrorCode.INVALID_WEIGHT, "error of the golden model")
    await bench.check_random(length=4)


@bench_test(limit=80_000, part=SHORT, response=[AxiResp.SLVERR, AxiResp.DECERR])
async def memory_errors(run: Run, response: AxiResp) -> None:
    """A word that the memory refuses stops the machine at the instruction that needs it."""
    bench = Bench(run)
    author, config, broken = bench.author, bench.config, bench.memory.broken
    await bench.start(0.2)
    answer_errors_with(bench.reads.r_channel, response)
    answer_errors_with(bench.writes.b_channel, response)
    for unit in ("fetch", "load", "weights", "store") * 3:
        author.fill()
        program = [
            author.transfer(Opcode.LOAD),
            *author.all_columns(Opcode.LOAD),
            author.matmul(),
            # Away from what is loaded, which must not fail.
            replace(author.transfer(Opcode.STORE, count=20), address=0xC000),
            HALT,
        ]
        start = author.write(program)
        at = {"fetch": int(run.rng.integers(len(program))), "load": 0, "weights": -3, "store": -2}
        index = at[unit] % len(program)
        if unit == "fetch":
            address, size = start + index * config.slot_bytes, config.slot_bytes
        elif unit == "weights":
            address = program[index].address
            size = isa.stream_beats(program[index], config) * config.bus_bytes
        else:
            address, size = program[index].address, program[index].count * config.bus_bytes
        broken[address + int(run.rng.integers(size))] = True
        await bench.begin(start)
        want = ErrorCode.BUS_WRITE if unit == "store" else ErrorCode.BUS_READ
        got = await bench.stopped()
        run.check(got, [want, start + index * config.slot_bytes], f"error and address, {unit}")
        broken[:] = False
        await bench.check_random(length=1)


@bench_test(limit=60_000, part=list(CONFIGS))
async def beyond_the_memory(run: Run) -> None:
    """Programs, data and weights that run past the end of the memory, as the golden model says."""
    bench = Bench(run)
    author, config = bench.author, bench.config
    await bench.start()
    last = MEMORY - config.bus_bytes
    valid = author.weights(3, 1, bias=False)[: config.bus_bytes]
    for instruction in (
        replace(author.transfer(Opcode.LOAD, count=3), address=last),
        replace(author.transfer(Opcode.STORE, count=3), address=last),
        replace(author.matmul(k=60, tiles=1), address=last),
        replace(author.transfer(Opcode.LOAD, count=3), address=MEMORY),
        replace(author.transfer(Opcode.STORE, count=1), address=MEMORY),
    ):
        bench.memory.bytes[last:] = np.frombuffer(valid, np.uint8)
        want = await bench.check_run(author.write([instruction, HALT]))
        run.check(want.error != ErrorCode.NONE, True, f"{instruction} fails in the golden model")
    # A program without an end.
    slots = 3
    start = MEMORY - slots * config.slot_bytes
    fences = isa.encode_program([Instruction(opcode=Opcode.FENCE)] * slots, config)
    bench.memory.bytes[start:] = np.frombuffer(fences, np.uint8)
    want = await bench.check_run(start)
    run.check(want.error_address, MEMORY, "address in the golden model")
    await bench.check_random(length=4)


@bench_test(limit=60_000, part=SHORT)
async def watchdog(run: Run) -> None:
    """A channel of the memory falls silent. The machine gives up, waits until the bus has answered
    what it owes, and stops; then it works again."""
    bench = Bench(run)
    author, config, dut = bench.author, bench.config, run.dut
    await bench.start()
    await bench.host.write("WATCHDOG", 100)
    # The channel, the read client whose beats must have come before, and who is stuck then.
    for silent, client, stuck in (
        ("ar", "", 0),
        ("r", "", 0),
        ("r", "load", 1),
        ("r", "weights", 3),
        ("aw", "", 4),
        ("w", "", 4),
        ("b", "", 4),
    ):
        author.fill()
        program = [
            author.transfer(Opcode.LOAD, count=1),
            author.transfer(Opcode.LOAD, count=100),
            Instruction(opcode=Opcode.FENCE),
            author.matmul(k=60, tiles=7),
            author.transfer(Opcode.STORE, count=30),
            HALT,
        ]
        start = author.write(program)
        if not client:
            bench.channels[silent].pause = True
        await bench.begin(start)
        if client:
            await bench.beats_of(client, 10)
            bench.channels[silent].pause = True
        # Programs as short as this take less than 1000 cycles, the watchdog not included.
        await ClockCycles(dut.clk, 1500)
        run.check(int(dut.irq.value), 0, f"interrupt while {silent} is silent")
        run.check(await bench.host.read("STATUS"), 0x501 | 4, "STATUS while a word is owed")
        bench.channels[silent].pause = False
        got = await bench.stopped()
        want = [ErrorCode.WATCHDOG, start + stuck * config.slot_bytes]
        run.check(got, want, f"error and address, {silent} silent after {client or 'the start'}")
        await bench.check_random(length=2)


@bench_test(limit=300_000, part=["one_bin", "wide_bus"])
async def abort(run: Run) -> None:
    """The host stops the machine, in any cycle of a program; the next run is right."""
    bench = Bench(run)
    author, dut = bench.author, run.dut
    await bench.start()
    await bench.check_random(length=1)  # both scratchpads are now alike
    author.fill()
    matmul = author.matmul(k=2, tiles=1)
    words = bench.config.rows // bench.config.results_per_word
    store = replace(author.transfer(Opcode.STORE, count=words), column=0, src=matmul.dst)
    load = author.transfer(Opcode.LOAD, count=1)
    program = [load, Instruction(opcode=Opcode.FENCE), matmul, store, HALT]
    start = author.write(program)
    places = [start + index * bench.config.slot_bytes for index in range(len(program))]
    seen = []
    for delay in range(1000):
        await bench.begin(start)
        await ClockCycles(dut.clk, delay + 1)
        write = cocotb.start_soon(bench.host.write("CONTROL", 2))
        await RisingEdge(dut.s_axi_wvalid)
        await RisingEdge(dut.clk)
        late = bool(int(dut.irq.value))
        await write
        code, address = await bench.stopped()
        run.check(code, ErrorCode.NONE if late else ErrorCode.ABORTED, f"error, delay {delay}")
        if late:
            break
        seen.append(address)
        if delay % 4 == 0:
            await bench.check_run(start)
    run.check(late, True, "the last program was let finish")
    run.check(np.unique(seen), places, "addresses that were stopped at")
    run.check(seen, np.sort(seen), "addresses in the order of the program")


@bench_test(limit=20_000, part=SHORT, unit=["ar", "aw"])
async def abort_begins_nothing(run: Run, unit: str) -> None:
    """After an abort, bursts that were on their way to the bus come through, and no others."""
    bench = Bench(run)
    author, dut = bench.author, run.dut
    await bench.start(0.5)
    cocotb.start_soon(watch_handshakes(run, "m_axi_"))
    author.fill()
    transfer = author.transfer(Opcode.LOAD if unit == "ar" else Opcode.STORE, count=120)
    start = author.write([transfer, HALT])
    bursts = 0

    async def watch() -> None:
        nonlocal bursts
        while True:
            await RisingEdge(dut.clk)
            valid, ready = getattr(dut, f"m_axi_{unit}valid"), getattr(dut, f"m_axi_{unit}ready")
            bursts += int(valid.value) and int(ready.value)

    await bench.begin(start)
    await RisingEdge(dut.m_axi_awvalid if unit == "aw" else dut.m_axi_rvalid)
    await ClockCycles(dut.clk, 50)
    await bench.host.write("CONTROL", 2)
    cocotb.start_soon(watch())
    got = await bench.stopped()
    run.check(got, [ErrorCode.ABORTED, start], "error and address")
    run.check(bursts <= 1, True, "at most the burst whose address was already there")
    await bench.check_random(length=2)
