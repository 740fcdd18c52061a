"""The vector unit against `golden.vector`: all words and registers."""

import numpy as np
from amaranth.hdl import Module, ResetInserter
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect
from cocotb.triggers import ClockCycles, RisingEdge

from golden import isa
from golden.config import RESULT_BITS, AccelConfig, get_config
from golden.isa import (
    FIELDS,
    HEADED,
    READS_OTHER,
    After,
    Flag,
    Function,
    Instruction,
    Opcode,
    Output,
)
from golden.positions import lengths
from golden.vector import Registers, execute
from hw.memory.scratchpad import Scratchpad
from hw.vector.finish import SPACING
from hw.vector.scalar.unit import LONG
from hw.vector.unit import VectorUnit
from sim.benches.harness import Run, bench_test
from sim.benches.vectors import hard_elements, random_vector

TINY, ECP5, SIM = (get_config(name) for name in ("tiny", "ecp5", "sim"))
CONFIGS = {
    config.name: config
    for config in (
        TINY.replace(scratch_words=256),
        ECP5.replace(scratch_words=128),
        ECP5.replace(name="short", act_bits=8, cols=1, span=16, scratch_words=64),
        SIM.replace(cols=3, span=12, scratch_words=64),
    )
}
CONFIGURATIONS = "1, 4 and 16 lanes; 1 to 4 columns; mantissas of 8 and 16 bits"
UNITS = list(CONFIGS)


