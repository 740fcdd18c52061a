"""Instruction fetch: reading ahead, legality, positions, streams and fences.

The fetch stands alone: a memory answers its bursts, and a consumer takes entries and streams.
"""

from collections import deque
from dataclasses import replace

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge

from golden import isa
from golden.config import AccelConfig, get_config
from golden.isa import Flag, Instruction, Opcode
from hw.control.entry import Entry
from hw.control.fetch import InstructionFetch
from hw.control.prefetch import buffer_beats, burst_beats
from hw.memory.weight_fetch import Descriptor
from sim.benches.harness import Run, bench_test
from sim.benches.instructions import (
    Fate,
    changed,
    fate,
    illegal_instructions,
    random_instruction,
    random_matmul,
    random_move,
    random_vector_fields,
)

SMALL = get_config("tiny").replace(scratch_words=128, max_k=96)
CONFIGS = {
    config.name: config
    for config in (
        get_config("tiny"),
        get_config("ecp5"),
        get_config("sim"),
        SMALL.replace(name="short_bursts", burst_beats=1, rows=8, bus_bytes=8, cols=1, act_bits=8),
        SMALL.replace(name="few_rows", rows=2, bus_bytes=8, cols=16, addr_bits=20),
        SMALL.replace(
            name="wide_bus", rows=32, bus_bytes=128, cols=3, fifo_beats=64, burst_beats=32
        ),
    )
}
CONFIGURATIONS = f"{len(CONFIGS)} machines: buses of 4 to 128 bytes, bursts of 1 to 64 beats"

SIZE = 1 << 16
HALT = Instruction(opcode=Opcode.HALT)


def parts():
    return {name: InstructionFetch(config) for name, config in CONFIGS.items()}


