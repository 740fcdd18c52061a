"""The sampler against the incomplete gamma function, where a ziggurat could go wrong: at the edges
of its layers and in its tail. Seeds are fixed."""

import math
from itertools import pairwise

import pytest
import torch
from scipy import special, stats

from rf8 import gg
from rf8.gg import ziggurat

SHAPES = [0.1, 0.3, 0.5, 1.0, 1.5, 2.0, 4.0, 10.0]
N = 2_000_000


def powers(shape, seed, scale=0.7):
    x = gg.sample((N,), shape, scale, generator=torch.Generator().manual_seed(seed))
    return (x.double().abs() / scale) ** shape


@pytest.mark.parametrize("shape", SHAPES)
def test_layers_have_equal_areas(shape):
    edges = ziggurat._edges(shape)
    assert len(edges) == ziggurat.LAYERS and edges[-1] == 0
    heights = [math.exp(-t) for t in edges]
    rest = special.gammaincc(1 / shape, edges[0]) * math.gamma(1 / shape) / shape
    base = edges[0] ** (1 / shape) * heights[0] + rest
    for k, (low, high) in enumerate(pairwise(heights)):
        area = edges[k] ** (1 / shape) * (high - low)
        # The topmost layer takes what the bisection leaves over.
        assert area == pytest.approx(base, rel=1e-9 if k < len(edges) - 2 else 1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_layer_and_the_tail_have_their_share(shape):
    edges = torch.tensor(ziggurat._edges(shape)).double().flip(0)
    counts = torch.bincount(torch.bucketize(powers(shape, 11), edges), minlength=len(edges) + 1)[1:]
    below = special.gammainc(1 / shape, edges.numpy())
    shares = torch.tensor([*below[1:], 1.0]) - torch.tensor(below)
    # Innermost layers of peaked shapes hold next to nothing: merge what expects few.
    many = shares * N > 20
    found = torch.cat([counts[many], counts[~many].sum()[None]]).double()
    wanted = torch.cat([shares[many], shares[~many].sum()[None]]) * N
    keep = wanted > 5
    # What a merged share below five leaves out must not count.
    wanted = wanted[keep] * (found[keep].sum() / wanted[keep].sum())
    assert stats.chisquare(found[keep].numpy(), wanted.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("shape", SHAPES)
def test_tail(shape):
    start = ziggurat._edges(shape)[0]
    tail = powers(shape, 12)
    tail = tail[tail > start].numpy()
    share = special.gammaincc(1 / shape, start)
    assert abs(len(tail) - N * share) < 4 * math.sqrt(N * share)
    uniform = special.gammaincc(1 / shape, tail) / share
    assert stats.kstest(uniform, "uniform").pvalue > 1e-3


def test_signs_are_fair_and_independent_of_size():
    x = gg.sample((N,), 1.5, 1.0, generator=torch.Generator().manual_seed(13)).double()
    for part in (x, x[x.abs() < 0.3], x[x.abs() > 1.5]):
        assert abs(float((part > 0).double().mean()) - 0.5) < 4 / (2 * math.sqrt(len(part)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_default_dtype_does_not_matter(dtype):
    expected = gg.sample((5000,), 1.3, 0.1, generator=torch.Generator().manual_seed(15))
    torch.set_default_dtype(dtype)
    try:
        found = gg.sample((5000,), 1.3, 0.1, generator=torch.Generator().manual_seed(15))
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == torch.float32 and (found == expected).all()


def test_edges_of_the_range():
    assert gg.gg_(torch.empty(4, 0), 1.0).shape == (4, 0)
    assert gg.sample((0,), 1.0, 1.0).shape == (0,)
    assert torch.isfinite(gg.sample((1000,), 0.05, 1e-30)).all()
    with pytest.raises(ValueError, match=r"shape 0\.005 is too small"):
        gg.sample((3,), 0.005, 1.0)


def test_blocks_leave_no_seams(monkeypatch):
    """A length that is no multiple of a block is filled to its end, block by block."""
    monkeypatch.setattr(ziggurat, "BLOCK", 1000)
    monkeypatch.setattr(ziggurat, "LOOK", 10_000)
    x = gg.sample((123_457,), 1.0, 1.0, generator=torch.Generator().manual_seed(14)).double()
    assert (x != 0).all()
    assert stats.kstest(x.numpy(), stats.laplace().cdf).pvalue > 1e-3
    assert stats.kstest(x[-3457:].numpy(), stats.laplace().cdf).pvalue > 1e-3
