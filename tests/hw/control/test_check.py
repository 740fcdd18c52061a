"""The checker, against `golden.isa.check`, `golden.positions` and `golden.stream`."""

from dataclasses import replace

import numpy as np
import pytest
from hardware import simulate

from golden import isa
from golden.config import get_config
from golden.isa import FIELDS, Flag, Opcode, Output
from golden.positions import resolve
from golden.stream import stream_beats
from hw.control.check import Checker, Step, Sums
from sim.benches.instructions import (
    changed,
    fate,
    illegal_instructions,
    random_instruction,
    random_matmul,
)

SEED = 31
CONFIGS = {
    "tiny": get_config("tiny"),
    "ecp5": get_config("ecp5"),
    "narrow": get_config("ecp5").replace(rows=8, addr_bits=28, act_bits=8),
}


def random_cases(rng, config, count):
    """Encoded instructions, legal and not, with positions and tokens that are mostly near."""
    broken = [*illegal_instructions(config)]
    for _ in range(count):
        i = random_instruction(rng, config)
        kind = rng.random()
        data = i.encode()
        if kind < 0.15:
            data = broken[int(rng.integers(len(broken)))]
        elif kind < 0.45:
            data = changed(rng, i, config)
        near = max(1, i.count, min(i.immediate, 1 << 24))
        position = int(rng.choice([0, rng.integers(0, 8), rng.integers(0, near + 2)]))
        tokens = rng.integers(0, near + 2, config.cols).clip(0, (1 << 24) - 1).tolist()
        yield data, min(position, (1 << 24) - 1), tokens


def cycles(i, index):
    """From start to done, of a legal instruction that is resolved."""
    if i.opcode is Opcode.MATMUL:
        return 8 + i.count.bit_length()
    if i.opcode is Opcode.VECTOR:
        return 8 + 3 * (i.segments - 1).bit_length()
    if i.flags & (Flag.INDEX | Flag.TOKEN):
        return 6 + index.bit_length()
    return 4


async def judge(ctx, dut, data, position, tokens):
    """Start the checker, and wait until its answers are there; the cycles from start to done."""
    ctx.set(dut.start, 1)
    ctx.set(dut.position, position)
    for port, token in zip(dut.tokens, tokens, strict=True):
        ctx.set(port, token)
    await ctx.tick()
    ctx.set(dut.start, 0)
    ctx.set(dut.operands.as_value(), int.from_bytes(data, "little"))
    took = 1
    while not ctx.get(dut.done):
        await ctx.tick()
        took += 1
    await ctx.tick()
    assert not ctx.get(dut.done), "done for a second cycle"
    return took


