"""Where tensors lie in external memory, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

from golden.config import AccelConfig
from golden.isa import vector_words


@dataclass(frozen=True)
class Stream:
    """A matrix in memory as a weight stream (`golden.stream`).

    ``address``: of its first beat. ``inputs``: weights of a row. ``tiles``: of ``rows`` outputs
    each. ``bias``: whether tiles carry a layer bias. ``elements``: results, those of padding rows
    included."""

    address: int
    inputs: int
    tiles: int
    bias: bool
    elements: int


@dataclass(frozen=True)
class Cache:
    """Addresses of the keys and values of a layer; each list has an entry for each key-value head.

    ``keys``: a weight stream of tiles of positions, ``2 * padded`` weights a row. ``values``: a
    weight stream for each tile of channels, with a slice for each position. ``biases``: an int32
    exponent of the values for each position."""

    keys: list[int]
    values: list[list[int]]
    biases: list[int]


@dataclass(frozen=True)
class Heads:
    """The shape of a layer's attention.

    ``queries``, ``groups``: heads of queries, and of keys and values. ``width``: elements of a
    head; ``padded``: with the zeros that fill it up (`padded_width`). ``context``: the most
    positions."""

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
    """Elements of a head of ``width`` with zeros to fill it up: two such queries fill an activation
    block without a gap."""
    return -(-width // config.acts_per_word) * config.acts_per_word
