"""One matrix product on the simulated hardware, from NumPy and back.

    .venv/bin/python examples/matrix_product.py            # config sim; builds the simulator once
    .venv/bin/python examples/matrix_product.py --config tiny --waveform product.fst

A matrix is rounded to RF8, a vector to block floating point; both go to the accelerator's memory as
it wants them, with a program of four instructions. What comes back is compared, bit by bit, with
the exact integers that NumPy computes, and with the float product to see what rounding costs.
"""

import argparse
from pathlib import Path

import numpy as np

from golden.arith import requantize
from golden.config import CONFIGS, RESULT_FRAC
from golden.format import INTEGERS, encode, row_bias
from golden.isa import Instruction, Opcode, block_words, encode_program
from golden.layers import block_quantize
from golden.stream import pack_tiles
from sim.rtl import RtlMachine

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--config", choices=CONFIGS, default="sim", help="the accelerator")
parser.add_argument("--waveform", type=Path, help="an FST file to write")
options = parser.parse_args()
config = CONFIGS[options.config]

# A layer of 10 outputs and 37 inputs: no multiple of anything in the machine.
random = np.random.default_rng(1)
matrix = random.laplace(size=(10, 37)).astype(np.float32)
vector = random.normal(size=37).astype(np.float32)

# RF8: a power of two for each row, a code for each weight. The vector: 16-bit mantissas, one
# exponent; first as fixed point with RESULT_FRAC fraction bits, as everything between layers is.
bias = row_bias(matrix)
codes = encode(matrix, bias[:, None], span=config.span)
fixed = np.rint(vector * 2.0**RESULT_FRAC).astype(np.int64)
block = block_quantize(fixed, config.act_bits)

# Memory: the program, the block of activations, the weight stream, and room for the results.
PROGRAM, BLOCK, WEIGHTS, RESULTS = 0, 0x1000, 0x2000, 0x8000
memory = np.zeros(1 << 16, np.uint8)
bus, words = config.bus_bytes, block_words(len(vector), config)
memory[BLOCK] = np.int8(block.exponent[0]).view(np.uint8)  # a word of its own
mantissas = block.mantissa.astype(f"<i{config.act_bits // 8}").view(np.uint8)
memory[BLOCK + bus : BLOCK + bus + mantissas.size] = mantissas
stream = pack_tiles(codes, bias, None, config)
memory[WEIGHTS : WEIGHTS + stream.size] = stream
tiles = -(-len(matrix) // config.rows)
result_words = tiles * config.rows // config.results_per_word
program = encode_program(
    [
        Instruction(opcode=Opcode.LOAD, address=BLOCK, count=words, dst=0),
        Instruction(
            opcode=Opcode.MATMUL,
            column=1,  # one token
            shift=config.result_shift,  # from the units of the sums to those of results
            address=WEIGHTS,
            count=tiles,
            k=len(vector),
            src=0,
            dst=words,
        ),
        Instruction(opcode=Opcode.STORE, address=RESULTS, count=result_words, src=words),
        Instruction(opcode=Opcode.HALT),
    ],
    config,
)
memory[PROGRAM : PROGRAM + len(program)] = np.frombuffer(program, np.uint8)


def built(stage):
    print(stage.name, "...")


with RtlMachine(memory, config, waveform=options.waveform, progress=built) as machine:
    outcome = machine.run(PROGRAM)
assert not outcome.error, outcome

found = memory[RESULTS : RESULTS + 4 * len(matrix)].view("<i4")
weights = INTEGERS[codes].astype(np.int64) >> (16 - config.span)  # what lanes multiply by
scale = bias.astype(np.int64) + block.exponent + config.result_shift
expected = requantize(weights @ block.mantissa, scale)
print(f"cycles               {outcome.counters['cycles']}")
print(f"results              {(found[:4] / 2**RESULT_FRAC).round(4)} ...")
print(f"float product        {(matrix @ vector)[:4].round(4)} ...")
print(f"differences          {np.count_nonzero(found != expected)} of {len(found)}")
assert np.array_equal(found, expected)