class Bench:
    """The fetch with a memory that holds programs, and nothing else that is no error to read."""

    def __init__(self, run: Run, pace: float = 0, latency: int = 3):
        self.run, self.dut, self.config = run, run.dut, CONFIGS[run.part]
        self.pace, self.latency = pace, latency
        self.memory = np.zeros(SIZE, np.uint8)
        self.there = np.zeros(SIZE, bool)
        self.beats: deque[tuple[int, int]] = deque()  # cycle, address
        self.entries: list[tuple[int, Entry]] = []  # cycle, what came
        self.streams: list[tuple[int, tuple[int, int]]] = []
        self.quiet_since: list[int] = []
        self.under_way = 0
        self.position, self.tokens = 0, [0] * self.config.cols
        self.read = 0
        self.next_burst: int | None = None

    async def start(self) -> None:
        inputs = ("job__start", "stop", "entries__ready", "weights__ready", "quiet")
        memory = ("memory__beat", "memory__error", "memory__request__ready")
        await self.run.start(**dict.fromkeys((*inputs, *memory), 0), job__program=0)
        cocotb.start_soon(self.remember())
        cocotb.start_soon(self.consume())

    def pauses(self) -> bool:
        return bool(self.run.rng.random() < self.pace)

    async def remember(self) -> None:
        """The memory."""
        dut, run, config = self.dut, self.run, self.config
        longest = burst_beats(config) * config.bus_bytes
        while True:
            await RisingEdge(dut.clk)
            if int(dut.memory__request__valid.value) and int(dut.memory__request__ready.value):
                payload = int(dut.memory__request__payload.value)
                address, beats = payload & 0xFFFFFFFF, payload >> 32
                end = address + beats * config.bus_bytes
                run.check(end % longest, 0, f"end of the burst at {address:#x}")
                run.check(address, self.next_burst, "bursts follow each other")
                self.next_burst = end
                due = run.cycle + self.latency
                self.beats.extend((due, at) for at in range(address, end, config.bus_bytes))
            dut.memory__beat.value = 0
            if self.beats and self.beats[0][0] <= run.cycle and not self.pauses():
                _, address = self.beats.popleft()
                data = self.memory[address : address + config.bus_bytes]
                there = self.there[address : address + config.bus_bytes].all()
                dut.memory__data.value = (
                    int.from_bytes(data.tobytes(), "little") if len(data) else 0
                )
                dut.memory__beat.value, dut.memory__error.value = 1, int(not (there and len(data)))
                self.read += 1
            dut.memory__request__ready.value = int(not self.pauses())

    async def consume(self) -> None:
        """Sequencer and weight fetch: an instruction is done some time after it has come."""
        dut, run = self.dut, self.run
        done: deque[int] = deque()
        while True:
            await RisingEdge(dut.clk)
            cycle = run.cycle
            if int(dut.quiet.value):
                self.quiet_since.append(cycle)
            if int(dut.entries__valid.value) and int(dut.entries__ready.value):
                payload = int(dut.entries__payload.value)
                self.entries.append((cycle, Entry.from_bits(payload)))
                wait = int(run.rng.integers(0, 40)) if self.pace else 0
                done.append(max(cycle + wait, done[-1] if done else 0))
            if int(dut.weights__valid.value) and int(dut.weights__ready.value):
                stream = Descriptor.from_bits(int(dut.weights__payload.value))
                self.streams.append((cycle, (stream.address, stream.beats)))
            while done and done[0] <= cycle:
                done.popleft()
            dut.quiet.value = int(not done)
            dut.entries__ready.value = int(not self.pauses())
            dut.weights__ready.value = int(not self.pauses())

    def write(self, words: list[bytes]) -> int:
        """Put instructions into memory, nothing around them; their address."""
        slot, rng = self.config.slot_bytes, self.run.rng
        address = int(rng.integers(0, SIZE // slot - len(words) + 1)) * slot
        self.there[:] = False
        self.there[address : address + len(words) * slot] = True
        self.memory[:] = rng.integers(0, 256, SIZE)
        for n, word in enumerate(words):  # what follows in a wide slot has no meaning
            at = address + n * slot
            self.memory[at : at + 32] = np.frombuffer(word, np.uint8)
        return address

    async def begin(self, program: int) -> None:
        dut = self.dut
        self.entries.clear()
        self.streams.clear()
        self.quiet_since.clear()
        self.read, self.next_burst = 0, program
        dut.position.value = self.position
        for handle, token in zip(dut.array("tokens", self.config.cols), self.tokens, strict=True):
            handle.value = token
        dut.job__program.value, dut.job__start.value = program, 1
        await RisingEdge(dut.clk)
        dut.job__start.value = 0

    async def finish(self, count: int) -> None:
        """Wait for as many entries, or until none comes, then for more than that, and for the
        memory."""
        seen, since = 0, self.run.cycle
        while len(self.entries) < count and self.run.cycle < since + 1000:
            await RisingEdge(self.dut.clk)
            if len(self.entries) > seen:
                seen, since = len(self.entries), self.run.cycle
        await ClockCycles(self.dut.clk, 60)
        while self.beats:
            await RisingEdge(self.dut.clk)
        await ClockCycles(self.dut.clk, 4)

    async def check_program(self, words: list[bytes], broken: int | None = None) -> list[Fate]:
        """Run a program up to the first instruction that stops it; the fates of all until then.

        ``broken``: an instruction that the memory does not give.
        """
        config, run = self.config, self.run
        fates = []
        for n, word in enumerate(words):
            fates.append(fate(word, self.position, self.tokens, config))
            ends = fates[-1].instruction is None or fates[-1].instruction.opcode is Opcode.HALT
            if n == broken or ends:
                break
        program = self.write(words)
        if broken is not None:
            self.there[program + broken * config.slot_bytes + 3] = False
        await self.begin(program)
        await self.finish(len(fates))
        streams = []
        for n, ((_, entry), want) in enumerate(zip(self.entries, fates, strict=False)):
            what = f"{words[n].hex()} at {self.position}, {self.tokens}"
            if n == broken:
                run.check(entry.failed, 1, f"failed: {what}")
                continue
            found = [entry.failed, entry.illegal, not entry.illegal and entry.far]
            run.check(found, [0, want.illegal, want.far], f"failed, illegal, far: {what}")
            if want.instruction is None:
                continue
            self.check_operands(entry, want, what)
            chain = chained(words[n - 1], words[n], config) if n else False
            run.check(entry.chained, chain, f"chained: {what} after {words[n - 1].hex()}")
            if want.instruction.opcode is Opcode.MATMUL:
                streams.append((want.instruction.address, want.beats))
        run.check(len(self.entries), len(fates), "entries")
        run.check(streams == [s for _, s in self.streams], True, "weight streams")
        used = len(fates) * (32 * 8 // min(256, 8 * config.bus_bytes))
        run.check(used <= self.read <= used + buffer_beats(config), True, "beats read")
        return fates

    def check_operands(self, entry: Entry, want: Fate, what: str) -> None:
        i = want.instruction
        found = isa.decode(entry.operands.as_bits().to_bytes(32, "little"))
        self.run.check(found == i, True, f"{found} of {what}")
        if i.opcode in (Opcode.LOAD, Opcode.STORE) and i.flags & (Flag.INDEX | Flag.TOKEN):
            self.run.check(entry.lane, want.lane, f"lane of {what}")

    def random_position(self) -> None:
        rng = self.run.rng
        span = int(rng.choice([1, 8, 100, 3000, 1 << 24]))
        edges = [0, 1, span - 1, int(rng.integers(span))]
        self.position = int(rng.choice(edges))
        self.tokens = [int(rng.integers(span)) for _ in range(self.config.cols)]


def chained(before: bytes, word: bytes, config: AccelConfig) -> bool:
    """Whether a legal instruction may begin while the results of the one before it come."""
    a, b = isa.decode(before), isa.decode(word)
    if (a.opcode, b.opcode) != (Opcode.MATMUL, Opcode.MATMUL) or a.column != b.column:
        return False
    results = -(-a.count * config.rows // config.results_per_word)
    return b.src + isa.block_words(b.k, config) <= a.dst or a.dst + results <= b.src


@bench_test(limit=60_000, part=list(CONFIGS), pace=[0, 0.3])
async def random_programs(run: Run, pace: float) -> None:
    """Legal instructions; those that are too far end a program."""
    bench = Bench(run, pace)
    await bench.start()
    ran = far = 0
    while ran < 150:
        bench.random_position()
        program = []
        for _ in range(int(run.rng.integers(1, 40))):
            i = random_instruction(run.rng, bench.config)
            kind = fate(i.encode(), bench.position, bench.tokens, bench.config)
            assert not kind.illegal, i
            if not kind.far or run.rng.random() < 0.3:
                program.append(i.encode())
        fates = await bench.check_program([*program, HALT.encode()])
        ran, far = ran + len(fates), far + fates[-1].far
    run.check(far > 0, True, "some position was too far")


@bench_test(limit=100_000, part=list(CONFIGS))
async def chains(run: Run) -> None:
    """Pairs of MATMULs, the source of the second around the results of the first."""
    bench = Bench(run)
    config, rng = bench.config, run.rng
    await bench.start()
    bench.latency = 0
    bench.position = 0
    seen = [0, 0]
    for _ in range(12):
        program = []
        for _ in range(12):
            first = replace(random_matmul(rng, config), flags=0, shift=0)
            second = replace(random_matmul(rng, config), flags=0, shift=0)
            words_in = isa.block_words(second.k, config)
            words_out = first.count * config.rows // config.results_per_word
            edges = (first.dst - words_in, first.dst + words_out)
            src = max(0, int(rng.choice(edges)) + int(rng.integers(-1, 2)))
            near = replace(second, src=src, column=int(rng.choice([first.column, second.column])))
            try:
                isa.check(near, config)
            except isa.IllegalInstruction:
                continue
            program += [first.encode(), near.encode()]
            seen[chained(*program[-2:], config)] += 1
        await bench.check_program([*program, HALT.encode()])
    run.check(min(seen) > 5, True, f"{seen} apart or not")


@bench_test(limit=100_000, part=list(CONFIGS))
async def nearly_legal(run: Run) -> None:
    """One field changed: judged as the golden model judges it."""
    bench = Bench(run)
    await bench.start()
    bench.latency = 0
    bad = good = 0
    while min(bad, good) < 100:
        bench.random_position()
        program = []
        for _ in range(10):
            word = changed(run.rng, random_instruction(run.rng, bench.config), bench.config)
            kind = fate(word, bench.position, bench.tokens, bench.config)
            if not kind.far:
                program.append(word)
            if kind.illegal:
                break
        fates = await bench.check_program([*program, HALT.encode()])
        bad, good = bad + fates[-1].illegal, good + len(fates) - 1


@bench_test(limit=100_000, part=list(CONFIGS))
async def broken_rules(run: Run) -> None:
    """Every rule, broken once or more."""
    bench = Bench(run)
    await bench.start()
    bench.latency = 0
    for word in illegal_instructions(bench.config):
        fates = await bench.check_program([word, HALT.encode()])
        run.check([fate.illegal for fate in fates], [True], f"{word.hex()} in the golden model")


@bench_test(limit=30_000, part=list(CONFIGS))
async def random_bits(run: Run) -> None:
    """Anything: an opcode, and a few bits that are set."""
    bench = Bench(run)
    await bench.start()
    for _ in range(150):
        bits = sum(1 << int(bit) for bit in run.rng.integers(8, 256, int(run.rng.integers(4))))
        word = (bits | int(run.rng.integers(0, 9))).to_bytes(32, "little")
        await bench.check_program([word, HALT.encode()])


@bench_test(limit=30_000, part=list(CONFIGS), pace=[0, 0.3])
async def missing_memory(run: Run, pace: float) -> None:
    """An instruction that the memory refuses ends the program, but only if it is reached."""
    bench = Bench(run, pace)
    await bench.start()
    for _ in range(12):
        bench.random_position()
        words = [Instruction(opcode=Opcode.FENCE).encode()] * int(run.rng.integers(1, 12))
        await bench.check_program([*words, HALT.encode()], int(run.rng.integers(len(words) + 1)))
        # What follows the HALT is never there.
        await bench.check_program([*words, HALT.encode()])


@bench_test(limit=30_000, part=list(CONFIGS))
async def fences(run: Run) -> None:
    """Nothing goes out between a fence and the end of all before it."""
    bench = Bench(run, 0.2)
    config = bench.config
    await bench.start()
    for _ in range(8):
        program = []
        for _ in range(int(run.rng.integers(3, 15))):
            kind = int(run.rng.integers(3))
            matmul = random_matmul(run.rng, config)
            plain = replace(matmul, flags=matmul.flags & Flag.BIAS)
            program.append([Instruction(opcode=Opcode.FENCE), plain, plain][kind])
        await bench.check_program([*(i.encode() for i in program), HALT.encode()])
        out = [*(cycle for cycle, _ in bench.streams), *(cycle for cycle, _ in bench.entries)]
        for (cycle, _), i in zip(bench.entries, program, strict=False):
            if i.opcode is Opcode.FENCE:
                quiet = next(c for c in bench.quiet_since if c > cycle)
                early = [c for c in out if cycle < c <= quiet]
                run.check(early, np.array([], int), "what came out after a fence, before quiet")


@bench_test(limit=20_000, part=list(CONFIGS))
async def cycles(run: Run) -> None:
    """What an instruction takes, once the program flows."""
    bench = Bench(run)
    config, rng = bench.config, run.rng
    await bench.start()
    bench.position, bench.tokens = 0, [5] * config.cols
    beats = max(1, 32 // config.bus_bytes)
    kinds: dict[str, tuple[Instruction, int]] = {}
    move = replace(random_move(rng, Opcode.STORE, config), flags=0, shift=0, k=0, immediate=0)
    kinds["STORE"] = replace(move, count=1), 4
    token = Instruction(
        opcode=Opcode.LOAD, flags=Flag.TOKEN, count=1, immediate=9,
        shift=isa.exact_log2(config.bus_bytes),
    )  # fmt: skip
    kinds["LOAD"] = token, 6 + (5 >> token.shift).bit_length()
    matmul = replace(random_matmul(rng, config), flags=Flag.BIAS)
    kinds["MATMUL"] = matmul, 8 + matmul.count.bit_length() + 1
    vector = replace(random_vector_fields(rng, config), flags=0)
    kinds["VECTOR"] = vector, 8 + 3 * (vector.segments - 1).bit_length()
    for name, (instruction, cycles) in kinds.items():
        await bench.check_program([instruction.encode()] * 12 + [HALT.encode()])
        gaps = np.diff([cycle for cycle, _ in bench.entries])[4:-1]
        run.check(gaps, np.full(len(gaps), cycles + beats + 1), f"cycles of {name}")


@bench_test(limit=3_000, part=["ecp5", "sim"])
async def ahead_of_the_memory(run: Run) -> None:
    """A memory of 60 cycles is waited for at the start, and then no more."""
    bench = Bench(run, latency=60)
    vector = replace(random_vector_fields(run.rng, bench.config), flags=0, segments=1)
    await bench.start()
    await bench.check_program([vector.encode()] * 100 + [HALT.encode()])
    came = [cycle for cycle, _ in bench.entries]
    run.check(came[99] - came[0] <= 99 * 11, True, "no instruction waits for its slot")
