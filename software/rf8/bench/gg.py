"""Benchmarks of the generalized-Gaussian toolkit."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from rf8 import gg
from rf8.bench.figure import SEED, Figure, fastest

WEIGHTS = 124_000_000
SCIPY = 1_000_000  # values that SciPy fits in some seconds


def bench_fit() -> Iterator[Figure]:
    """Fits of 124 M float32 values on all cores, and of fewer beside SciPy."""
    from scipy import stats

    generator = torch.Generator().manual_seed(SEED)
    x = gg.sample((WEIGHTS,), 1.5, 0.02, generator=generator)
    moments = fastest(lambda: gg.fit(x), 3)
    yield Figure("GG fit by moments, 124 M values", moments, "s", 1.5, "lower")
    likelihood = fastest(lambda: gg.fit(x, "mle"), 1)
    yield Figure("GG fit by likelihood over by moments", likelihood / moments, "x", 15, "lower")
    few = x[:SCIPY].double()
    started = time.perf_counter()
    stats.gennorm.fit(few.numpy(), floc=0)
    theirs = time.perf_counter() - started
    ours = fastest(lambda: gg.fit(few), 5)
    yield Figure("scipy.stats.gennorm.fit over by moments, 1 M", theirs / ours, "x", 100)


def bench_init() -> Iterator[Figure]:
    """GG initialisation of 124 M weights beside torch's Gaussian one."""
    weights = torch.empty(1000, WEIGHTS // 1000)
    generator = torch.Generator().manual_seed(SEED)
    gaussian = fastest(lambda: torch.nn.init.normal_(weights, generator=generator), 3)
    for shape in (0.5, 1.5):
        ours = fastest(lambda v=shape: gg.gg_(weights, v, generator=generator), 3)  # type: ignore[misc]
        name = f"GG initialisation, shape {shape}, over normal_, 124 M"
        yield Figure(name, ours / gaussian, "x", 4, "lower")
