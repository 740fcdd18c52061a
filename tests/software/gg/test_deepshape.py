"""DeepShape against a sort: ranks, counts, ties, reports. Seeds are fixed."""

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rf8 import gg
from rf8.gg import deepshape as ds


def sorted_answer(x, goal):
    """Levels by a stable sort."""
    order = np.argsort(x.ravel().astype(np.float32) + np.float32(0), kind="stable")
    out = np.empty(x.size, np.float32)
    out[order] = np.repeat(goal.levels, goal.counts)
    return out.reshape(x.shape)


@pytest.fixture(params=["sorted", "counted"], autouse=True)
def way(request, monkeypatch):
    """Few values are sorted, many counted: every test goes both ways."""
    monkeypatch.setattr(ds, "FEW", {"sorted": 1 << 20, "counted": 0}[request.param])


def reshape(x, goal):
    return ds.Reshaping(x, goal).apply(x)


def weights(n, seed=0):
    return np.random.default_rng(seed).standard_t(4, n).astype(np.float32) * np.float32(0.05)


@pytest.mark.parametrize("n", [1, 2, 1000, 100_003])
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "constant", "few"])
def test_equals_a_stable_sort(n, kind):
    x = weights(n)
    if kind == "bfloat16":
        x = torch.from_numpy(x).bfloat16().float().numpy()
    elif kind == "constant":
        x[:] = 0.3
    elif kind == "few":
        x = np.round(x * 20) / np.float32(20)  # -0.0 among them
    goal = ds.target(n, 1.1, 0.04, min_count=1e-3)
    assert (reshape(x, goal) == sorted_answer(x, goal)).all()


finite = st.floats(-1e3, 1e3, width=32)


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(hnp.arrays(np.float32, st.integers(1, 80), elements=finite), st.floats(0.4, 4))
def test_ranks_are_kept_and_the_histogram_is_met(x, shape):
    goal = ds.target(x.size, shape, 3.0, step=0.5, min_count=1e-4)
    y = reshape(x, goal)
    order = np.argsort(x + np.float32(0), kind="stable")
    assert (np.diff(y[order]) >= 0).all()
    found = np.bincount((y / np.float32(0.5)).astype(int) - goal.first, minlength=len(goal.counts))
    assert (found == goal.counts).all()


def test_chunks_and_blocks_do_not_matter(monkeypatch):
    x = torch.from_numpy(weights(50_001)).bfloat16().float().numpy()
    goal = ds.target(len(x), 1.3, 0.05)
    whole = reshape(x, goal)
    monkeypatch.setattr(ds, "BLOCK", 1000)
    chunks = [x[:7], x[7:29_995].reshape(7, -1), x[29_995:]]
    mapped = ds.Reshaping(chunks, goal)
    parts = [mapped.apply(chunk) for chunk in chunks]
    assert parts[1].shape == chunks[1].shape
    assert (np.concatenate([p.ravel() for p in parts]) == whole).all()


@pytest.mark.parametrize("shape", [0.4, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("min_count", [0.05, 1.0, 40.0])
def test_target_counts(shape, min_count):
    n, scale, step = 123_457, 0.02, 2.0**-11
    goal = ds.target(n, shape, scale, step=step, min_count=min_count)
    assert goal.counts.sum() == n and goal.first == -(len(goal.counts) // 2)
    k = goal.first + np.arange(len(goal.counts))
    upper, lower = (gg.cdf((k + s) * step, shape, scale) for s in (0.5, -0.5))
    mass = upper - lower
    assert (np.abs(goal.counts - n * mass / mass.sum()) <= 1).all()
    # The last level is reached by enough values, the next one would not be.
    assert n * gg.cdf(np.array([(k[0] + 0.5) * step]), shape, scale)[0] >= min_count
    assert n * gg.cdf(np.array([(k[0] - 0.5) * step]), shape, scale)[0] < min_count


def test_fitted_shape_is_the_target():
    x = weights(1_000_000)
    goal = ds.target(len(x), 0.9, 0.01, step=2.0**-16, min_count=1e-3)
    found = gg.fit(reshape(x, goal), "mle")
    assert found.shape == pytest.approx(0.9, abs=0.01)
    assert found.scale == pytest.approx(0.01, rel=0.01)


def test_values_are_applied_once():
    x = weights(100)
    mapped = ds.Reshaping([x[:60], x[:0], x[60:]], ds.target(100, 1.0, 0.05, min_count=0.01))
    assert mapped.apply(x[:60]).shape == (60,) and mapped.apply(x[:0]).shape == (0,)
    mapped.apply(x[60:])
    with pytest.raises(ValueError, match="x has 100 values, and they were applied"):
        mapped.apply(x[:1])


def test_a_generator_is_as_good_as_a_list():
    x, goal = weights(100), ds.target(100, 1.0, 0.05, min_count=0.01)
    once = ds.Reshaping((part for part in np.split(x, 4)), goal)
    assert (once.apply(x[::-1][::-1].astype(">f4")) == ds.Reshaping(x, goal).apply(x)).all()


def test_change_says_what_happened_and_undoes_it():
    x = weights(20_000)
    goal = ds.target(len(x), 1.0, 0.03, step=2.0**-6)
    mapped = ds.Reshaping(x, goal)
    y = mapped.apply(x)
    done = ds.change(["w"], (2.0, 0.07), (1.0, 0.04), mapped)
    assert done.n == len(x)
    assert done.rms_change == pytest.approx(np.sqrt(np.mean((y - x).astype(float) ** 2)), rel=1e-5)
    back = done.undo(y)
    error = np.sqrt(np.mean((back - x).astype(float) ** 2))
    assert done.rms_undone == pytest.approx(error, rel=1e-4) and error < 0.3 * done.rms_change
    for level in np.unique(y):
        assert back[y == level] == pytest.approx(x[y == level].mean(), rel=1e-5, abs=1e-7)
    with pytest.raises(ValueError, match="values that are no levels"):
        done.undo(y + np.float32(0.001))


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.array([1.0, math.nan, 2.0], np.float32), "w has 1 NaN or Inf"),
        (np.array([1, 2, 3]), "w: dtype int64, give floats"),
        (np.zeros(2, np.float32), "w has 2 values, the target 3"),
        (np.zeros(0, np.float32), "w has 0 values, the target 3"),
    ],
)
def test_refused_values(x, words):
    goal = ds.target(3, 1.0, 1.0, step=1.0, min_count=0.01)
    with pytest.raises(ValueError, match=words):
        ds.Reshaping(x, goal, name="w")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shape": 0.0}, "shape must be positive"),
        ({"scale": math.inf}, "scale must be positive"),
        ({"step": -1.0}, "step must be positive"),
        ({"min_count": 0.0}, "min_count must be positive"),
        ({"min_count": 501.0}, "1000 values have no tails of 501 each: take a smaller min_count"),
        ({"step": 1e-9, "min_count": 1e-12}, "larger step"),
    ],
)
def test_refused_targets(options, words):
    with pytest.raises(ValueError, match=words):
        ds.target(1000, **({"shape": 1.0, "scale": 1.0, "step": 0.1} | options))
