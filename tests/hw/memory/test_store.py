"""STORE against arrays: what the bus gets, in order; and the limits of its buffers."""

from collections import deque
from dataclasses import dataclass

import numpy as np
import pytest
from hardware import simulate, word_of

from golden import isa
from golden.config import get_config
from golden.isa import Flag, Opcode
from hw.memory.store import (
    BUFFER_BURSTS,
    BUFFER_STORES,
    BUFFER_WORDS,
    READS_ON_THEIR_WAY,
    Store,
    StoreData,
)

SEED = 91
TINY = get_config("tiny").replace(burst_beats=4)
CONFIGS = {
    config.name: config
    for config in (
        TINY,
        TINY.replace(name="wide", cols=3, rows=16, bus_bytes=16),
        TINY.replace(name="single", cols=1, burst_beats=1),
    )
}


@dataclass(frozen=True)
class Job:
    """A STORE: ``width`` bytes of each beat, the lane of that width."""

    address: int
    count: int
    src: int
    column: int
    width: int
    lane: int
    tag: int

    def words(self, config):
        if self.width == config.bus_bytes:
            return self.count
        return 1 + -(-(self.count - 1) // config.results_per_word)

    def lanes(self, words, config):
        """The bytes that each beat writes [count, width], of words [.., bus_bytes]."""
        if self.width == config.bus_bytes:
            return words[: self.count]
        per_word = config.results_per_word
        elements = words.reshape(-1, 4)[:, : self.width]
        return np.concatenate([elements[:1], elements[per_word : per_word + self.count - 1]])

    def fields(self, config):
        fields = {"opcode": Opcode.STORE, "address": self.address, "count": self.count}
        fields |= {"src": self.src, "column": self.column}
        if self.width < config.bus_bytes:
            fields |= {"flags": Flag.INDEX, "shift": isa.exact_log2(config.bus_bytes // self.width)}
        return fields


def random_job(rng, config, most=18):
    size = config.bus_bytes
    count = int(rng.choice([1, 1, 2, 3, rng.integers(1, most + 1)]))
    width = int(rng.choice([size, size, 1, 4]))
    page = 4096 // size
    address = page * int(rng.integers(1, 200)) - int(rng.integers(0, 20))
    return Job(
        address=address * size, count=count, src=int(rng.integers(config.scratch_words - count)),
        column=int(rng.integers(config.cols)), width=width,
        lane=int(rng.integers(size // width)), tag=int(rng.integers(1 << 32)),
    )  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_beats_are_made_of_words(name):
    print("seed", SEED)
    config, rng = CONFIGS[name], np.random.default_rng(SEED)
    dut = StoreData(config)
    size = config.bus_bytes

    async def bench(ctx):
        for _ in range(60):
            job = random_job(rng, config)
            words = rng.integers(256, size=(job.words(config), size), dtype=np.uint8)
            lanes = job.lanes(words, config)
            ctx.set(dut.start, 1)
            by = {"bytes": int(job.width == 1), "elements": int(job.width == 4 < size)}
            ctx.set(dut.lane, {**by, "number": job.lane})
            ctx.set(dut.count, job.count)
            ctx.set(dut.take, 0)
            ctx.set(dut.word_valid, 0)
            await ctx.tick()
            ctx.set(dut.start, 0)
            ctx.set(dut.lane, {"bytes": 0, "elements": 0, "number": 0})
            ctx.set(dut.count, 0)
            at = made = 0
            while made < job.count:
                valid = bool(at < len(words) and rng.random() < 0.8)
                word = words[at] if valid else rng.integers(256, size=size, dtype=np.uint8)
                ctx.set(dut.word_valid, valid)
                ctx.set(dut.word, int.from_bytes(word.tobytes(), "little"))
                take = bool(valid and rng.random() < 0.7)
                ctx.set(dut.take, take)
                assert ctx.get(dut.ready) == valid
                # The first word has one element only; of lanes, the others as many as there are.
                per_word = 1 if job.width == size else config.results_per_word
                ends = made in (0, job.count - 1) or made % per_word == 0
                assert ctx.get(dut.pop) == (take and ends), (job, made)
                at += bool(ctx.get(dut.pop))
                await ctx.tick()
                if take:
                    # The lane is repeated over the beat; bytes in each element.
                    want = np.tile(lanes[made], size // job.width).tobytes()
                    assert ctx.get(dut.data).to_bytes(size, "little") == want, (job, made)
                    strobes = ((1 << job.width) - 1) << job.lane * job.width
                    assert ctx.get(dut.strobes) == strobes, job
                    made += 1
            assert at == len(words)

    simulate(dut, bench, limit=10_000)


class Bus:
    """The scratchpad and the write channels around a `Store`, a cycle at a time.

    ``paces``: how often AW and W are ready, a complete burst is answered, an answer is an error,
    and the store is told to stop.
    """

    def __init__(self, ctx, dut, rng, **paces):
        self.ctx, self.dut, self.rng, self.config = ctx, dut, rng, dut.config
        self.paces = {"aw": 1, "w": 1, "b": 1, "error": 0, "stop": 0} | paces
        shape = (self.config.cols, self.config.scratch_words, self.config.bus_bytes)
        self.scratch = rng.integers(256, size=shape, dtype=np.uint8)
        self.reads = deque([None, None])  # of the last two cycles
        self.expected = deque()  # bursts to come: address, beats, tag
        self.lanes = deque()  # beats to come: strobes, bytes written
        self.addressed = deque()  # bursts whose address was taken: beats, tag
        self.sent = deque([0])  # beats of bursts whose data were; the last is under way
        self.complete = deque()  # tags of bursts that may be answered
        self.held = {"aw": None, "w": None}
        self.fail = None
        self.cycle = self.since = 0  # the cycle in which all was answered
        self.started = -9
        self.words = self.read = self.done = self.failures = self.most = 0
        self.stopping = 0

    def owes(self):
        return bool(self.expected or self.addressed or self.complete or self.lanes)

    def expect(self, job):
        config, size = self.config, self.config.bus_bytes
        count, longest = job.words(config), config.burst_beats
        self.words += count
        words = self.scratch[job.column, job.src : job.src + count]
        strobes = ((1 << job.width) - 1) << job.lane * job.width
        self.lanes.extend((strobes, lane.tobytes()) for lane in job.lanes(words, config))
        address, left = job.address, job.count
        while left:
            beats = min(left, longest - address // size % longest)
            self.expected.append((address, beats, job.tag))
            address, left = address + beats * size, left - beats

    async def step(self, job=None):
        """A cycle, in which ``job`` may start; whether `done` was high."""
        ctx, dut, rng, axi = self.ctx, self.dut, self.rng, self.dut.axi
        ctx.set(dut.run.start, job is not None)
        if job is not None:
            self.expect(job)
            self.started = self.cycle
            ctx.set(dut.run.operands.as_value(), word_of(job.fields(self.config)))
            ctx.set(dut.run.lane, job.lane)
            ctx.set(dut.run.tag, job.tag)
        stopped = self.stopping
        self.stopping = int(rng.random() < (0.8 if stopped else self.paces["stop"]))
        ready = {name: int(rng.random() < self.paces[name]) for name in ("aw", "w")}
        answer = bool(self.complete) and rng.random() < self.paces["b"]
        response = int(rng.random() < self.paces["error"]) * 2 + int(rng.integers(2))
        ctx.set(dut.stop, self.stopping)
        ctx.set(axi.awready, ready["aw"])
        ctx.set(axi.wready, ready["w"])
        ctx.set(axi.bvalid, answer)
        ctx.set(axi.bresp, response)
        self._give_words()

        now = {"aw": None, "w": None}
        if ctx.get(axi.awvalid):
            now["aw"] = ctx.get(axi.awaddr), ctx.get(axi.awlen) + 1
            assert self.held["aw"] or not stopped, f"a burst begins in cycle {self.cycle}"
        if ctx.get(axi.wvalid):
            now["w"] = ctx.get(axi.wdata), ctx.get(axi.wstrb), ctx.get(axi.wlast)
        for name, held in self.held.items():
            assert held is None or held == now[name], (self.cycle, name)
            self.held[name] = None if ready[name] else now[name]
        bursts = len(self.addressed) + len(self.complete) + (now["aw"] is not None)
        self.most = max(self.most, bursts)
        assert bursts <= BUFFER_BURSTS, self.cycle
        assert ctx.get(dut.idle) == (bursts == 0), self.cycle
        assert ctx.get(dut.failure.failed) == (self.fail is not None), self.cycle
        assert self.fail is None or ctx.get(dut.failure.tag) == self.fail, self.cycle
        self._check_answered()
        done = bool(ctx.get(dut.run.done))
        self.done += done
        assert not done or self.read == self.words, self.cycle
        self._move(now, ready, answer, response)
        await ctx.tick()
        self.cycle += 1
        return done

    def _give_words(self):
        """Words that were asked for two cycles before; ask for another."""
        ctx, read = self.ctx, self.dut.read
        size, due = self.config.bus_bytes, self.reads.popleft()
        for bank, port in enumerate(read.data):
            word = self.rng.bytes(size) if due is None else self.scratch[bank, due].tobytes()
            ctx.set(port, int.from_bytes(word, "little"))
        enable = ctx.get(read.enable)
        self.reads.append(ctx.get(read.address) if enable else None)
        self.read += enable

    def _check_answered(self):
        """Never too early, and not long after the last answer."""
        answered = self.ctx.get(self.dut.answered)
        if self.owes():
            self.since = self.cycle + 1
            assert not answered or self.cycle - self.started < 2, self.cycle
        elif self.cycle - self.since > 2 and self.cycle - self.started > 6:
            assert answered, self.cycle

    def _move(self, now, ready, answer, response):
        """What was handed over in this cycle."""
        self.fail = None
        if answer:
            tag = self.complete.popleft()
            if response >> 1:
                self.fail = tag
                self.failures += 1
        if now["aw"] and ready["aw"]:
            address, beats, tag = self.expected.popleft()
            assert now["aw"] == (address, beats), self.cycle
            self.addressed.append((beats, tag))
        if now["w"] and ready["w"]:
            strobes, lane = self.lanes.popleft()
            data, found, last = now["w"]
            data = data.to_bytes(self.config.bus_bytes, "little")
            written = bytes(byte for n, byte in enumerate(data) if found >> n & 1)
            assert (found, written) == (strobes, lane), self.cycle
            self.sent[-1] += 1
            if last:
                self.sent.append(0)
        while self.addressed and len(self.sent) > 1:
            beats, tag = self.addressed.popleft()
            assert self.sent.popleft() == beats, self.cycle
            self.complete.append(tag)


async def until_done(bus):
    """Cycles until `done`, that one too."""
    while not await bus.step():
        pass


PACES = {
    "fast": {},
    "slow": {"aw": 0.3, "w": 0.3, "b": 0.2, "error": 0.1, "stop": 0.02},
    "late": {"aw": 0.9, "w": 0.9, "b": 0.05, "error": 0.3},
    "data": {"aw": 0.1, "w": 0.9, "b": 0.9, "stop": 0.1},
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("pace", PACES)
def test_the_bus_gets_all_in_order(name, pace):
    print("seed", SEED)
    config, rng = CONFIGS[name], np.random.default_rng(SEED)
    dut = Store(config)

    async def bench(ctx):
        bus = Bus(ctx, dut, rng, **PACES[pace])
        for number in range(40):
            await bus.step(random_job(rng, config))
            await until_done(bus)
            while number % 8 == 7 and bus.owes():
                await bus.step()
            for _ in range(int(rng.choice([0, 0, 1, 8]))):
                await bus.step()
        while bus.owes():
            await bus.step()
        for _ in range(8):
            await bus.step()
        assert bus.done == 40 and bus.read == bus.words
        assert bool(bus.failures) == ("error" in PACES[pace])

    simulate(dut, bench, limit=20_000)


async def finish(bus):
    """Let the bus take everything; then all has been compared."""
    bus.paces |= {"aw": 1, "w": 1, "b": 1}
    while bus.owes():
        await bus.step()
    for _ in range(8):
        await bus.step()
    assert bus.read == bus.words


def test_the_buffer_takes_no_more_words_than_it_holds():
    dut = Store(TINY)

    async def bench(ctx):
        bus = Bus(ctx, dut, np.random.default_rng(SEED), aw=0)
        job = Job(
            address=0x100, count=BUFFER_WORDS + 40, src=3, column=1, width=4, lane=0, tag=5
        )  # fmt: skip
        await bus.step(job)
        for _ in range(BUFFER_WORDS + 60):
            assert not await bus.step()
        # Two more are in the registers behind it, and one burst is on the bus.
        taken = BUFFER_WORDS + 2 + TINY.burst_beats
        assert BUFFER_WORDS - READS_ON_THEIR_WAY <= bus.read <= taken
        await finish(bus)
        assert bus.done == 1

    simulate(dut, bench, limit=4000)


def test_no_more_stores_are_done_than_may_wait():
    dut = Store(TINY)

    async def bench(ctx):
        rng = np.random.default_rng(SEED)
        bus = Bus(ctx, dut, rng, aw=0)
        jobs = 0
        while bus.done == jobs:
            jobs += 1
            await bus.step(random_job(rng, TINY, most=1))
            for _ in range(20):
                if await bus.step():
                    break
        # One is on the bus, one waits outside the queue, and the last is not done.
        assert BUFFER_STORES <= bus.done <= BUFFER_STORES + 2
        assert jobs == bus.done + 1
        await finish(bus)
        assert bus.done == jobs

    simulate(dut, bench, limit=8000)


def test_no_more_bursts_are_sent_than_may_wait_for_answers():
    dut = Store(TINY)

    async def bench(ctx):
        rng = np.random.default_rng(SEED)
        bus = Bus(ctx, dut, rng, b=0)
        for _ in range(2 * BUFFER_BURSTS):
            await bus.step(random_job(rng, TINY, most=1))
            await until_done(bus)
        for _ in range(40):
            await bus.step()
        assert bus.most == BUFFER_BURSTS
        for _ in range(BUFFER_BURSTS):  # one answer, one more burst
            bus.paces["b"] = 1
            await bus.step()
            bus.paces["b"] = 0
            for _ in range(8):
                await bus.step()
            assert len(bus.complete) == BUFFER_BURSTS
        await finish(bus)

    simulate(dut, bench, limit=8000)


def test_a_store_of_words_is_done_in_the_cycle_after_its_last_read():
    dut = Store(TINY)

    async def bench(ctx):
        bus = Bus(ctx, dut, np.random.default_rng(SEED))
        for count in (1, 2, 9):
            job = Job(address=0x80, count=count, src=7, column=0, width=4, lane=0, tag=1)
            await bus.step(job)
            for _ in range(count):
                assert not await bus.step()
            assert await bus.step()
            assert not await bus.step()
            await finish(bus)

    simulate(dut, bench, limit=200)
