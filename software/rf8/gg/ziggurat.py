"""Exact generalized-Gaussian samples at nearly the speed of Gaussian ones.

Marsaglia and Tsang's ziggurat (J. Stat. Soft. 5(8), 2000) for the density ``exp(-x^v)``, x >= 0:
it is covered by layers of equal area, the lowest of which holds the tail. All but one in
150 samples cost one random integer, two table look-ups and a product. The rest is decided by the
density itself, so the only errors are those of rounding to float32.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

LAYERS = 512
INDEX_BITS = 10  # of a random integer of 63 bits: a layer and a sign; the others are a fraction
BLOCK = 1 << 15  # samples at a time: they stay in the cache, and threads need not be woken
LOOK = 1 << 23  # samples after which the undecided ones are looked at, so that those are many


@lru_cache(maxsize=64)
def _edges(shape: float) -> tuple[float, ...]:
    """Powers ``t = x^v`` of the layers' right ends, falling, from the tail's start to 0."""
    inverse = 1 / shape
    total = math.exp(math.lgamma(inverse)) / shape  # area under the density

    def build(start: float) -> list[float] | None:
        tail = float(torch.special.gammaincc(_f64(inverse), _f64(start)))
        area = start**inverse * math.exp(-start) + tail * total
        edges, height = [start], math.exp(-start)
        for _ in range(LAYERS - 1):
            height += area / edges[-1] ** inverse
            if height >= 1:
                return None  # the layers are too thick: the top comes too soon
            edges.append(-math.log(height))
        return edges

    # The largest area that leaves room for all layers; it falls as the tail starts further out.
    low, high = max(inverse, 1.0), 2 * inverse + 60.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if build(middle) is None else (low, middle)
    edges = build(high)
    assert edges is not None
    return (*edges[:-1], 0.0)


def _f64(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, device="cpu")


@lru_cache(maxsize=64)
def _tables(shape: float, scale: float, device: torch.device) -> tuple[Tensor, ...]:
    """Widths with sign and accepted shares, float32 [2 LAYERS]; heights, float64 [LAYERS + 1]."""
    powers = torch.tensor(_edges(shape), dtype=torch.float64, device="cpu")
    right = powers ** (1 / shape)
    height = (-powers).exp()
    # The lowest layer is as wide as a rectangle of its area, the tail's included.
    tail = torch.special.gammaincc(_f64(1 / shape), powers[0])
    beyond = tail * math.exp(math.lgamma(1 / shape)) / shape / height[0]
    width = torch.cat([(right[0] + beyond)[None], right[:-1]])
    share = right / width
    signed = torch.stack([width * scale, -width * scale], 1).flatten()
    floors = torch.cat([_f64(0.0)[None], height])
    tables = (signed.float(), share.repeat_interleave(2).float(), floors)
    return tuple(table.to(device) for table in tables)


@torch.no_grad()
def fill_(flat: Tensor, shape: float, scale: float, generator: torch.Generator | None) -> Tensor:
    """Fill float32 [n] in place with samples of the density ``exp(-(|x| / scale)^shape)``."""
    signed, share, floors = _tables(shape, scale, flat.device)

    def draw(out: Tensor) -> tuple[Tensor, Tensor]:
        """Fill ``out``; places that need another look, and what their layer and sign are."""
        bits = torch.empty(len(out), dtype=torch.int64, device=out.device)
        chosen = bits.random_(generator=generator) & (2 * LAYERS - 1)
        fraction = bits.bitwise_right_shift_(INDEX_BITS).float().mul_(2.0 ** (INDEX_BITS - 63))
        rejected = (fraction >= share.index_select(0, chosen)).nonzero().flatten()
        torch.mul(fraction, signed.index_select(0, chosen), out=out)
        return rejected, chosen[rejected]

    small = BLOCK if flat.device.type == "cpu" else LOOK
    for first in range(0, len(flat), LOOK):
        part = flat[first : first + LOOK]
        seen = [draw(part[k : k + small]) for k in range(0, len(part), small)]
        pending = torch.cat([places + k * small for k, (places, _) in enumerate(seen)])
        chosen = torch.cat([c for _, c in seen])
        while len(pending):
            x, layer = part[pending].double(), chosen >> 1
            low, high = floors[layer], floors[layer + 1]
            u = torch.rand(x.shape, dtype=x.dtype, device=x.device, generator=generator)
            under = low + u * (high - low) < (-((x.abs() / scale) ** shape)).exp()
            base = layer == 0
            tail = _tail(int(base.sum()), shape, x.device, generator)
            part[pending[base]] = (x[base].sign() * scale * tail).float()
            pending = pending[~(under | base)]
            fresh = torch.empty(len(pending), device=x.device, dtype=torch.float32)
            again, chosen = draw(fresh)
            part[pending] = fresh
            pending = pending[again]
    return flat


def _tail(n: int, shape: float, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """Float64 [n] of the density ``exp(-x^v)`` where ``x^v > start``, the lowest layer's end.

    ``t = x^v`` has density ``t^k e^-t``, ``k = 1/v - 1``. Proposed are shifted exponentials, of
    rate 1 for k <= 0, else ``1 - k / start``, the tangent's (``ln(t / start) <= t / start - 1``).
    """
    start, k = _edges(shape)[0], 1 / shape - 1
    rate = 1.0 if k <= 0 else 1 - k / start
    result = torch.empty(n, dtype=torch.float64, device=device)
    pending = torch.arange(n, device=device)
    while len(pending):
        u, v = torch.rand(2, len(pending), dtype=torch.float64, device=device, generator=generator)
        ratio = 1 - (1 - u).log() / (rate * start)
        bound = k * ratio.log() - (k * (ratio - 1) if k > 0 else 0)
        result[pending] = (start * ratio) ** (1 / shape)
        pending = pending[v >= bound.exp()]
    return result
