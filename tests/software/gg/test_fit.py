"""The distribution and its fits, with SciPy's gennorm as the oracle. Seeds are fixed."""

import math

import ml_dtypes
import numpy as np
import pytest
import torch
from scipy import stats

from rf8 import gg
from rf8.gg.fit import BLOCK

SHAPES = [0.3, 0.5, 1.0, 1.5, 2.0, 4.0]
METHODS = ["moments", "mle"]


def samples(shape, n, seed, scale=0.02):
    return gg.sample((n,), shape, scale, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [0.1, 0.3, 1.0, 1.7, 2.0, 4.0, 10.0])
def test_distribution_is_scipys(shape):
    theirs = stats.gennorm(shape, loc=0.1, scale=0.5)
    x = np.concatenate([np.linspace(-3, 3, 61), 0.1 + np.array([1e-9, -1e-9, 0])])
    np.testing.assert_allclose(
        gg.logpdf(x, shape, 0.5, 0.1), theirs.logpdf(x), rtol=1e-12, atol=1e-15
    )
    np.testing.assert_allclose(gg.cdf(x, shape, 0.5, 0.1), theirs.cdf(x), rtol=1e-10)
    q = np.array([1e-12, 1e-4, 0.02, 0.3, 0.49, 0.6, 0.9, 0.999])
    np.testing.assert_allclose(gg.ppf(q, shape, 0.5, 0.1), theirs.ppf(q), rtol=1e-9)
    assert list(gg.ppf(np.array([0.0, 0.5, 1.0]), shape, 0.5, 0.1)) == [-math.inf, 0.1, math.inf]
    assert np.isnan(gg.ppf(np.array([-0.1, 1.1]), shape, 0.5)).all()


def test_tensors_in_tensors_out():
    x = torch.tensor([[0.5, -1.0]])
    found = gg.cdf(x, 1.5, 1.0)
    assert isinstance(found, torch.Tensor) and found.shape == x.shape
    assert (gg.cdf(x.numpy(), 1.5, 1.0) == found.numpy()).all()
    torch.testing.assert_close(gg.ppf(found, 1.5, 1.0), x.double())


@pytest.mark.parametrize("shape", SHAPES)
def test_samples_pass_kolmogorov_smirnov(shape):
    x = samples(shape, 200_000, seed=42).double().numpy()
    assert stats.kstest(x, stats.gennorm(shape, scale=0.02).cdf).pvalue > 0.01


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", SHAPES)
def test_parameters_are_found_within_their_errors(shape, method):
    n, runs = 20_000, 24
    fits = [gg.fit(samples(shape, n, 100 + k), method) for k in range(runs)]
    for errors in (
        np.array([(f.shape - shape) / f.shape_se for f in fits]),
        np.array([(f.scale - 0.02) / f.scale_se for f in fits]),
    ):
        assert np.abs(errors).max() < 4
        # Were the stated errors right, this is a chi-square of 24 degrees of freedom.
        assert 0.001 < stats.chi2.cdf((errors**2).sum(), runs) < 0.999


@pytest.mark.parametrize("shape", [0.5, 1.3, 3.0])
def test_likelihood_is_scipys_and_at_its_maximum(shape):
    x = samples(shape, 3000, seed=7).double()
    x[:5] = 0  # ln 0 must do no harm
    found = gg.fit(x, "mle")
    theirs = stats.gennorm(found.shape, scale=found.scale)
    assert found.log_likelihood == pytest.approx(theirs.logpdf(x.numpy()).sum(), rel=1e-12)
    assert found.aic == 4 - 2 * found.log_likelihood
    for factor in (0.999, 1.001):
        for other in (
            stats.gennorm(found.shape * factor, scale=found.scale),
            stats.gennorm(found.shape, scale=found.scale * factor),
        ):
            assert other.logpdf(x.numpy()).sum() < found.log_likelihood
    assert found.gaussian_aic == pytest.approx(
        2 - 2 * stats.norm(scale=x.square().mean().sqrt()).logpdf(x.numpy()).sum(), rel=1e-9
    )
    assert found.laplace_aic == pytest.approx(
        2 - 2 * stats.laplace(scale=x.abs().mean()).logpdf(x.numpy()).sum(), rel=1e-9
    )
    by_moments = gg.fit(x)
    assert by_moments.log_likelihood == pytest.approx(
        stats.gennorm(by_moments.shape, scale=by_moments.scale).logpdf(x.numpy()).sum(), rel=1e-9
    )
    assert by_moments.log_likelihood < found.log_likelihood
    assert by_moments.std == pytest.approx(float(x.square().mean().sqrt()), rel=1e-9)


def test_gaussian_is_told_from_laplace():
    assert gg.fit(samples(1.0, 20_000, 1), "mle").beats_gaussian
    found = gg.fit(samples(2.0, 20_000, 3), "mle")
    assert abs(found.aic - found.gaussian_aic) < 12 and found.aic < found.laplace_aic - 100


