"""The linear layers of a program for any number of tokens at once."""

from __future__ import annotations

import numpy as np
import torch

from golden import layers
from golden.arith import EXACT_FLOAT64, Int64, requantize
from golden.isa import Instruction, Opcode
from golden.machine import Tiles, unpack_tiles
from rf8.program import Kernel, Program


class Matrices:
    """The linear layers of a program for any number of tokens at once.

    The bits of the golden machine, without its columns and its scratchpad: a few large products
    instead of many small ones. Weights are unpacked on first use and kept, 8 bytes each.
    """

    def __init__(self, program: Program) -> None:
        largest = program.config.acc_bits - 1
        if 1 << largest > EXACT_FLOAT64:
            raise OverflowError(f"sums of {largest} bits are not exact in float64")
        self._program = program
        self._kept: dict[str, list[tuple[Instruction, Tiles]]] = {}

    def __call__(self, name: str, x: Int64) -> Int64:
        """Results [T, outputs] Q16 for activations [T, inputs] Q16."""
        kernel, config = self._program.kernels[name], self._program.config
        if name not in self._kept:
            self._kept[name] = self._unpacked(kernel)
        block = layers.block_quantize(x, config.act_bits)
        vectors = torch.from_numpy(block.mantissa.astype(np.float64))
        parts = []
        for i, tiles in self._kept[name]:
            dots = (vectors @ tiles.weights.T).numpy().astype(np.int64)
            parts.append(requantize(dots, tiles.exponents + block.exponent + i.shift, tiles.bias))
        return np.concatenate(parts, axis=1)[:, : kernel.outputs]

    def _unpacked(self, kernel: Kernel) -> list[tuple[Instruction, Tiles]]:
        start, weights = self._program.sections["weights"]
        found: list[tuple[Instruction, Tiles]] = []
        for _, i in self._program.instructions(kernel.programs[1]):
            if i.opcode is Opcode.MATMUL:
                tiles = unpack_tiles(weights[i.address - start :], i, self._program.config)
                wide = torch.from_numpy(tiles.weights)
                found.append((i, Tiles(wide, tiles.exponents, tiles.bias)))
        return found
