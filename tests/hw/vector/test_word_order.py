"""The order of words in a segment, against lists."""

from dataclasses import dataclass

import numpy as np
import pytest
from hardware import simulate, word_of

from golden.config import get_config
from golden.isa import Function, Opcode
from hw.vector.word_order import WordOrder

SEED = 271
CONFIGS = {
    "one": get_config("tiny").replace(scratch_words=64),
    "four": get_config("ecp5").replace(scratch_words=64),
}


@dataclass(frozen=True)
class Order:
    """Elements ``k`` apart belong together; ``period`` words repeat; ``words`` in all."""

    k: int
    period: int
    words: int
    rotate: bool
    paired: bool

    def far(self, lanes):
        return self.k // lanes if self.rotate else 0

    def indices(self, lanes):
        """Words in the order in which they come."""
        far = self.far(lanes)
        if not far or not self.paired:
            return [*range(self.words)]
        firsts = [n for n in range(self.words) if not n & far]
        return [n for first in firsts for n in (first, first | far)]


def random_order(rng, config):
    lanes, most = config.results_per_word, config.scratch_words
    rotate = bool(rng.random() < 0.8)
    k = 1 << int(rng.integers(0, 4 + lanes.bit_length()))
    pairs = int(rng.integers(1, 5))
    words = -(-2 * k * pairs // lanes) if rotate else int(rng.integers(1, 20))
    period = int(rng.choice([1, 2, 3, max(1, 2 * k // lanes), rng.integers(1, most)]))
    return Order(k, period, min(words, most), rotate, bool(rng.integers(2)))


@pytest.mark.parametrize("name", CONFIGS)
def test_words_and_partners(name):
    print("seed", SEED)
    config, rng = CONFIGS[name], np.random.default_rng(SEED)
    lanes = config.results_per_word
    dut = WordOrder(config)
    kinds = set()

    async def bench(ctx):
        for _ in range(60):
            order = random_order(rng, config)
            far = order.far(lanes)
            function = Function.ROTATE if order.rotate else Function.SHIFT
            fields = {"opcode": Opcode.VECTOR, "function": function, "k": order.k}
            fields |= {"immediate": order.period}
            ctx.set(dut.operands.as_value(), word_of(fields))
            ctx.set(dut.rotate, order.rotate)
            ctx.set(dut.paired, order.paired)
            await ctx.tick()
            ctx.set(dut.prepare, 1)
            await ctx.tick()
            ctx.set(dut.prepare, 0)
            waited = 0
            while not ctx.get(dut.ready):
                await ctx.tick()
                waited += 1
            # A cycle each time that the repeated words fit between the two of a pair.
            assert waited == (far // order.period if order.rotate else 0), order
            for _ in range(2):
                ctx.set(dut.start, 1)
                await ctx.tick()
                ctx.set(dut.start, 0)
                assert ctx.get(dut.apart) == bool(far and order.paired), order
                for word in order.indices(lanes):
                    await ctx.tick().repeat(3)  # ROTATE steps every four cycles
                    assert ctx.get(dut.word) == word, order
                    if order.rotate:
                        assert ctx.get(dut.partner) == word ^ far, order
                        assert ctx.get(dut.repeated) == word % order.period, (order, word)
                    ctx.set(dut.step, 1)
                    await ctx.tick()
                    ctx.set(dut.step, 0)
            kinds.add((order.rotate, bool(far), order.paired))

    simulate(dut, bench, limit=40_000)
    assert len(kinds) == (4 if lanes == 1 else 6)  # with one lane all pairs are of two words


def test_a_word_each_cycle_without_rotate():
    config = CONFIGS["four"]
    dut = WordOrder(config)

    async def bench(ctx):
        ctx.set(dut.paired, 1)
        ctx.set(dut.operands.k, 16)
        ctx.set(dut.prepare, 1)
        await ctx.tick().repeat(2)
        ctx.set(dut.prepare, 0)
        assert ctx.get(dut.ready)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        ctx.set(dut.step, 1)
        for word in range(config.scratch_words):
            assert ctx.get(dut.word) == word and not ctx.get(dut.apart)
            await ctx.tick()

    simulate(dut, bench, limit=200)