@pytest.mark.parametrize("method", METHODS)
def test_chunks_are_the_whole(method):
    x = samples(0.8, 2 * BLOCK + 77, seed=3)
    whole = gg.fit(x, method)
    parts = gg.fit([x[:1000], x[1000 : BLOCK + 5].numpy(), x[BLOCK + 5 :]], method)
    for name, value in whole.as_dict().items():
        if name == "method":
            continue
        assert parts.as_dict()[name] == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", METHODS)
def test_narrow_floats_do_not_overflow(dtype, method):
    x = samples(1.0, 100_000, seed=5, scale=3000.0)
    x = x[x.abs() < 60_000]
    wide, narrow = gg.fit(x, method), gg.fit(x.to(dtype), method)
    assert narrow.shape == pytest.approx(wide.shape, rel=0.01)
    assert narrow.scale == pytest.approx(wide.scale, rel=0.01)
    huge = gg.fit(x.double() * 1e300, method)
    assert huge.shape == pytest.approx(wide.shape, rel=1e-4)
    assert huge.scale == pytest.approx(wide.scale * 1e300, rel=1e-4)


def test_location():
    x = samples(1.5, 50_000, seed=6) + 0.3
    found = gg.fit(x, "mle", loc=None)
    assert found.loc == pytest.approx(0.3, abs=1e-3) and found.shape == pytest.approx(1.5, abs=0.06)
    assert gg.fit(x - 0.3, "mle").shape == pytest.approx(found.shape, abs=1e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.empty(0), "w is empty"),
        ([], "w is empty"),
        (torch.zeros(9), "w: all 9 values are equally far from 0"),
        (torch.full((9,), -2.5), "w: all 9 values are equally far from 0"),
        (torch.tensor([1.0, math.nan, 2.0]), "w: 1 NaN or Inf in values 0 to 2"),
        (torch.tensor([1.0, math.inf, 2.0]), "w: 1 NaN or Inf"),
        (torch.arange(9), r"w: dtype torch\.int64, give floats"),
        (torch.tensor([1.0, -1.0, 1.001]), "needs a shape above 10"),
        (torch.cat([torch.ones(1), torch.full((100_000,), 1e-9)]), r"needs a shape below 0\.1"),
    ],
)
def test_bad_data(x, words, method):
    with pytest.raises(ValueError, match=words):
        gg.fit(x, method, name="w")


def test_all_that_holds_floats_is_fitted():
    x = samples(1.3, 20_000, seed=8).numpy()
    found = gg.fit(x)
    held = np.repeat(x, 2)
    held.flags.writeable = False
    for same in (x.astype(">f4"), held[::2], torch.tensor(held)[::2], iter([x]), x.reshape(2, -1)):
        assert gg.fit(same) == found
    for close in (
        x[::-1],
        (part for part in np.split(x, 10)),
        map(torch.tensor, np.split(x, 10)),
        x.astype(np.longdouble),
        x.astype(ml_dtypes.bfloat16),
        torch.tensor(x * 100).to(torch.float8_e4m3fn),
    ):
        assert gg.fit(close).shape == pytest.approx(found.shape, rel=0.02)


@pytest.mark.parametrize(
    ("kind", "factor"), [("f4", 1e-41), ("f4", 3.4e38), ("f8", 1e-310), ("f8", 1.7e308)]
)
@pytest.mark.parametrize("method", METHODS)
def test_the_ends_of_the_exponents(method, kind, factor):
    x = samples(1.3, 20_000, seed=8, scale=0.02).double()
    x = (x / x.abs().max()).numpy()
    found, wide = gg.fit(x, method), gg.fit((x * factor).astype(kind), method)
    assert wide.shape == pytest.approx(found.shape, rel=0.01)
    assert wide.scale == pytest.approx(found.scale * factor, rel=0.01)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.empty(3, device="meta"), "w: a tensor that is meta"),
        (torch.eye(3).to_sparse(), "w: a tensor that is sparse"),
        (np.ma.masked_array([1.0, 2.0], [0, 1]), "w: a masked array"),
        (np.array([1j]), "w: dtype complex128, give floats"),
        (np.array(["a"]), "w: dtype <U1, give floats"),
        (np.array([2**64 - 1], np.uint64), "w: dtype uint64, give floats"),
        (iter([]), "w is empty"),
        ([[1, 2]], "w: dtype int64, give floats"),
    ],
)
def test_what_holds_no_floats_is_named(x, words):
    with pytest.raises(ValueError, match=words):
        gg.fit(x, name="w")


def test_bad_parameters():
    with pytest.raises(ValueError, match="method must be"):
        gg.fit(torch.ones(3), "guess")
    for shape, scale in ((0, 1), (-1, 1), (1, 0), (math.nan, 1), (1, math.inf)):
        with pytest.raises(ValueError, match="must be positive and finite"):
            gg.cdf(np.zeros(1), shape, scale)
        with pytest.raises(ValueError, match="must be positive and finite"):
            gg.sample((1,), shape, scale)
