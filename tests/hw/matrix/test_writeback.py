"""The writeback, against `golden.arith.requantize`: each word in its place and its cycle."""

import numpy as np
import pytest
from hardware import simulate, word_of

from golden.arith import rescale, saturate
from golden.config import BIAS_PLANES, get_config
from golden.isa import Opcode
from hw.matrix.writeback import Writeback

SEED = 121
TINY = get_config("tiny")
CONFIGS = {
    config.name: config
    for config in (
        TINY.replace(cols=3, max_k=64),
        TINY.replace(name="packed", rows=8, bus_bytes=16, cols=2, max_k=64),
        TINY.replace(name="one", rows=4, bus_bytes=16, cols=1, max_k=64),
    )
}


class Plan:
    """What happens in which cycle, of some MATMULs one after the other."""

    def __init__(self, rng, config, count):
        self.rng, self.config = rng, config
        self.starts, self.headers, self.takes, self.results, self.words = {}, {}, set(), {}, {}
        self.saturated = {}
        self.ends, self.overlaps = {}, 0  # cycles in which a last word is written
        self.state = {}  # cycle -> operands, bias, exponents, active from there on
        free = 2  # cycle from which an instruction may start
        last = 0  # cycle of the last result so far
        for _ in range(count):
            free, last = self._instruction(free, last)
        self.length = max(self.words) + 20

    def _instruction(self, free, last):
        rng, config = self.rng, self.config
        tiles = int(rng.integers(1, 4))
        bias = bool(rng.random() < 0.5)
        shift = int(rng.integers(-20, 12))
        words = tiles * config.rows // config.results_per_word
        dst = int(rng.integers(config.scratch_words - words))
        exponents = rng.integers(-128, 128, config.cols)
        exponents[rng.random(config.cols) < 0.8] = rng.integers(-8, 8)
        open_ends = sorted(self.ends)
        start = free + int(rng.integers(0, 6))
        if rng.random() < 0.4:
            start = max(start, open_ends[-1] + 1 + int(rng.integers(3))) if open_ends else start
        elif len(open_ends) > 1:  # the one before the last must be written
            start = max(start, open_ends[-2] + 1)
        self.overlaps += bool(open_ends and start <= open_ends[-1])
        self.starts[start] = {
            "opcode": Opcode.MATMUL, "count": tiles, "dst": dst, "shift": shift
        }  # fmt: skip
        self.state[start] = bias, exponents
        cycle, take = start, start
        for tile in range(tiles):
            exponent = rng.integers(-128, 128, config.rows)
            exponent[rng.random(config.rows) < 0.8] = int(rng.integers(-12, 4))
            layer = rng.integers(-(1 << 31), 1 << 31, config.rows) >> rng.integers(0, 32)
            planes = [exponent & 255, *(layer >> 8 * n & 255 for n in range(4))]
            for plane in range(BIAS_PLANES if bias else 1):
                cycle += 1 + int(rng.choice([0, 0, 1, 5]))
                self.headers[cycle] = plane, planes[plane].tolist()
            # The last slice may come in the cycle before the last result of the tile before.
            take = max(cycle + 1 + int(rng.choice([0, 0, 3])), last - 1)
            self.takes.add(take)
            cycle = take
            row_at = take + 6 + int(rng.integers(5))
            limit = 1 << int(rng.integers(4, config.acc_bits))
            for row in range(config.rows):
                dots = rng.integers(-limit // 2, limit // 2, config.cols)
                self.results[row_at] = row, dots.tolist()
                scale = exponent[row] + exponents + shift
                exact = rescale(dots, scale, layer[row] if bias else 0)
                result = saturate(exact, 32)
                self.saturated[row_at + Writeback.latency] = result != exact
                place = (tile * config.rows + row) // config.results_per_word
                self.words.setdefault((dst + place, start), []).append(result)
                last = row_at
                if (row + 1) % config.results_per_word == 0:
                    at = row_at + Writeback.latency
                    word = np.stack(self.words.pop((dst + place, start)), axis=1)
                    self.words[at] = dst + place, word.astype("<i4")
                    final = at
                row_at += 1 + int(rng.choice([0, 0, 0, 2]))
        self.ends[final] = start
        return take + 5, last


@pytest.mark.parametrize("name", CONFIGS)
def test_each_word_is_written_in_its_cycle(name):
    print("seed", SEED)
    config, rng = CONFIGS[name], np.random.default_rng(SEED)
    dut = Writeback(config)
    active = rng.random(config.cols) < 0.7
    active[0] = True
    plan = Plan(rng, config, 25)
    assert plan.overlaps > 5
    counts = {"words": 0, "full": 0, "saturated": 0}

    async def bench(ctx):
        ctx.set(dut.active, sum(1 << int(c) for c in np.flatnonzero(active)))
        unfinished = 0
        busy_until = -1
        for cycle in range(plan.length):
            ctx.set(dut.start, cycle in plan.starts)
            if cycle in plan.starts:
                ctx.set(dut.operands.as_value(), word_of(plan.starts[cycle]))
                bias, exponents = plan.state[cycle]
                ctx.set(dut.headers.bare, not bias)
                for port, exponent in zip(dut.headers.exponent, exponents.tolist(), strict=True):
                    ctx.set(port, exponent)
            plane, codes = plan.headers.get(cycle, (int(rng.integers(BIAS_PLANES)), None))
            ctx.set(dut.headers.valid, codes is not None)
            ctx.set(dut.headers.plane, plane)
            for port, code in zip(
                dut.slice.bytes, codes or rng.integers(256, size=config.rows).tolist(), strict=True
            ):
                ctx.set(port, code)
            ctx.set(dut.headers.take, cycle in plan.takes)
            row, dots = plan.results.get(cycle, (None, [5] * config.cols))
            ctx.set(dut.results.valid, row is not None)
            for port, dot in zip(dut.results.dot, dots, strict=True):
                ctx.set(port, dot)
            following = plan.results.get(cycle + 1)
            next_row = following[0] if following else int(rng.integers(config.rows))
            ctx.set(dut.results.next_row, next_row)

            if row is not None:
                busy_until = cycle + dut.latency - 1
            flags = plan.saturated.get(cycle, np.zeros(config.cols, bool))
            assert ctx.get(dut.saturated) == np.count_nonzero(flags & active), cycle
            counts["saturated"] += ctx.get(dut.saturated)
            written = plan.words.get(cycle)
            enable = sum(1 << int(c) for c in np.flatnonzero(active)) if written else 0
            assert ctx.get(dut.write.enable) == enable, cycle
            assert ctx.get(dut.idle) == (cycle > busy_until and not written), cycle
            assert ctx.get(dut.full) == (unfinished == 2), cycle
            counts["full"] += unfinished == 2
            if written:
                address, word = written
                assert ctx.get(dut.write.address) == address, cycle
                for column in np.flatnonzero(active):
                    data = ctx.get(dut.write.data[int(column)])
                    found = np.frombuffer(data.to_bytes(config.bus_bytes, "little"), "<i4")
                    assert (found == word[column]).all(), (cycle, column)
                counts["words"] += 1
            unfinished += (cycle in plan.starts) - (cycle in plan.ends)
            await ctx.tick()

    simulate(dut, bench, limit=20_000)
    print(counts)
    assert counts["words"] == len(plan.words) and counts["full"] and counts["saturated"]
