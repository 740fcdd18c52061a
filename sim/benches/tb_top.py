"""The whole accelerator against the golden machine: programs, errors, resets.

The host writes registers over AXI4-Lite; the memory is a model of cocotbext-axi with random pauses
on every channel. After a run, all of the memory must be as the golden machine leaves it.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from cocotb.triggers import RisingEdge
from cocotbext.axi import (
    AxiLiteBus,
    AxiReadBus,
    AxiSlaveRead,
    AxiSlaveWrite,
    AxiWriteBus,
)

from golden import isa
from golden.config import AccelConfig, get_config
from golden.isa import ErrorCode, Flag, Instruction, Opcode
from golden.machine import Machine, RunResult
from golden.rf8 import is_valid
from hw.top import Accelerator
from sim.benches.harness import Host, InterleavedReads, Memory, Run, bench_test

SMALL = get_config("tiny").replace(scratch_words=128, max_k=96)
CONFIGS = {
    config.name: config
    for config in (
        get_config("tiny"),
        SMALL.replace(name="one_bin", align=4, bus_bytes=8, act_bits=8, cols=1, burst_beats=16),
        SMALL.replace(name="wide_bus", align=0, span=8, bus_bytes=16, cols=3, addr_bits=20),
        SMALL.replace(name="eight_rows", align=3, span=12, rows=8, bus_bytes=8, fifo_beats=16),
        SMALL.replace(name="short_queue", align=1, span=10, rows=8, bus_bytes=16, queue=2),
    )
}
CONFIGURATIONS = f"{len(CONFIGS)} machines: 4 and 8 rows, 1 to 3 columns, 4 to 16 bus bytes"
PACES = [0, 0.3, 0.7]

MEMORY = 1 << 16
PROGRAM, DATA, WEIGHTS = 0x0000, 0x2000, 0x6000  # where these areas begin


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
        assert self.free <= MEMORY, "the program needs more memory for weights"
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
        longest = min(config.max_k, 96)
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

    def all_columns(self, opcode: Opcode) -> Iterator[Instruction]:
        """Load or store all of the scratchpad."""
        words = self.config.scratch_words
        for column in range(self.config.cols):
            address = DATA + column * (words // 4) * self.config.bus_bytes
            if opcode is Opcode.STORE:  # behind the other areas
                address = MEMORY - (column + 1) * words * self.config.bus_bytes
            yield Instruction(opcode=opcode, column=column, address=address, count=words)

    def program(self, length: int) -> list[Instruction]:
        """Loads the scratchpad, does this and that, stores results here and there, and halts."""
        rng, out = self.rng, list(self.all_columns(Opcode.LOAD))
        for _ in range(length):
            kind = rng.choice(
                ["matmul", "load", "store", "fence", "moved"], p=[0.5, 0.15, 0.2, 0.05, 0.1]
            )
            if kind == "matmul":
                out.append(self.matmul())
                if rng.random() < 0.7:  # see the results before they are gone
                    words = out[-1].count * self.config.rows // self.config.results_per_word
                    column = int(rng.integers(out[-1].column))
                    store = self.transfer(Opcode.STORE, count=words)
                    out.append(replace(store, column=column, src=out[-1].dst))
            elif kind == "moved":
                out.extend(self.moved_weights())
            elif kind == "fence":
                out.append(Instruction(opcode=Opcode.FENCE))
            else:
                out.append(self.transfer(Opcode[kind.upper()]))
        return [*out, Instruction(opcode=Opcode.HALT)]

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

    def expect(self, program: int) -> RunResult:
        """What the golden machine makes of the memory as it is now."""
        self.golden.memory[:] = self.memory.bytes
        return self.golden.run(program)

    async def check_run(self, program: int) -> RunResult:
        """Run on both, and compare the end, the memory and the counters."""
        want = self.expect(program)
        await self.begin(program)
        code, address = await self.stopped()
        self.run.check([code, address], [want.error, want.error_address], "error and address")
        if want.error == ErrorCode.NONE:
            words = "<u4"
            self.run.check(self.memory.bytes.view(words), self.golden.memory.view(words), "memory")
            await self.check_counters(program, want)
        return want

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
    await bench.check_run(author.write([*program, Instruction(opcode=Opcode.HALT)]))
