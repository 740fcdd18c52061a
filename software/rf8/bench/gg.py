"""Benchmarks of the generalized-Gaussian toolkit."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from rf8 import gg
from rf8.bench.figure import SEED, Figure, fastest, peak_bytes
from rf8.gg.deepshape import Reshaping, target

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
        name = f"GG initialisation of shape {shape} over normal_, 124 M"
        yield Figure(name, ours / gaussian, "x", 4, "lower")


def bench_deepshape() -> Iterator[Figure]:
    """DeepShape of 124 M weights, the fit included, and the peak memory of the whole process."""
    weights = gg.sample((WEIGHTS,), 1.5, 0.03, generator=torch.Generator().manual_seed(SEED))
    started = time.perf_counter()
    found = gg.fit(weights)
    shape = 0.8 * found.shape
    goal = target(WEIGHTS, shape, gg.gg_scale(shape, found.std**2))
    Reshaping(weights, goal).apply(weights)
    yield Figure("DeepShape, 124 M weights", time.perf_counter() - started, "s", 20, "lower")
    ratio = peak_bytes() / (4 * WEIGHTS)
    yield Figure("... peak memory over the weights", ratio, "x", 5, "lower")
