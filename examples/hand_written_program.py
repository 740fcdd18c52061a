"""A program written by hand: GELU of a sum of two vectors, on the simulated hardware.

    .venv/bin/python examples/hand_written_program.py --config tiny

docs/isa.md has every instruction. The host puts two vectors and a program into memory; the machine
loads them into the scratchpad, adds, applies GELU and stores the result, which is compared with the
golden machine, byte by byte over the whole memory, and with the formula.
"""

import argparse
import math

import numpy as np

from golden import layers
from golden.config import CONFIGS, RESULT_BITS, RESULT_FRAC
from golden.isa import Function, Instruction, Opcode, Output, encode_program, vector_words
from golden.machine import GoldenMachine
from sim.rtl import RtlMachine

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--config", choices=CONFIGS, default="sim", help="the accelerator")
config = CONFIGS[parser.parse_args().config]

# Two vectors of 21 numbers as int32 with RESULT_FRAC fraction bits.
COUNT = 21
random = np.random.default_rng(1)
a, b = (np.rint(random.normal(size=(2, COUNT)) * 2.0**RESULT_FRAC)).astype("<i4")
PROGRAM, A, B, RESULT = 0, 0x1000, 0x2000, 0x3000
memory = np.zeros(1 << 14, np.uint8)
memory[A : A + a.nbytes], memory[B : B + b.nbytes] = a.view(np.uint8), b.view(np.uint8)

words = vector_words(COUNT, config)  # of the scratchpad; a at word 0, b behind it
common = {
    "opcode": Opcode.VECTOR,
    "column": 1,  # one token
    "segments": 1,
    "count": COUNT,
    "k": RESULT_BITS,  # saturate to 32 bits
    "output": Output.WORDS,
}
instructions = [
    Instruction(opcode=Opcode.LOAD, address=A, count=words, dst=0),
    Instruction(opcode=Opcode.LOAD, address=B, count=words, dst=words),
    Instruction(**common, function=Function.ADD, src=0, other=words, dst=0),
    Instruction(**common, function=Function.GELU, src=0, dst=0),
    Instruction(opcode=Opcode.STORE, address=RESULT, count=words, src=0),
    Instruction(opcode=Opcode.HALT),
]
for instruction in instructions:
    print(instruction)
program = encode_program(instructions, config)
memory[PROGRAM : PROGRAM + len(program)] = np.frombuffer(program, np.uint8)

golden = GoldenMachine(memory.copy(), config)
golden.run(PROGRAM)
with RtlMachine(memory, config, progress=lambda stage: print(stage.name)) as machine:
    outcome = machine.run(PROGRAM)
assert not outcome.error, outcome

found = memory[RESULT : RESULT + 4 * COUNT].view("<i4")
x = (a.astype(float) + b) / 2**RESULT_FRAC
exact = np.array([v / 2 * math.erfc(-v / math.sqrt(2)) for v in x])
print(f"cycles               {outcome.counters['cycles']}")
print(f"gelu(a + b)          {(found[:4] / 2**RESULT_FRAC).round(4)} ...")
print(f"largest error        {np.abs(found - exact * 2**RESULT_FRAC).max():.2f} of the last bit")
print(f"differing bytes      {np.count_nonzero(memory != golden.memory)} of {memory.size}")
assert np.array_equal(memory, golden.memory)
assert np.array_equal(found, layers.activate(a.astype(np.int64) + b, "gelu"))
