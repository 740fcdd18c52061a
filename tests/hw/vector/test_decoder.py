"""The decoder of VECTOR instructions, for everything that it looks at."""

from dataclasses import replace
from itertools import product

import pytest
from hardware import simulate, word_of
from vector_control import control_of

from golden.config import get_config
from golden.isa import FIELDS, After, Flag, Function, Instruction, Opcode, Output
from hw.vector.decoder import VectorDecoder

VECTOR = Instruction(opcode=Opcode.VECTOR, column=1, count=8, k=32, segments=1)


def instructions():
    for function, output, after in product(Function, Output, (After.NONE, After.MEAN)):
        yield replace(VECTOR, function=function, output=output, after=after)
    for function, k in product((Function.SHIFT, Function.ROTATE, Function.ANGLE), range(2, 33)):
        yield replace(VECTOR, function=function, k=k)
    for after in After:
        yield replace(VECTOR, after=after, output=Output.NONE)
    for bits in range(8):
        flags = (bits & 1) * Flag.LENGTH | (bits >> 1 & 1) * Flag.AMOUNT
        yield replace(VECTOR, flags=int(flags | (bits >> 2) * Flag.IMMEDIATE))


@pytest.mark.parametrize("act_bits", [8, 16])
def test_control_is_what_the_instruction_asks_for(act_bits):
    config = get_config("ecp5").replace(act_bits=act_bits)
    dut = VectorDecoder(config)

    async def bench(ctx):
        for i in instructions():
            ctx.set(dut.operands.as_value(), word_of({n: int(getattr(i, n)) for n in FIELDS}))
            want = control_of(i, config)
            bound = want.pop("bound")
            await ctx.tick()
            found = ctx.get(dut.control)
            assert {name: found[name] for name in want} == want, i
            await ctx.tick()  # a cycle later than the others
            assert ctx.get(dut.control.bound) == bound, i

    simulate(dut, bench, limit=2000)
