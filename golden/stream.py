"""Weight streams: the bytes of a matrix in the order in which the array takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.arith import Int64
from golden.config import BIAS_PLANES, AccelConfig
from golden.format import INTEGERS, in_span
from golden.isa import Flag, Instruction


def tile_slices(k: int, flags: int, config: AccelConfig) -> int:
    """Weight slices of one tile: header and ``k`` slices of codes."""
    return (BIAS_PLANES if flags & Flag.BIAS else 1) + k


def stream_beats(instruction: Instruction, config: AccelConfig) -> int:
    """Bus beats of a MATMUL's weight stream."""
    slices = instruction.count * tile_slices(instruction.k, instruction.flags, config)
    return -(-slices // config.slices_per_beat)


Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Tiles:
    """A weight stream, taken apart. N is tiles x rows, padding included.

    ``weights`` holds the integers W that the array multiplies by, [N, K] float64 (they are exact);
    ``exponents`` and ``bias`` are [N] int64.
    """

    weights: Any
    exponents: Int64
    bias: Int64


def unpack_tiles(stream: Bytes, instruction: Instruction, config: AccelConfig) -> Tiles:
    """Take a weight stream apart (see `golden.isa`, "Weight streams").

    Raises
    ------
    ValueError
        Where a code is invalid, or lies below the span of ``config``.
    """
    rows, count, k = config.rows, instruction.count, instruction.k
    slices = tile_slices(k, instruction.flags, config)
    tiles = stream[: count * slices * rows].reshape(count, slices, rows)
    head = slices - k
    exponents = tiles[:, 0].view(np.int8).astype(np.int64).reshape(-1)
    if head == BIAS_PLANES:
        planes = np.ascontiguousarray(tiles[:, 1:head].transpose(0, 2, 1))
        bias = planes.view("<i4").astype(np.int64).reshape(-1)
    else:
        bias = np.zeros(count * rows, np.int64)
    codes = tiles[:, head:].transpose(0, 2, 1)
    lookup = INTEGERS >> (16 - config.span)
    allowed = in_span(np.arange(256, dtype=np.uint8), config.span)
    if not allowed[codes].all():
        raise ValueError("the weight stream holds bytes that are no codes of this machine")
    weights = lookup.astype(np.float64)[codes].reshape(count * rows, k)
    return Tiles(weights, exponents, bias)


def pack_tiles(
    codes: Bytes, exponents: NDArray[np.int8], bias: Int64 | None, config: AccelConfig
) -> Bytes:
    """The weight stream of a matrix: the inverse of `unpack_tiles`.

    Parameters
    ----------
    codes: [N, K] RF8; missing rows of the last tile become zeros
    exponents: [N] row biases
    bias: [N] int32 values in units of the result, or None for a stream without bias

    Returns the bytes, padded with zeros to whole bus beats.
    """
    rows, (n, k) = config.rows, codes.shape
    tiles, head = -(-n // rows), 1 if bias is None else BIAS_PLANES
    size = tiles * (head + k) * rows
    stream = np.zeros(-(-size // config.bus_bytes) * config.bus_bytes, np.uint8)
    planes = stream[:size].reshape(tiles, head + k, rows)

    def put(target: Bytes, values: Bytes) -> None:
        """Fill [tiles, planes, rows] from [N, planes]."""
        full = n // rows
        target[:full] = (
            values[: full * rows].reshape(full, rows, values.shape[1]).transpose(0, 2, 1)
        )
        if full < tiles:
            target[full, :, : n - full * rows] = values[full * rows :].T

    put(planes[:, :1], exponents.view(np.uint8)[:, None])
    if bias is not None:
        put(planes[:, 1:head], bias.astype("<i4").view(np.uint8).reshape(n, 4))
    put(planes[:, head:], codes)
    return stream