class VectorBench(wiring.Component):
    """A vector unit and its scratchpad, of which a word of all banks can be set or read a cycle;
    ``saturated`` adds up what the unit counts."""

    def __init__(self, config: AccelConfig):
        self.config = config
        width, address = 8 * config.bus_bytes, range(config.scratch_words)
        super().__init__(
            {
                "start": In(1),
                "operands": In(sum(bits for _, bits, _ in FIELDS.values())),
                "position": In(24),
                "clear": In(1),
                "done": Out(1),
                "read": In(1),
                "write": In(1),
                "address": In(address),
                "data": In(width).array(config.cols),
                "word": Out(width).array(config.cols),
                "saturated": Out(32),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.scratchpad = scratchpad = Scratchpad(self.config)
        unit = VectorUnit(self.config)
        m.submodules.unit = ResetInserter(self.clear)(unit)
        m.d.comb += [
            unit.run.start.eq(self.start),
            unit.run.operands.eq(self.operands),
            unit.position.eq(self.position),
            self.done.eq(unit.run.done),
            scratchpad.array.enable.eq(self.read),
            scratchpad.array.address.eq(self.address),
            scratchpad.results.enable.eq(self.write.replicate(self.config.cols)),
            scratchpad.results.address.eq(self.address),
        ]
        m.d.sync += self.saturated.eq(self.saturated + unit.saturated)
        connect(m, unit.read, scratchpad.vector)
        connect(m, unit.write, scratchpad.elements)
        for column in range(self.config.cols):
            m.d.comb += [
                scratchpad.results.data[column].eq(self.data[column]),
                self.word[column].eq(scratchpad.array.data[column]),
            ]
        return m


def parts():
    return {name: VectorBench(config) for name, config in CONFIGS.items()}


class Bench:
    """Runs instructions on the hardware and on arrays."""

    def __init__(self, run: Run):
        self.run, self.dut, self.config = run, run.dut, CONFIGS[run.part]
        config = self.config
        shape = (config.cols, config.scratch_words, config.bus_bytes)
        self.scratch = np.zeros(shape, np.uint8)
        self.registers = Registers.cleared(config)

    async def start(self) -> None:
        await self.run.start(start=0, read=0, write=0, clear=0)
        self.data = self.dut.array("data", self.config.cols)
        self.word = self.dut.array("word", self.config.cols)
        # Memories keep what other tests have left in them: set all registers.
        await self.fill()
        fields = {"opcode": Opcode.VECTOR, "column": self.config.cols, "segments": isa.SEGMENTS}
        fields |= {"count": 1, "k": RESULT_BITS, "src_stride": 1, "output": Output.NONE}
        for after in (After.RECIPROCAL, After.LIFT):
            await self.execute(Instruction(**fields, after=after), 0)

    async def fill(self, elements: np.ndarray | None = None) -> None:
        """All banks with hard elements, or these [cols, words * results_per_word]."""
        config, dut = self.config, self.dut
        for column in range(config.cols):
            values = hard_elements(self.run.rng, config.scratch_words * config.results_per_word)
            if elements is not None:
                values = elements[column].astype(np.int32)
            self.scratch[column] = values.view(np.uint8).reshape(self.scratch.shape[1:])
        dut.write.value = 1
        for word in range(config.scratch_words):
            dut.address.value = word
            for bank, port in enumerate(self.data):
                port.value = int.from_bytes(self.scratch[bank, word].tobytes(), "little")
            await RisingEdge(dut.clk)
        dut.write.value = 0

    async def compare(self, what: str) -> None:
        """All words of all banks."""
        dut, found = self.dut, np.empty_like(self.scratch)
        dut.read.value = 1
        size = self.config.bus_bytes
        for word in range(self.config.scratch_words + 1):
            dut.address.value = min(word, self.config.scratch_words - 1)
            await RisingEdge(dut.clk)
            if word >= 1:
                for bank, port in enumerate(self.word):
                    data = int(port.value).to_bytes(size, "little")
                    found[bank, word - 1] = np.frombuffer(data, np.uint8)
        dut.read.value = 0
        # By element: a difference tells more.
        self.run.check(found.view("<i4"), self.scratch.view("<i4"), what)

    async def execute(self, i: Instruction, position: int) -> int:
        """Run it on both; the cycles from start to done."""
        isa.check(i, self.config)
        dut = self.dut
        before = int(dut.saturated.value)
        dut.operands.value = int.from_bytes(i.encode(), "little")
        dut.position.value = position
        dut.start.value = 1
        await RisingEdge(dut.clk)
        dut.start.value = 0
        began = self.run.cycle
        await RisingEdge(dut.done)
        await RisingEdge(dut.clk)
        took = self.run.cycle - began
        for _ in range(2):  # the last word may be on its way to the scratchpad
            await RisingEdge(dut.clk)
        saturated = execute(i, self.scratch, self.registers, position, self.config)
        self.run.check(int(dut.saturated.value) - before, saturated, f"saturated of {i}")
        return took

    async def show_registers(self) -> None:
        """Make the registers visible: factors, amounts, exponents and tops as results."""
        common = {"column": self.config.cols, "segments": isa.SEGMENTS, "count": 1, "k": 32}
        common |= {"opcode": Opcode.VECTOR, "dst_stride": 1, "output": Output.WORDS}
        show = [
            {"function": Function.SUBTRACT, "shift": -128},
            {"function": Function.SHIFT, "flags": Flag.AMOUNT, "shift": -10},
            {"function": Function.EXP2, "output": Output.ROW},
        ]
        depth = self.config.scratch_words
        for number, fields in enumerate(show):
            last = number == len(show) - 1
            stride = 2 if last else 1
            place = depth - stride * isa.SEGMENTS
            i = Instruction(**{**common, "dst": place, "dst_stride": stride, **fields})
            await self.execute(i, 0)
            await self.compare(f"registers, {i}")


def bound(i: Instruction, position: int, config: AccelConfig) -> int:
    """Cycles that an instruction may take, from start to done."""
    length = int(lengths(i, position)[-1])
    rotate = i.function == Function.ROTATE
    reads = 4 if rotate else 1 + (i.function in READS_OTHER)
    words = 3 + isa.vector_words(length, config) * reads
    drain = VectorUnit(config).drain
    after = {After.NONE: 0, After.MEAN: 62, After.ROOT: 172, After.RECIPROCAL: 60}
    headed = i.output in (*HEADED, Output.TOP)
    finished = after.get(After(i.after), 6) + headed
    # Registers that are written keep others from being read; a last word, or pair, has waited.
    last = 8 if rotate else reads
    segment = words + 2
    if i.after in LONG or (i.after and headed):
        segment = max(segment, drain + finished + last + 2)
        if headed:  # which may have found no cycle for it
            segment = max(segment, words + drain + last)
    elif i.after:
        segment = max(segment, SPACING + last + 2)
    finished += headed * words  # of the last segment
    repeats = (i.k // config.results_per_word) // i.immediate if rotate else 0
    return i.column * i.segments * segment + drain + finished + repeats + 6


@bench_test(limit=2_000_000, part=UNITS, function=[f.name for f in Function])
async def functions(run: Run, function: str) -> None:
    """Random instructions of one function, on hard elements."""
    bench = Bench(run)
    await bench.start()
    config = bench.config
    for number in range(12):
        if number % 2 == 0:
            await bench.fill()
        most = config.scratch_words // 4 * config.results_per_word
        position = int(run.rng.choice([0, run.rng.integers(0, most), run.rng.integers(1 << 24)]))
        i = random_vector(run.rng, config, position, Function[function])
        cycles = await bench.execute(i, position)
        run.check(cycles <= bound(i, position, config), True, f"{cycles} cycles of {i}")
        await bench.compare(f"{number}: {i} at {position}")


@bench_test(limit=2_000_000, part=UNITS, seed=list(range(3)))
async def programs(run: Run, seed: int) -> None:
    """Instructions that find what those before left, in scratchpad and registers."""
    bench = Bench(run)
    await bench.start()
    for number in range(20):
        if number % 5 == 0:
            await bench.fill()
        position = int(run.rng.integers(0, 40))
        i = random_vector(run.rng, bench.config, position)
        await bench.execute(i, position)
        await bench.compare(f"{number}: {i} at {position}")
        if number % 5 == 4:
            await bench.show_registers()


@bench_test(limit=500_000, part=UNITS)
async def flows(run: Run) -> None:
    """Softmax and a norm as programs make them: each instruction needs the registers before it."""
    bench = Bench(run)
    await bench.start()
    config, rng = bench.config, run.rng
    quarter = config.scratch_words // 4
    segments = int(rng.integers(2, 5))
    stride = quarter // segments
    common = {"opcode": Opcode.VECTOR, "column": config.cols, "segments": segments, "k": 32}
    common |= {"src_stride": stride, "other_stride": stride, "dst_stride": stride}
    common |= {"other": quarter, "output": Output.NONE}
    words, bits = {"output": Output.WORDS}, config.act_bits
    scores = [
        {"function": Function.SHIFT},
        {"function": Function.EXP2, "after": After.RECIPROCAL, **words},
        {"function": Function.LENGTHS, "after": After.LIFT},
        {"function": Function.SHIFT_EACH, "flags": Flag.AMOUNT, "k": bits, "output": Output.BLOCK},
        {"function": Function.SCALE, "shift": -20, **words},
    ]
    epsilon = -36 << 24 | 687195
    values = [
        {"function": Function.SHIFT, "after": After.MEAN},
        {"function": Function.SUBTRACT, "after": After.ALIGN, **words},
        {"function": Function.SHIFT, "flags": Flag.AMOUNT, "k": 20, **words},
        {"function": Function.SQUARE, "after": After.ROOT, "immediate": epsilon},
        {"function": Function.SCALE, "flags": Flag.AMOUNT, **words},
        {
            "function": Function.MULTIPLY,
            "shift": -20,
            "after": After.QUANTIZE,
            "immediate": 16,
            **words,
        },
        {"function": Function.SHIFT, "flags": Flag.AMOUNT, "k": bits, "output": Output.BLOCK},
        {"function": Function.SHIFT, "after": After.CODE},
        {"function": Function.SHIFT, "flags": Flag.AMOUNT, **words},
        {"function": Function.CODE, "output": Output.CODES},
        {"function": Function.RESIDUE, **words},
        {"function": Function.GELU, **words},
    ]
    size = config.scratch_words * config.results_per_word
    for width in (3, 17, 20, 22, 28):
        for flow in (scores, values):
            await bench.fill(rng.integers(-(1 << width), 1 << width, (config.cols, size)))
            if flow is scores:  # biases of codes
                view = bench.scratch.view("<i4")
                view[:, quarter : 2 * quarter] = rng.integers(-31, 1, view[:, :quarter].shape)
                await bench.fill(view.reshape(config.cols, -1).copy())
            count = int(rng.integers(1, (stride - 1) * config.results_per_word + 1))
            for fields in flow:
                packed = fields.get("output") in (Output.BLOCK, Output.CODES)
                place = {"dst": 2 * quarter if packed else 0, "count": count}
                i = Instruction(**{**common, **place, **fields})
                await bench.execute(i, 0)
                await bench.compare(f"{width} bits: {i}")


@bench_test(limit=200_000, part=UNITS)
async def clear(run: Run) -> None:
    """After a reset in the middle, the unit is idle and works."""
    bench = Bench(run)
    await bench.start()
    dut = run.dut
    for _ in range(12):
        await bench.fill()
        position = int(run.rng.integers(0, 40))
        i = random_vector(run.rng, bench.config, position)
        dut.operands.value = int.from_bytes(i.encode(), "little")
        dut.position.value = position
        dut.start.value = 1
        await RisingEdge(dut.clk)
        dut.start.value = 0
        await ClockCycles(dut.clk, int(run.rng.integers(1, 60)))
        dut.clear.value = 1
        await RisingEdge(dut.clk)
        dut.clear.value = 0
        for _ in range(2):  # a last word is on its way to the scratchpad
            await RisingEdge(dut.clk)
        # Registers are not defined now: an instruction that uses none.
        await bench.fill()
        i = random_vector(run.rng, bench.config, position, Function.MULTIPLY)
        fields = {"flags": i.flags & ~Flag.AMOUNT, "after": After.NONE, "output": Output.WORDS}
        i = Instruction(**{**vars(i), **fields, "dst": i.src, "dst_stride": i.src_stride})
        words = isa.vector_words(i.count, bench.config)
        apart = i.segments == 1 or i.src_stride >= words
        if apart and not _meets(i, words):
            await bench.execute(i, position)
            await bench.compare(f"{i} after a reset")
    run.check(int(dut.done.value), 0, "done")


def _meets(i: Instruction, words: int) -> bool:
    """Whether one of its operands overlaps the other."""
    a, b = (
        {start + stride * s + n for s in range(i.segments) for n in range(words)}
        for start, stride in ((i.src, i.src_stride), (i.other, i.other_stride))
    )
    return bool(a & b)
