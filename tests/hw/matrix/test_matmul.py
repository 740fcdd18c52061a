"""The control of MATMUL: which slice is taken when, with which activations."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hardware import simulate, word_of

from golden import isa
from golden.config import BIAS_PLANES, get_config
from golden.isa import Flag, Instruction, Opcode
from hw.matrix.lane import delay
from hw.matrix.matmul import ERROR_LATENCY, Matmul

SEED = 131
TINY = get_config("tiny").replace(scratch_words=64)
CONFIGS = {
    config.name: config
    for config in (
        TINY,  # two activations a word
        TINY.replace(name="eight", rows=8, bus_bytes=16, cols=3, align=4),
        TINY.replace(name="bytes", act_bits=8, rows=8, bus_bytes=16, cols=1),
    )
}


def random_instruction(rng, config):
    per_word = config.acts_per_word
    most = 5 * per_word
    k = int(rng.choice([1, 2, per_word - 1, per_word, per_word + 1, rng.integers(1, most)]))
    return Instruction(
        opcode=Opcode.MATMUL, count=int(rng.integers(1, 4)), k=max(1, k), column=config.cols,
        src=int(rng.integers(config.scratch_words - 8)),
        flags=int(rng.choice([0, Flag.BIAS])),
    )  # fmt: skip


def slices(i):
    """All slices of an instruction in order: plane or None, index, whether it ends its tile."""
    for _ in range(i.count):
        for plane in range(BIAS_PLANES if i.flags & Flag.BIAS else 1):
            yield plane, None, False
        for k in range(i.k):
            yield None, k, k == i.k - 1


@dataclass
class Rates:
    """How likely it is, in a cycle: a slice comes, it is bad, the drain takes the read port; and
    for how many cycles at most a tile leaves the array."""

    slice: float = 1
    bad: float = 0
    hold: float = 0
    busy: int = 1
    chain: float = 0.5


RATES = {
    "free": Rates(),
    "weights": Rates(slice=0.4, bad=0.1),
    "array": Rates(hold=0.25, busy=30),
    "both": Rates(slice=0.7, bad=0.02, hold=0.1, busy=12, chain=1),
}


@dataclass
class World:
    """What is around a `Matmul`, a cycle at a time; checks what it does in each."""

    ctx: object
    dut: Matmul
    rng: np.random.Generator
    rates: Rates
    cycle: int = 0
    valid: bool = False  # there is a slice
    hold: bool = False
    busy: int = 0  # cycles that a tile still needs
    tail: int = 0  # cycles until the writeback has nothing
    x: dict = field(default_factory=dict)  # cycle -> activations that must come
    failed: bool = False
    data: list = None
    plan: list = field(default_factory=list)  # slices to come
    taken: list = field(default_factory=list)  # cycles of this instruction's slices
    i: Instruction = None
    started: int = 0
    reading: bool = False
    finished: bool = False  # its results were written in the cycle before
    done: int = 0

    def __post_init__(self):
        config = self.dut.config
        shape = (config.cols, config.scratch_words, config.bus_bytes)
        self.scratch = self.rng.integers(256, size=shape, dtype=np.uint8)
        self.data = [0] * config.cols

    def activations(self, k):
        """Of all columns, for the slice ``k``."""
        config, i = self.dut.config, self.i
        words = self.scratch[:, i.src + 1 : i.src + isa.block_words(i.k, config)]
        kind = f"<i{config.act_bits // 8}"
        return words.reshape(config.cols, -1).view(kind)[:, k].tolist()

    def exponents(self):
        return self.scratch[:, self.i.src, 0].view(np.int8).tolist()

    async def step(self, start=None):
        """A cycle, in which an instruction may start."""
        ctx, dut, rng, rates = self.ctx, self.dut, self.rng, self.rates
        feed = dut.feed
        ctx.set(dut.run.start, start is not None)
        if start is not None:
            fields = {name: int(getattr(start, name)) for name in isa.FIELDS}
            ctx.set(dut.run.operands.as_value(), word_of(fields))
        bad = bool(self.valid and rng.random() < rates.bad)
        ctx.set(dut.slices.failed, bad)
        next_hold = rng.random() < rates.hold
        ctx.set(feed.hold, self.hold)
        ctx.set(feed.next_hold, next_hold)
        ctx.set(feed.busy, self.busy > 0)
        ctx.set(feed.stays, self.busy > 1)
        ctx.set(dut.results_idle, self.tail == 0)
        for port, word in zip(dut.read.data, self.data, strict=True):
            ctx.set(port, word)

        taken = self._check_slice(bad)
        for port, want in zip(feed.x, self.x.pop(self.cycle, [None] * len(feed.x)), strict=True):
            assert want is None or ctx.get(port) == want, self.cycle
        assert ctx.get(dut.failed) == self.failed, self.cycle
        self.failed = bool(taken and bad)
        done = bool(ctx.get(dut.run.done))
        self._check_end(done)

        # The read port and the array in the next cycle.
        assert ctx.get(dut.read.enable) == self.reading, self.cycle
        if self.reading:
            address = ctx.get(dut.read.address) % dut.config.scratch_words
            words = self.scratch[:, address]
            self.data = [int.from_bytes(word.tobytes(), "little") for word in words]
        ends = taken and ctx.get(feed.valid) and ctx.get(feed.last)
        self.busy = max(0, self.busy - 1)
        self.tail = max(0, self.tail - 1)
        if ends:
            self.busy = 1 + int(rng.integers(rates.busy))
            self.tail = self.busy + int(rng.integers(9))
        self.hold = next_hold
        self.valid = bool(
            (self.valid and not ctx.get(dut.slices.ready)) or rng.random() < rates.slice
        )
        ctx.set(dut.slices.next_valid, self.valid)
        if start is not None:
            self.i, self.plan, self.taken = start, [*slices(start)], []
            self.started, self.reading, self.finished = self.cycle, True, False
        await ctx.tick()
        self.cycle += 1

    def _check_slice(self, bad):
        """Whether a slice is taken, and that it is the one whose turn it is."""
        ctx, dut, feed, headers = self.ctx, self.dut, self.dut.feed, self.dut.headers
        ready = ctx.get(dut.slices.ready)
        taken = bool(ready and self.valid)
        waits = bool(ready and not self.valid)
        assert ctx.get(dut.stall_weights) == waits, self.cycle
        plane, k, last = self.plan[0] if self.plan else (None, None, False)
        assert not taken or self.plan, f"cycle {self.cycle}: a slice too many"
        assert ctx.get(headers.valid) == (taken and plane is not None), self.cycle
        assert ctx.get(feed.valid) == (taken and k is not None), self.cycle
        assert ctx.get(headers.take) == (taken and last), self.cycle
        # It knows of its first slice from the cycle on in which it may come.
        running = self.plan and self.cycle >= self.started + 4
        drained = running and k is not None and ((last and self.busy > 0) or self.hold)
        assert ctx.get(dut.stall_drain) == bool(drained), self.cycle
        # A slice alone after a word waits for a cycle: its activations are only being read.
        alone = k and last and k % dut.config.acts_per_word == 0
        reading = alone and self.taken[-1] == self.cycle - 1
        assert ready == bool(running and not drained and not reading), self.cycle
        if not taken:
            return False
        if plane is not None:
            assert ctx.get(headers.plane) == plane, self.cycle
            assert ctx.get(headers.bare) == (not self.i.flags & Flag.BIAS)
        else:
            assert not self.hold and not (last and self.busy), self.cycle
            assert ctx.get(feed.last) == last, self.cycle
            self.x[self.cycle + delay(dut.config)] = self.activations(k)
        assert ctx.get(dut.slices.end) == (len(self.plan) == 1), self.cycle
        for port, want in zip(headers.exponent, self.exponents(), strict=True):
            assert ctx.get(port) == want, self.cycle
        self.plan.pop(0)
        self.taken.append(self.cycle)
        return True

    def _check_end(self, done):
        """``streamed`` and ``done``: after the last slice, and when its results are written."""
        streamed = self.ctx.get(self.dut.streamed)
        if self.plan or self.i is None or self.cycle <= self.taken[-1] + ERROR_LATENCY:
            assert not streamed, self.cycle
        elif self.reading and self.cycle > self.started + 1:
            assert streamed, self.cycle
        assert done == self.finished, self.cycle
        if done:
            self.reading = False
            self.done += 1
        # A cycle after there are no results, but not before the array has the last slice.
        at = self.i is not None and not self.plan and self.reading
        self.finished = at and self.tail == 0 and self.cycle >= self.taken[-1] + 2

    def may_start(self):
        return self.i is None or not self.reading

    def may_chain(self):
        return bool(self.reading and not self.plan and self.ctx.get(self.dut.streamed))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", RATES)
def test_slices_meet_their_activations(name, kind):
    print("seed", SEED)
    config, rng = CONFIGS[name], np.random.default_rng(SEED)
    dut = Matmul(config)
    counts = {"chained": 0, "done": 0}

    async def bench(ctx):
        world = World(ctx, dut, rng, RATES[kind])
        for _ in range(14):
            i = random_instruction(rng, config)
            chain = rng.random() < RATES[kind].chain
            while not (world.may_start() or (chain and world.may_chain())):
                await world.step()
            chained, done = not world.may_start(), world.done
            await world.step(i)
            counts["chained"] += chained and world.done == done  # they may meet
            while world.plan:
                await world.step()
        while world.reading:
            await world.step()
        for _ in range(5):
            await world.step()
        counts["done"] = world.done
        assert world.done == 14 - counts["chained"]

    simulate(dut, bench, limit=8000)
    print(counts)
    assert counts["done"] and (counts["chained"] or not RATES[kind].chain)
