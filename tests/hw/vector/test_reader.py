"""The reader: every word that it reads, with what goes along, against loops."""

from dataclasses import replace

import numpy as np
import pytest
from hardware import simulate, word_of
from vector_control import control_of

from golden import isa
from golden.config import get_config
from golden.isa import FIELDS, READS_OTHER, Flag, Function, Output
from golden.positions import lengths, starts
from hw.vector.reader import VectorReader
from sim.benches.vectors import random_vector

SEED = 281
CONFIGS = {
    "one": get_config("tiny").replace(scratch_words=64),
    "four": get_config("ecp5").replace(scratch_words=64),
}


def apart(i, config):
    """By how many words those of a pair are apart that follow each other; else 0."""
    whole = i.output not in (Output.BLOCK, Output.MANTISSAS, Output.CODES)
    return i.k // config.results_per_word if i.function == Function.ROTATE and whole else 0


def word_order(i, words, config):
    """Indices of results in order."""
    far = apart(i, config)
    if not far:
        return [*range(words)]
    firsts = [n for n in range(words) if not n & far]
    return [n for first in firsts for n in (first, first | far)]


def expected(i, position, config):
    """Segment by segment: column, segment, elements, and the reads.

    A read is an address with ``step``, ``second``, ``valid`` and, where results come of it, the
    index, first, last and mask.
    """
    lanes = config.results_per_word
    counts, begins = lengths(i, position).tolist(), starts(i, position).tolist()
    words = isa.vector_words(counts[-1], config)
    indices = word_order(i, words, config)
    far = i.k // lanes if i.function == Function.ROTATE else 0
    for column in range(i.column):
        places = np.arange(words * lanes).reshape(words, lanes)
        seen = (begins[column] <= places) & (places < counts[column])
        for segment in range(i.segments):
            src = i.src + segment * i.src_stride
            other = i.other + segment * i.other_stride
            reads = []
            for number, n in enumerate(indices):
                mask = int(seen[n] @ (1 << np.arange(lanes)))
                ends = {"index": n, "first": int(number == 0), "last": int(number == words - 1)}
                along = {"step": 1, "second": 0, "valid": 1, **ends, "mask": mask}
                beside = {"step": 0, "second": 0, "valid": 0}
                if i.function == Function.ROTATE:
                    here = n % i.immediate
                    first = {"step": 1, "second": 0, "valid": 0}
                    reads += [(src + n, first), (other + here, beside)]
                    second = {**along, "second": 1}
                    reads += [(src + (n ^ far), second)]
                    reads += [(other + i.immediate + here, {**beside, "second": 1})]
                else:
                    reads += [(src + n, along)]
                    if i.function in READS_OTHER:
                        reads += [(other + n, beside)]
            yield column, segment, counts[column], reads


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("stalls", [0, 0.3])
def test_every_read(name, stalls):
    print("seed", SEED)
    config, rng = CONFIGS[name], np.random.default_rng(SEED)
    dut = VectorReader(config)
    functions = [Function.SHIFT, Function.ADD, Function.ROTATE, Function.ROTATE]

    cycle, banks = 0, {}  # the columns whose words come in later cycles

    async def tick(ctx):
        nonlocal cycle
        await ctx.tick()
        cycle += 1
        if cycle in banks:
            assert ctx.get(dut.bank) == banks.pop(cycle), cycle

    async def bench(ctx):
        for number in range(24):
            position = int(rng.choice([0, rng.integers(20)]))
            i = random_vector(rng, config, position, functions[number % 4])
            if number % 8 == 4:
                size = int(rng.choice([1, rng.integers(1, 20), 1 << 16, 1 << 20]))
                flags = Flag.LENGTH | Flag.WINDOW
                i = replace(i, flags=flags, immediate=size, count=position + i.column)
            if i.count > 100:
                i = replace(i, segments=1)
            fields = {name: int(getattr(i, name)) for name in FIELDS}
            ctx.set(dut.operands.as_value(), word_of(fields))
            ctx.set(dut.position, position)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            await ctx.tick()
            ctx.set(dut.control, control_of(i, config))
            for column, segment, count, reads in expected(i, position, config):
                while True:
                    busy = int(rng.random() < stalls)
                    ctx.set(dut.busy, busy)
                    assert not (busy and ctx.get(dut.load)), i
                    if ctx.get(dut.load):
                        break
                    await tick(ctx)
                assert (ctx.get(dut.column), ctx.get(dut.segment)) == (column, segment), i
                ctx.set(dut.busy, 0)
                await tick(ctx)
                assert not ctx.get(dut.load) and not ctx.get(dut.take)
                await tick(ctx)
                assert ctx.get(dut.take), i
                assert ctx.get(dut.place) == position + column
                assert ctx.get(dut.count) == count, i
                await tick(ctx)
                # The address of a read is there a cycle after it was issued.
                done, wait = 0, False
                group = 4 if i.function == Function.ROTATE else 1 + (i.function in READS_OTHER)
                # The last word waits, or the last pair.
                hold_at = len(reads) - group * (2 if apart(i, config) else 1)
                while done < len(reads):
                    pending = int(rng.random() < stalls)
                    ctx.set(dut.pending, pending)
                    wait = pending and done == hold_at
                    assert ctx.get(dut.leave) == (not wait and done == len(reads) - 1), (i, done)
                    await tick(ctx)
                    if wait:
                        assert not ctx.get(dut.read_enable), i
                        continue
                    address, along = reads[done]
                    assert ctx.get(dut.read_enable), (i, done)
                    assert ctx.get(dut.read_address) == address % config.scratch_words, (i, done)
                    sideband = ctx.get(dut.sideband)
                    assert {name: sideband[name] for name in along} == along, (i, done)
                    banks[cycle + 2] = column
                    done += 1
                ctx.set(dut.pending, 0)
            for _ in range(8):
                await tick(ctx)
                assert not ctx.get(dut.read_enable) and not ctx.get(dut.load), i

    simulate(dut, bench, limit=40_000)
