"""The rules of single fields, against `golden.isa.check`."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hardware import simulate, word_of

from golden import isa
from golden.config import CONFIGS
from golden.isa import FIELDS, Flag, Function, Instruction, Opcode, Output
from hw.control.rules import Rules

SEED = 21


def bases(config):
    """Legal instructions of all kinds, whose operands lie in the scratchpad whatever of them but
    count changes."""
    by_byte = isa.exact_log2(config.bus_bytes)
    move = {"address": 16 * config.bus_bytes, "count": 2, "column": config.cols - 1}
    index = {"shift": by_byte, "k": 3, "immediate": 100}
    vector = {"opcode": Opcode.VECTOR, "column": config.cols, "count": 8, "k": 16, "segments": 2}
    yield Instruction(
        opcode=Opcode.MATMUL, column=1, address=16 * config.bus_bytes, count=1, k=4,
        src=config.scratch_words // 4, dst=0, flags=Flag.BIAS | Flag.LENGTH,
    )  # fmt: skip
    yield Instruction(opcode=Opcode.LOAD, **move)
    yield Instruction(opcode=Opcode.LOAD, **move, **index, flags=Flag.INDEX)
    yield Instruction(opcode=Opcode.LOAD, **move, **index, flags=Flag.TOKEN)
    yield Instruction(opcode=Opcode.LOAD, **move, flags=Flag.LENGTH)
    yield Instruction(opcode=Opcode.STORE, **move)
    yield Instruction(opcode=Opcode.STORE, **move, **index, flags=Flag.INDEX)
    yield Instruction(**vector, function=Function.ADD)
    yield Instruction(**{**vector, "k": 4}, function=Function.ROTATE, immediate=4)
    yield Instruction(opcode=Opcode.FENCE)
    yield Instruction(opcode=Opcode.HALT)


def values(rng, name, i, config):
    """What a field may be instead: around every limit, with single bits changed, anything."""
    _, width, _ = FIELDS[name]
    limits = {0, config.cols, config.max_k, config.scratch_words, isa.SEGMENTS, 32, 1 << width - 1}
    limits |= {len(Function), len(isa.After), len(Output), 1 << config.addr_bits, config.bus_bytes}
    around = {n + d for n in (*limits, int(getattr(i, name))) for d in (-1, 0, 1)}
    flipped = {int(getattr(i, name)) ^ 1 << bit for bit in range(width)}
    if name in ("src", "dst", "other", "src_stride", "other_stride", "dst_stride"):
        # Of an operand that counts, where it ends is for others to judge.
        around, flipped = {0, 1}, set()
    if name == "count":
        around, flipped = {*range(20), 24, 32}, set()
    found = {
        n % (1 << width) for n in around | flipped | {*rng.integers(0, 1 << width, 3).tolist()}
    }
    if name not in (*isa.USES[i.opcode], "opcode"):
        found = {0, 1, 1 << width - 1}
    elif name in ("flags", "function", "after", "output", "segments", "shift"):
        found = set(range(256)) if config.name == "tiny" else found
    if name in ("src", "dst", "other", "count") or name.endswith("stride"):
        found = {n for n in found if n <= 32 or name not in isa.USES[i.opcode]}
    return sorted(found)


def refused(word, config):
    """Whether it breaks a rule; and which."""
    try:
        isa.check(isa.decode(word.to_bytes(32, "little")), config)
    except isa.IllegalInstruction as error:
        return True, str(error)
    return False, ""


def cases(config):
    rng = np.random.default_rng(SEED)
    for i in bases(config):
        isa.check(i, config)
        fields = {name: int(getattr(i, name)) for name in FIELDS}
        for name in FIELDS:
            for value in values(rng, name, i, config):
                yield word_of({**fields, name: value})
    rotate = replace(i, opcode=Opcode.VECTOR, column=1, segments=1, function=Function.ROTATE)
    for k in range(18):
        for count in range(0, 50, 2):
            fields = {name: int(getattr(rotate, name)) for name in FIELDS}
            yield word_of({**fields, "k": k, "count": count, "immediate": 5})
    for output in Output:
        fields = {name: int(getattr(rotate, name)) for name in FIELDS}
        yield word_of({**fields, "k": 2, "count": 8, "immediate": 5, "output": output})


@pytest.mark.parametrize("name", CONFIGS)
def test_rules_are_those_of_the_definition(name):
    print("seed", SEED)
    config = CONFIGS[name].replace(addr_bits=30 if name == "ecp5" else 32)
    dut = Rules(config)
    reasons = {}

    async def bench(ctx):
        for word in cases(config):
            want, why = refused(word, config)
            if "past word" in why or "overlap" in why:
                continue  # another's rule
            ctx.set(dut.operands.as_value(), word)
            await ctx.tick().repeat(dut.latency)
            assert ctx.get(dut.refused) == want, f"{word:064x} {why or 'legal'}"
            reason = re.sub("0x..|[0-9]+", "#", why.rpartition(": ")[2])
            reasons[reason] = reasons.get(reason, 0) + 1

    simulate(dut, bench, limit=100_000)
    print(reasons)
    assert reasons[""] > 100 and len(reasons) > 30
