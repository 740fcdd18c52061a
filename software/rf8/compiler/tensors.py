"""Where tensors lie in external memory, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from golden.config import AccelConfig
from golden.isa import vector_words


@dataclass(frozen=True)
class Stream:
    """A matrix in memory, as tiles of ``rows`` outputs by ``inputs`` weights.

    ``elements``: results, padding rows included.
    """

    address: int
    inputs: int
    tiles: int
    bias: bool
    elements: int


@dataclass(frozen=True)
class Cache:
    """Where the keys and values of a layer lie, each list by key-value head.

    ``keys``: tiles of positions, ``2 * width`` weights each; ``values``: for each tile of channels
    an address, a slice for each position; ``biases``: int32 exponents of the values.
    """

    keys: list[int]
    values: list[list[int]]
    biases: list[int]


@dataclass(frozen=True)
class Heads:
    """Shape of attention, widths padded to whole words: see `padded_width`."""

    queries: int
    groups: int
    width: int
    padded: int
    context: int

    def tiles(self, config: AccelConfig) -> int:
        """Tiles of channels of a head's values."""
        return -(-self.padded // config.rows)

    def stride(self, config: AccelConfig) -> int:
        """Elements from one head to the next in the context vector."""
        return vector_words(self.width, config) * config.results_per_word


def padded_width(width: int, config: AccelConfig) -> int:
    """Elements that a head's query takes: two of them fill a block without a gap."""
    return -(-width // config.acts_per_word) * config.acts_per_word


def interleaved_rows(width: int) -> NDArray[np.int64]:
    """Order of a head's rows in which the pairs i and i + width/2 are neighbours."""
    return np.arange(width).reshape(2, -1).T.reshape(-1)
