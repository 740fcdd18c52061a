"""The whole accelerator beside the golden machine: what writes programs, and what runs them.

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
from golden.config import AccelConfig
from golden.format import in_span
from golden.interface import RunResult
from golden.isa import After, ErrorCode, Flag, Function, Instruction, Opcode, Output
from golden.machine import GoldenMachine
from golden.registers import COUNTERS
from golden.stream import stream_beats
from hw.control.prefetch import buffer_beats
from hw.memory.axi import READ_CLIENTS
from sim.benches.harness import Host, InterleavedReads, Memory, Run
from sim.benches.instructions import fate, random_place
from sim.benches.vectors import random_vector

MEMORY = 1 << 17
PROGRAM, DATA, WEIGHTS = 0x0000, 0x2000, 0x6000  # where these areas begin


HALT = Instruction(opcode=Opcode.HALT)


class Author:
    """Writes random programs, and the weight streams that they use, into a memory.

    Programs keep what the instruction set asks of them: memory that a STORE writes is a weight
    stream only after a FENCE. They are for the ``position`` and the ``tokens`` that `settle` has
    chosen.
    """

    def __init__(self, rng: np.random.Generator, config: AccelConfig, memory: np.ndarray):
        self.rng, self.config, self.memory = rng, config, memory
        codes = np.arange(256, dtype=np.uint8)
        self.codes = codes[in_span(codes, config.span)]
        self.free = WEIGHTS
        self.position, self.tokens = 0, [0] * config.cols
        # What the scratchpad holds in the end goes behind all the rest.
        self.results = MEMORY - config.cols * config.scratch_words * config.bus_bytes

    def settle(self) -> None:
        """Another position, other tokens; often where a lane, a word or a tile ends."""
        rng, top = self.rng, 1 << 24
        edge = int(rng.integers(1, 5)) * self.config.bus_bytes - int(rng.integers(0, 3))
        self.position = int(rng.choice([0, edge, *rng.integers(0, 90, 3), top - 1]))
        tokens = rng.choice([0, 1, edge, *rng.integers(0, 3000, 4), top - 1], self.config.cols)
        self.tokens = [int(token) for token in tokens]

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
        return random_place(self.rng, words, self.config)

    def matmul(self, *, k: int | None = None, tiles: int | None = None) -> Instruction:
        rng, config = self.rng, self.config
        longest = min(config.max_k, 96)  # what goes quickly
        k = k or int(rng.choice([1, 2, 3, 8, longest, *rng.integers(1, longest + 1, 5)]))
        tiles = tiles or int(rng.choice([1, 1, 2, 3, 7]))
        column = int(rng.integers(1, config.cols + 1))
        return self.product(Instruction(opcode=Opcode.MATMUL, column=column, count=tiles, k=k))

    def product(self, i: Instruction) -> Instruction:
        """A MATMUL of the given columns, lengths and flags, and its stream, as much as is used."""
        rng, config = self.rng, self.config
        flags = i.flags | (Flag.BIAS if rng.random() < 0.5 else 0)
        length = self.position + i.column
        tiles = -(-length // config.rows) if flags & Flag.LENGTH else i.count
        k = length if flags & Flag.LENGTH_K else i.k
        stream = self.weights(k, tiles, bool(flags & Flag.BIAS))
        address = self.allocate(len(stream))
        self.memory[address : address + len(stream)] = np.frombuffer(stream, np.uint8)
        words_in = isa.block_words(i.k, config)
        words_out = i.count * config.rows // config.results_per_word
        while True:
            src, dst = self.place(words_in), self.place(words_out)
            if src + words_in <= dst or dst + words_out <= src:
                break
        shift = int(rng.integers(-35, 5)) if rng.random() < 0.9 else int(rng.integers(-128, 128))
        return replace(i, flags=flags, shift=shift, address=address, src=src, dst=dst)

    def lengths(self) -> Instruction:
        """A MATMUL or LOAD with room for as much as there is; a plain one at far positions."""
        rng, config = self.rng, self.config
        spare = int(rng.integers(0, 3))
        if self.position > 90:
            return self.transfer(Opcode.LOAD)
        if rng.random() < 0.3:
            column = int(rng.integers(config.cols))
            length = self.position + column + 1
            count = isa.vector_words(length, config) + spare
            return replace(
                self.transfer(Opcode.LOAD, count=count), flags=Flag.LENGTH, column=column
            )
        column = int(rng.integers(1, config.cols + 1))
        length = self.position + column
        i = Instruction(opcode=Opcode.MATMUL, column=column, count=1 + spare, k=1 + spare)
        if rng.random() < 0.6:
            count = -(-length // config.rows) + spare
            i = replace(i, flags=i.flags | Flag.LENGTH, count=count)
        if length <= config.max_k and rng.random() < 0.6:
            k = min(length + spare, config.max_k)
            i = replace(i, flags=i.flags | Flag.LENGTH_K, k=k)
        return self.product(i)

    def indexed(self, opcode: Opcode) -> Instruction:
        """A LOAD or STORE whose place in the data area follows from position or token."""
        rng, config, bus = self.rng, self.config, self.config.bus_bytes
        column, by_byte = int(rng.integers(config.cols)), isa.exact_log2(bus)
        flag, index, shift = Flag.INDEX, self.position + column, by_byte
        if opcode is Opcode.STORE:
            shift = int(rng.choice([0, isa.exact_log2(config.results_per_word), by_byte]))
        elif rng.random() < 0.5:
            flag, index = Flag.TOKEN, self.tokens[column]
        plain = self.transfer(opcode, count=int(rng.integers(1, 50)))
        steps = index >> shift
        most = min(0xFFFF, plain.address // bus // steps) if steps else 0xFFFF
        k = int(rng.choice([most, rng.integers(0, most + 1)]))
        i = replace(
            plain, flags=flag, column=column, shift=shift, k=k,
            address=plain.address - steps * k * bus,
            immediate=index + 1 + int(rng.choice([0, rng.integers(1000)])),
        )  # fmt: skip
        word = self.place(isa.moved_words(i, config))
        return replace(i, **{"dst" if opcode is Opcode.LOAD else "src": word})

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
        count = stream_beats(matmul, self.config)
        target = self.allocate(count * self.config.bus_bytes)
        via = {"column": int(self.rng.integers(self.config.cols)), "count": count}
        word = self.place(count)
        yield Instruction(opcode=Opcode.LOAD, address=matmul.address, dst=word, **via)
        yield Instruction(opcode=Opcode.STORE, address=target, src=word, **via)
        yield Instruction(opcode=Opcode.FENCE)
        yield replace(matmul, address=target)

    def chain(self) -> Iterator[Instruction]:
        """MATMULs for as many columns each: some may begin before the results of others are there,
        some may not."""
        column = int(self.rng.integers(1, self.config.cols + 1))
        before = None
        for _ in range(int(self.rng.integers(2, 6))):
            matmul = replace(self.matmul(), column=column)
            words_in = isa.block_words(matmul.k, self.config)
            results = matmul.count * self.config.rows // self.config.results_per_word
            if before is not None and self.rng.random() < 0.5:  # the results of the one before
                src = before.dst
                fits = src + words_in <= self.config.scratch_words
                if fits and (src + words_in <= matmul.dst or matmul.dst + results <= src):
                    matmul = replace(matmul, src=src)
            yield matmul
            before = matmul

    def there_and_back(self) -> Iterator[Instruction]:
        """A STORE, and a LOAD of what it has written."""
        store = self.transfer(Opcode.STORE, count=int(self.rng.integers(1, 40)))
        yield store
        column, word = int(self.rng.integers(self.config.cols)), self.place(store.count)
        yield replace(store, opcode=Opcode.LOAD, column=column, src=0, dst=word)

    def known(self) -> Iterator[Instruction]:
        """Loads all of the scratchpad, and sets the registers of the vector unit."""
        yield from self.all_columns(Opcode.LOAD)
        yield from self.registers()

    def registers(self) -> Iterator[Instruction]:
        """Sets all registers of the vector unit, which an error leaves as they may be."""
        for after in (After.RECIPROCAL, After.LIFT):
            yield Instruction(
                opcode=Opcode.VECTOR, function=Function.SHIFT, after=after, output=Output.NONE,
                column=self.config.cols, segments=isa.SEGMENTS, count=1, k=32,
            )  # fmt: skip

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
        self.settle()
        rng, out = self.rng, list(self.known())
        kinds = {
            "matmul": 0.15,
            "chain": 0.1,
            "lengths": 0.15,
            "vector": 0.2,
            "load": 0.05,
            "store": 0.08,
            "indexed": 0.1,
            "fence": 0.05,
            "moved": 0.08,
            "copy": 0.04,
        }
        for _ in range(length):
            kind = str(rng.choice(list(kinds), p=list(kinds.values())))
            if kind in ("matmul", "lengths"):
                out.append(self.matmul() if kind == "matmul" else self.lengths())
                if out[-1].opcode is Opcode.MATMUL and rng.random() < 0.7:
                    # See the results before they are gone.
                    words = out[-1].count * self.config.rows // self.config.results_per_word
                    column = int(rng.integers(out[-1].column))
                    store = self.transfer(Opcode.STORE, count=words)
                    out.append(replace(store, column=column, src=out[-1].dst))
            elif kind == "chain":
                out.extend(self.chain())
            elif kind == "vector":
                out.append(random_vector(rng, self.config, self.position))
            elif kind == "indexed":
                out.append(self.indexed(Opcode.LOAD if rng.random() < 0.5 else Opcode.STORE))
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

    def __init__(self, run: Run, config: AccelConfig):
        self.run, self.dut, self.config = run, run.dut, config
        self.memory = Memory(MEMORY, run.rng)
        self.author = Author(run.rng, self.config, self.memory.bytes)
        self.golden = GoldenMachine(self.memory.bytes.copy(), self.config)

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
        """Start a program at the author's position and tokens."""
        await self.host.write("PROGRAM", program)
        await self.host.write("POSITION", self.author.position)
        await self.host.write("TOKEN_COLUMN", 0)
        for token in self.author.tokens:
            await self.host.write("TOKEN", token)
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
        return self.golden.run(program, self.author.position, self.author.tokens)

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
        got = {name: await self.host.counter(name) for name in COUNTERS}
        config, check = self.config, self.run.check
        for name in ("read_weights", "written", "slices", "column_slices", "saturated"):
            check(got[name], want.counters[name], f"counter {name}")
        slot = config.slot_bytes
        size = want.counters["instructions"] * slot
        data = self.memory.bytes[program : program + size].tobytes()
        loaded = 0
        for at in range(0, size, slot):
            i = fate(data[at : at + slot], self.author.position, self.author.tokens, config)
            if i.instruction and i.instruction.opcode is Opcode.LOAD:
                loaded += i.instruction.count
        needed = loaded + size // config.bus_bytes
        ahead = got["read_other"] - needed
        check(0 <= ahead <= buffer_beats(config), True, "counter read_other")
        units = sum(got[name] for name in ("matmul", "load", "store", "vector"))
        check(0 < units <= got["cycles"], True, "cycles of units within all cycles")
        matmul = got["slices"] + got["stall_weights"] + got["stall_drain"]
        check(matmul <= got["matmul"], True, "slices and stalls within cycles of MATMUL")

    def random_program(self, length: int) -> int:
        self.author.fill()
        return self.author.write(self.author.program(length))

    async def check_random(self, length: int) -> None:
        want = await self.check_run(self.random_program(length))
        assert want.error == ErrorCode.NONE, f"a random program is wrong: {want}"
