"""How many bits quantised weights take: entropy, and the lengths of real streams.

Symbols are integers, int64 [n]: multiples of a step, or RF8 codes. Every encoder writes a header
with all that its decoder needs, tables included, and has a decoder here; decoding is a loop in
Python, about a million symbols in some seconds, as its purpose is to prove the streams.
"""

from __future__ import annotations

import heapq
import math
import struct
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rf8.gg.fit import blocks

Symbols = NDArray[np.int64]

STEP = 2.0**-13
"""Of uniform quantisation, unless said otherwise."""
ZSTD_LEVEL = 3  # zstd's own default
MOST = 2**50
"""Magnitude of a symbol."""
CHUNK = 1 << 20  # symbols whose bits are laid out at a time, one bit a byte


def quantize_uniform(
    weights: ArrayLike | Tensor, step: float = STEP, *, name: str = "weights"
) -> Symbols:
    """Multiples of ``step`` nearest to float weights of any shape; ties to even.

    Raises ValueError for NaN or infinity, integers, a step that is not positive and finite, or one
    so small that multiples lie beyond 2^50, where float64 loses the last digits.
    """
    if not 0 < step < math.inf:
        raise ValueError(f"step must be positive and finite, got {step}")
    known = weights if isinstance(weights, np.ndarray | Tensor) else np.asarray(weights)
    parts = [block.double().cpu().numpy() for block in blocks(known, name)]
    values = np.concatenate([np.empty(0), *parts])
    if not np.isfinite(values).all():
        raise ValueError(f"{name} has {int((~np.isfinite(values)).sum())} NaN or Inf")
    with np.errstate(over="ignore"):
        multiples = np.rint(values / step)
    largest = float(np.abs(multiples).max(initial=0))
    if largest > MOST:
        raise ValueError(f"{name}: {largest:.3g} steps of {step:g}, at most 2^50: a larger step")
    symbols: Symbols = multiples.astype(np.int64)
    return symbols


def histogram(symbols: ArrayLike) -> tuple[Symbols, NDArray[np.int64]]:
    """The symbols that occur, rising, and how often each does."""
    values = _checked(symbols)
    low = int(values.min())
    if int(values.max()) - low <= 4 * len(values):
        counts = np.bincount(values - low)
        alphabet = np.flatnonzero(counts)
        return alphabet + low, counts[alphabet]
    alphabet, counts = np.unique(values, return_counts=True)
    return alphabet, counts


def entropy(symbols: ArrayLike) -> float:
    """Empirical entropy, ``-sum p log2 p``, in bits a symbol."""
    return entropy_of(histogram(symbols)[1])


def entropy_of(counts: NDArray[np.int64]) -> float:
    """Entropy of symbols that occur so often, in bits a symbol."""
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum()) + 0.0


