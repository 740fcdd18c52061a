"""LOAD against arrays: which words it writes, and when; and the values of all codes."""

from collections import deque
from dataclasses import dataclass

import numpy as np
import pytest
from hardware import simulate, word_of

from golden import isa
from golden.config import get_config
from golden.format import INTEGERS
from golden.isa import Flag, Opcode
from hw.memory.load import CodeValue, Load

SEED = 81
TINY = get_config("tiny").replace(scratch_words=256)
CONFIGS = {
    config.name: config
    for config in (
        TINY.replace(burst_beats=4),
        TINY.replace(name="wide", cols=3, rows=16, bus_bytes=16, burst_beats=4),
        TINY.replace(name="single", cols=1, burst_beats=1),
    )
}


def test_the_value_of_every_code():
    dut = CodeValue()
    found = []

    async def bench(ctx):
        for code in [*range(256), *[0] * CodeValue.latency]:
            ctx.set(dut.code, code)
            found.append(ctx.get(dut.value))
            await ctx.tick()

    simulate(dut, bench, limit=300)
    assert found[CodeValue.latency :] == INTEGERS.tolist()


@dataclass
class Started:
    """A LOAD whose beats have yet to come."""

    address: int
    count: int
    dst: int
    column: int
    lane: int | None
    tag: int
    got: int = 0

    def words(self, beats, config):
        """What it writes for these beats [count, bus_bytes]: [words, bus_bytes]."""
        if self.lane is None:
            return beats
        per_word = config.results_per_word
        words = 1 + -(-(self.count - 1) // per_word)
        elements = np.zeros(words * per_word, "<i4")
        elements[0] = beats[0, self.lane].view(np.int8)
        elements[per_word : per_word + self.count - 1] = INTEGERS[beats[1:, self.lane]]
        return elements.view(np.uint8).reshape(words, -1)


def random_load(rng, config, indexed):
    count = int(rng.choice([1, 1, 2, 3, rng.integers(1, 18)]))
    page = 4096 // config.bus_bytes
    address = (page * int(rng.integers(1, 200)) - int(rng.integers(0, 20))) * config.bus_bytes
    return Started(
        address=address, count=count, dst=int(rng.integers(0, config.scratch_words - 20)),
        column=int(rng.integers(config.cols)),
        lane=int(rng.integers(config.bus_bytes)) if indexed else None,
        tag=int(rng.integers(1 << 32)),
    )  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("pace", [0.15, 0.5, 1])
def test_every_word_comes_in_its_cycle(name, pace):
    """``pace``: how often the memory sends a beat when it owes one."""
    print("seed", SEED)
    config, rng = CONFIGS[name], np.random.default_rng(SEED)
    dut = Load(config)
    by_byte = isa.exact_log2(config.bus_bytes)
    counts = {"full": 0, "done": 0, "indexed": 0, "errors": 0, "most": 0}

    async def bench(ctx):
        loads = deque()  # started, not all beats there
        queued = deque()  # bursts to ask for: address, beats
        asked = deque()  # beats to come
        unasked = 0
        indexed = False  # the one that was started last
        due = {}  # cycle -> what is written in it
        dones, failures = set(), {}
        left = 60
        cycle = 0
        while left or loads or any(at >= cycle for at in (*due, *dones)):
            run, o = dut.run, dut.run.operands
            # `ready` says whether another may start, but for an indexed one, which is alone.
            full = len(loads) == dut.most
            ready = not (full or unasked or indexed)
            assert ctx.get(dut.ready) == ready, (cycle, len(loads), unasked)
            counts["full"] += full and not unasked
            counts["most"] = max(counts["most"], len(loads))
            alone = not loads and not any(at >= cycle for at in dones)
            eager = left % 20 > 8 and ready and rng.random() < 0.9
            start = bool(left and cycle and (eager or alone))
            next_indexed = alone and rng.random() < 0.6
            load = random_load(rng, config, next_indexed)
            fields = {"opcode": Opcode.LOAD, "address": load.address, "count": load.count}
            fields |= {"dst": load.dst, "column": load.column}
            if load.lane is not None:
                flag = Flag.INDEX if rng.random() < 0.5 else Flag.TOKEN
                fields |= {"flags": flag, "shift": by_byte}
            ctx.set(run.start, start)
            ctx.set(o.as_value(), word_of(fields))  # of no meaning without a start
            ctx.set(run.lane, load.lane or 0)
            ctx.set(run.tag, load.tag)

            request_ready = int(rng.random() < 0.7)
            ctx.set(dut.memory.request.ready, request_ready)
            if ctx.get(dut.memory.request.valid) and request_ready:
                burst = ctx.get(dut.memory.request.payload)
                assert (burst["address"], burst["beats"]) == queued.popleft(), cycle
                asked.extend([0] * burst["beats"])
                unasked -= burst["beats"]
            beat = bool(asked) and rng.random() < pace
            data = rng.integers(256, size=config.bus_bytes, dtype=np.uint8)
            error = int(rng.random() < 0.05)
            ctx.set(dut.memory.beat, beat)
            ctx.set(dut.memory.error, error)
            ctx.set(dut.memory.data, int.from_bytes(data.tobytes(), "little"))

            write = due.pop(cycle, None)
            assert ctx.get(dut.write.enable) == (write is not None), cycle
            if write:
                column, address, word = write
                found = [ctx.get(dut.write.column), ctx.get(dut.write.address)]
                assert found == [column, address], cycle
                assert ctx.get(dut.write.data).to_bytes(config.bus_bytes, "little") == word, cycle
            assert ctx.get(dut.run.done) == (cycle in dones), cycle
            dones.discard(cycle)
            assert ctx.get(dut.failure.failed) == (cycle in failures), cycle
            if cycle in failures:
                assert ctx.get(dut.failure.tag) == failures.pop(cycle)

            if beat:
                asked.popleft()
                head = loads[0]
                head.got += 1
                if head.got == 1:
                    beats = []
                beats.append(data)
                ends = head.got == head.count
                if error:
                    failures[cycle + 1] = head.tag
                    counts["errors"] += 1
                words = head.words(np.stack(beats), config) if head.lane is None or ends else None
                if head.lane is None:
                    due[cycle + 1] = head.column, head.dst + head.got - 1, words[-1].tobytes()
                else:
                    # When the element that fills a word has come through `CodeValue`.
                    late = 2 + CodeValue.latency
                    place = (head.got - 2) % config.results_per_word
                    if head.got == 1 or ends or place == config.results_per_word - 1:
                        so_far = Started(**{**vars(head), "count": head.got})
                        word = so_far.words(np.stack(beats), config)
                        where = head.dst + len(word) - 1
                        due[cycle + late] = head.column, where, word[-1].tobytes()
                if ends:
                    loads.popleft()
                    last = not loads and not start
                    if last:
                        dones.add(cycle + (1 if head.lane is None else 2 + CodeValue.latency))
                        counts["done"] += 1
            if start:
                left -= 1
                loads.append(load)
                indexed = load.lane is not None
                counts["indexed"] += indexed
                address, count = load.address, load.count
                unasked += count
                longest = config.burst_beats
                while count:
                    beats_now = min(count, longest - address // config.bus_bytes % longest)
                    queued.append((address, beats_now))
                    address += beats_now * config.bus_bytes
                    count -= beats_now
            await ctx.tick()
            cycle += 1

    simulate(dut, bench, limit=20_000)
    print(counts)
    assert counts["done"] and counts["indexed"] and counts["errors"]
    if pace < 0.5:
        assert counts["full"] and counts["most"] == Load.most