def operands(ctx, view):
    value = ctx.get(view.as_value())
    return {name: value >> first & (1 << width) - 1 for name, (first, width, _) in FIELDS.items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_verdicts_are_those_of_the_definition(name):
    print("seed", SEED)
    config = CONFIGS[name]
    rng = np.random.default_rng(SEED)
    dut = Checker(config)
    seen = {"illegal": 0, "far": 0, **{opcode.name: 0 for opcode in Opcode}}

    async def bench(ctx):
        for data, position, tokens in random_cases(rng, config, 250):
            took = await judge(ctx, dut, data, position, tokens)
            await ctx.tick().repeat(int(rng.integers(1, 4)))  # answers stay
            want = fate(data, position, tokens, config)
            about = f"{data.hex()} at {position}, tokens {tokens}: {want}"
            assert ctx.get(dut.legal) == (not want.illegal), about
            if want.illegal:
                seen["illegal"] += 1
                continue
            assert ctx.get(dut.far) == want.far, about
            if want.far:
                seen["far"] += 1
                continue
            i = want.instruction
            index = resolve(isa.decode(data), position, tokens, config).index
            assert took == cycles(i, index), about
            word = {name: int(getattr(i, name)) & (1 << FIELDS[name][1]) - 1 for name in FIELDS}
            assert operands(ctx, dut.resolved) == word, about
            if i.flags & (Flag.INDEX | Flag.TOKEN) and i.opcode is not Opcode.VECTOR:
                assert ctx.get(dut.lane) == want.lane, about
            if i.opcode is Opcode.MATMUL:
                assert ctx.get(dut.beats) == want.beats, about
            seen[i.opcode.name] += 1

    simulate(dut, bench, limit=40_000)
    print(seen)
    assert all(n for kind, n in seen.items() if kind != "HALT")


def test_every_rule_is_kept():
    config = CONFIGS["tiny"]
    dut = Checker(config)

    async def bench(ctx):
        for data in illegal_instructions(config):
            await judge(ctx, dut, data, 0, [0] * config.cols)
            assert not ctx.get(dut.legal), data.hex()

    simulate(dut, bench, limit=20_000)


def ends(i, config):
    """The last word that each step is about, if it must be one of the scratchpad."""
    rotate = i.function == isa.Function.ROTATE
    words = isa.vector_words(i.count, config)
    far = i.segments - 1
    if i.opcode is Opcode.MATMUL:
        tile = config.rows // config.results_per_word
        source = i.src + isa.block_words(i.k, config) - 1
        return {Step.SOURCE: source, Step.TARGET: i.dst + i.count * tile - 1}
    if i.opcode in (Opcode.LOAD, Opcode.STORE):
        start = i.dst if i.opcode is Opcode.LOAD else i.src
        return {Step.SOURCE: start + isa.moved_words(i, config) - 1}
    found = {Step.SOURCE: i.src + far * i.src_stride + words - 1}
    if i.function in isa.READS_OTHER:
        read = 2 * i.immediate if rotate else words
        found[Step.OTHER] = i.other + far * i.other_stride + read - 1
    if i.output != Output.NONE:
        found[Step.TARGET] = i.dst + far * i.dst_stride + isa.output_words(i, config) - 1
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_terms_add_up(name):
    print("seed", SEED)
    config = CONFIGS[name]
    rng = np.random.default_rng(SEED)
    dut = Sums(config)
    added = dict.fromkeys(Step, 0)

    async def bench(ctx):
        for _ in range(150):
            i = random_instruction(rng, config)
            if i.opcode is Opcode.FENCE:
                continue
            index = int(rng.integers(1 << 25))
            ctx.set(dut.operands.as_value(), int.from_bytes(i.encode(), "little"))
            ctx.set(dut.count, i.count)
            ctx.set(dut.k, i.k)
            ctx.set(dut.index, index)
            await ctx.tick()
            want = ends(i, config)
            if i.opcode is Opcode.MATMUL:
                want[Step.PRODUCT] = stream_beats(i, config) * config.slices_per_beat
            elif i.opcode is not Opcode.VECTOR:
                want[Step.PRODUCT] = i.address // config.bus_bytes + index * i.k
            for step in Step:
                ctx.set(dut.step, step)
                terms = ctx.get(dut.o)
                total = terms["base"] + terms["part"] + terms["carry"]
                total += terms["times"] * terms["factor"]
                if step is Step.PRODUCT and i.opcode is Opcode.MATMUL:
                    total -= total % config.slices_per_beat
                if i.opcode is Opcode.VECTOR and step is not Step.PRODUCT:
                    assert terms["bound"] == (step in want), f"{step} of {i}"
                if step in want:
                    assert total == want[step], f"{step} of {i}"
                    added[step] += 1

    simulate(dut, bench, limit=1_000)
    assert all(added.values()), added


def test_chained_needs_a_matmul_before_and_a_source_apart():
    print("seed", SEED)
    config = CONFIGS["tiny"]
    rng = np.random.default_rng(SEED)
    dut = Checker(config)
    seen = {True: 0, False: 0}

    async def bench(ctx):
        before = None
        for number in range(250):
            i = random_instruction(rng, config)
            if rng.random() < 0.85:
                i = replace(random_matmul(rng, config), flags=0)
                if before is not None and before.opcode is Opcode.MATMUL and rng.random() < 0.7:
                    i = _beside(rng, i, before, config)
            if rng.random() < 0.05 or not number:
                before = None
                ctx.set(dut.first, 1)
                await ctx.tick()
                ctx.set(dut.first, 0)
            await judge(ctx, dut, i.encode(), 0, [0] * config.cols)
            assert ctx.get(dut.legal), i
            want = chains(before, i, config)
            assert ctx.get(dut.chained) == want, f"{i} after {before}"
            seen[want] += 1
            if rng.random() < 0.9 and not ctx.get(dut.far):  # else nobody took it
                before = i
                ctx.set(dut.taken, 1)
                await ctx.tick()
                ctx.set(dut.taken, 0)

    simulate(dut, bench, limit=20_000)
    print(seen)
    assert min(seen.values()) > 40


def _beside(rng, i, before, config):
    """The MATMUL with its source at an end of what the one before writes, if it may be there."""
    tile = config.rows // config.results_per_word
    first, past = before.dst, before.dst + before.count * tile
    size = isa.block_words(i.k, config)
    src = int(rng.choice([first - size, first - size + 1, past, past - 1]))
    moved = replace(i, src=src, column=before.column)
    try:
        isa.check(moved, config)
        moved.encode()
    except ValueError:
        return replace(i, column=before.column)
    return moved


def chains(before, i, config):
    """Whether a MATMUL may begin while what was before it still writes."""
    if before is None or {before.opcode, i.opcode} != {Opcode.MATMUL}:
        return False
    size = isa.block_words(i.k, config)
    tile = config.rows // config.results_per_word
    source = range(i.src, i.src + size)
    written = range(before.dst, before.dst + before.count * tile)
    return before.column == i.column and not {*source} & {*written}