def huffman_of(counts: NDArray[np.int64]) -> float:
    """Bits a symbol of the stream that `encode_huffman` makes of symbols that occur so often."""
    used = counts[counts > 0]
    body = -(-int((_huffman_lengths(used) * used).sum()) // 8)
    return 8 * (16 + 9 * len(used) + body) / int(used.sum())


def encode_golomb(symbols: ArrayLike, k: int, *, ranked: bool) -> bytes:
    """Exponential-Golomb code of order ``k``, 0 to 15.

    A number u >= 0 becomes ``u + 2^k`` in binary after as many zeros as that has bits beyond the
    first k + 1. Numbers are ranks by falling frequency, with the table in the stream, or symbols
    folded 0, -1, 1, -2, 2, ... to 0, 1, 2, 3, 4, ...
    """
    if not 0 <= k <= 15:
        raise ValueError(f"order k must be 0 to 15, got {k}")
    values = _checked(symbols)
    if ranked:
        alphabet, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        numbers = rank[inverse.ravel()]
        table = alphabet[order].astype("<i8").tobytes()
    else:
        numbers = np.where(values < 0, -2 * values - 1, 2 * values)
        table = b""
    words = (numbers + (1 << k)).astype(np.uint64)
    bits = np.frexp(words.astype(np.float64))[1]  # exact: words are below 2^53
    header = struct.pack("<QBQ", len(values), k, len(table) // 8)
    return header + table + _pack(words, 2 * bits - k - 1)


def decode_golomb(stream: bytes) -> Symbols:
    """The symbols of `encode_golomb`."""
    n, k, entries = struct.unpack_from("<QBQ", stream)
    start = struct.calcsize("<QBQ")
    table = np.frombuffer(stream, "<i8", entries, start)
    bits = _bits(stream[start + 8 * entries :])
    numbers, at = np.empty(n, np.int64), 0
    for i in range(n):
        one = bits.index("1", at)
        end = 2 * one - at + k + 1
        numbers[i] = int(bits[one:end], 2) - (1 << k)
        at = end
    if entries:
        return table[numbers]
    return np.where(numbers % 2 == 1, -(numbers + 1) // 2, numbers // 2)


def encode_huffman(symbols: ArrayLike) -> bytes:
    """Canonical Huffman code; the header has each symbol and the length of its word."""
    values = _checked(symbols)
    alphabet, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    lengths = _huffman_lengths(counts)
    words = _canonical(lengths)
    header = struct.pack("<QQ", len(values), len(alphabet))
    header += alphabet.astype("<i8").tobytes() + lengths.astype(np.uint8).tobytes()
    inverse = inverse.ravel()
    return header + _pack(words[inverse], lengths[inverse])


def decode_huffman(stream: bytes) -> Symbols:
    """The symbols of `encode_huffman`."""
    n, entries = struct.unpack_from("<QQ", stream)
    alphabet = np.frombuffer(stream, "<i8", entries, 16)
    lengths = np.frombuffer(stream, np.uint8, entries, 16 + 8 * entries).astype(np.int64)
    words = _canonical(lengths)
    known = {
        f"{int(w):0{int(size)}b}": int(s)
        for w, size, s in zip(words, lengths, alphabet, strict=True)
    }
    bits = _bits(stream[16 + 9 * entries :])
    values, at = np.empty(n, np.int64), 0
    for i in range(n):
        end = at + 1
        while bits[at:end] not in known:
            end += 1
        values[i] = known[bits[at:end]]
        at = end
    return values


def encode_zstd(symbols: ArrayLike) -> bytes:
    """zstd at its default level over the symbols in the narrowest integers that hold them."""
    import zstandard

    values = _checked(symbols)
    kind = next(
        t
        for t in ("u1", "<i2", "<i4", "<i8")
        if np.iinfo(t).min <= values.min() and values.max() <= np.iinfo(t).max
    )
    body = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(values.astype(kind).tobytes())
    return kind.rjust(3).encode() + body


def decode_zstd(stream: bytes) -> Symbols:
    """The symbols of `encode_zstd`."""
    import zstandard

    body = zstandard.ZstdDecompressor().decompress(stream[3:])
    return np.frombuffer(body, stream[:3].decode().strip()).astype(np.int64)


def rates(symbols: ArrayLike) -> dict[str, float]:
    """Bits a symbol by every measure: ``entropy``, ``huffman``, ``zstd``, and exponential-Golomb
    ``golomb-K`` and ``golomb-K-ranked`` for K = 0 to 3. All but the entropy are lengths of streams,
    headers and tables included."""
    values = _checked(symbols)
    streams: dict[str, Any] = {"huffman": encode_huffman(values), "zstd": encode_zstd(values)}
    result = {"entropy": entropy(values)}
    result |= {name: 8 * len(stream) / len(values) for name, stream in streams.items()}
    for k in range(4):
        for ranked in (False, True):
            size = len(encode_golomb(values, k, ranked=ranked))
            result[f"golomb-{k}{'-ranked' if ranked else ''}"] = 8 * size / len(values)
    return result


def _checked(symbols: ArrayLike) -> Symbols:
    values = np.asarray(symbols)
    if values.dtype.kind not in "iu":
        raise ValueError(f"symbols have dtype {values.dtype}, give integers")
    if values.size == 0:
        raise ValueError("there are no symbols")
    # Before the cast: the largest of uint64 would become negative.
    if int(values.min()) < -MOST or int(values.max()) > MOST:
        raise ValueError("symbols must lie within 2^50 of 0; take a larger step")
    return values.astype(np.int64).ravel()


def _pack(words: NDArray[Any], lengths: NDArray[Any]) -> bytes:
    """Words of the given lengths in bits, most significant first, one after the other."""
    parts: list[bytes] = []
    rest = np.empty(0, np.uint8)  # bits that fill no byte yet
    for first in range(0, len(words), CHUNK):
        part, sizes = words[first : first + CHUNK], lengths[first : first + CHUNK].astype(np.int64)
        starts = len(rest) + np.cumsum(sizes) - sizes
        bits = np.zeros(len(rest) + int(sizes.sum()), np.uint8)
        bits[: len(rest)] = rest
        for place in range(int(sizes.max())):  # from the last bit of each word
            has = np.flatnonzero((sizes > place) & (part >> np.uint64(place) & np.uint64(1) == 1))
            bits[starts[has] + sizes[has] - 1 - place] = 1
        whole = len(bits) // 8 * 8
        parts.append(np.packbits(bits[:whole]).tobytes())
        rest = bits[whole:]
    return b"".join([*parts, np.packbits(rest).tobytes()])


def _bits(stream: bytes) -> str:
    digits = np.unpackbits(np.frombuffer(stream, np.uint8)) + ord("0")
    return digits.tobytes().decode("ascii")


def _huffman_lengths(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Lengths of optimal words; 1 for a lone symbol."""
    if len(counts) == 1:
        return np.ones(1, np.int64)
    parent = np.zeros(2 * len(counts) - 1, np.int64)
    heap = [(int(count), node) for node, count in enumerate(counts)]
    heapq.heapify(heap)
    for node in range(len(counts), len(parent)):
        (a, left), (b, right) = heapq.heappop(heap), heapq.heappop(heap)
        parent[left] = parent[right] = node
        heapq.heappush(heap, (a + b, node))
    depth = np.zeros(len(parent), np.int64)
    for node in range(len(parent) - 2, -1, -1):
        depth[node] = depth[parent[node]] + 1
    if depth.max() > 63:
        raise ValueError("the rarest symbol would need a word of over 63 bits")
    return depth[: len(counts)]


def _canonical(lengths: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Words in order of length, then of symbol, each one more than the last."""
    words = np.zeros(len(lengths), np.uint64)
    word, last = 0, 0
    for symbol in np.lexsort((np.arange(len(lengths)), lengths)):
        word <<= int(lengths[symbol]) - last
        last = int(lengths[symbol])
        words[symbol] = word
        word += 1
    return words
