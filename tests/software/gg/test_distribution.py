"""GG initialisation against the closed-form moments of the generalized Gaussian."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from rf8 import gg

SHAPES = [0.5, 1.0, 1.5, 2.0, 8.0]


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _absolute_moment(shape: float, order: float) -> float:
    """E|x|**order of the GG of unit variance: a**order * G((order + 1) / v) / G(1 / v)."""
    a = math.sqrt(math.gamma(1 / shape) / math.gamma(3 / shape))
    return float(a**order) * math.gamma((order + 1) / shape) / math.gamma(1 / shape)


def _model(n_layer: int = 3, tied: bool = True) -> Any:
    """A small GPT-2; untyped, because transformers' submodules are."""
    config = GPT2Config(vocab_size=500, n_positions=64, n_embd=128, n_layer=n_layer, n_head=2)
    config.tie_word_embeddings = tied
    return GPT2LMHeadModel(config)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", [0.5, 1, 2])
def test_moments(shape: float, order: float) -> None:
    n = 1000
    x = gg.gg_(torch.empty(1000, n), shape, gain=3.0, generator=_generator()).double()
    unit = x * math.sqrt(n / 3.0)
    moment, expected = unit.abs().pow(order).mean().item(), _absolute_moment(shape, order)
    spread = math.sqrt(_absolute_moment(shape, 2 * order) - expected**2)
    assert abs(moment - expected) < 5 * spread / math.sqrt(x.numel())
    assert abs(unit.mean().item()) < 5 / math.sqrt(x.numel())


@pytest.mark.parametrize("shape", SHAPES)
def test_distribution(shape: float) -> None:
    """|x / a|**v is Gamma(1/v): compare its distribution function, Kolmogorov-Smirnov at 1e-6."""
    x = gg.gg_(torch.empty(200, 200), shape, generator=_generator(1)).double()
    t = (x.abs() / gg.gg_scale(shape, 1 / 200)).pow(shape).flatten().sort().values
    cdf = torch.special.gammainc(torch.full_like(t, 1 / shape), t)
    empirical = (torch.arange(len(t)) + 0.5) / len(t)
    assert (cdf - empirical).abs().max() < 2.7 / math.sqrt(len(t))


def test_shape_two_is_gaussian() -> None:
    assert gg.gg_scale(2.0, 1.0) == pytest.approx(math.sqrt(2))
    assert gg.gg_scale(1.0, 2.0) == pytest.approx(1.0)  # Laplace: variance 2 a**2


@pytest.mark.parametrize(
    ("size", "mode", "n"),
    [
        ((300, 700), "fan_in", 700),
        ((300, 700), "fan_out", 300),
        ((64, 32, 5, 5), "fan_in", 32 * 25),
        ((64, 32, 5, 5), "fan_out", 64 * 25),
    ],
)
def test_fan(size: tuple[int, ...], mode: str, n: int) -> None:
    x = gg.gg_(torch.empty(size), 1.5, mode=mode, generator=_generator())
    assert x.var().item() * n == pytest.approx(1.0, rel=0.05)


def test_generator_decides() -> None:
    draws = [gg.gg_(torch.empty(8, 8), 1.2, generator=_generator(s)) for s in (3, 3, 4)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_in_place_without_gradient() -> None:
    weight = nn.Parameter(torch.zeros(16, 16, dtype=torch.bfloat16))
    assert gg.gg_(weight, 1.5, generator=_generator()) is weight
    assert weight.is_leaf and weight.dtype == torch.bfloat16 and weight.abs().sum() > 0


@pytest.mark.parametrize(
    ("size", "shape", "options", "words"),
    [
        ((4, 4), 0.0, {}, "shape must be positive"),
        ((4, 4), -1.0, {}, "got -1.0"),
        ((4, 4), math.nan, {}, "shape must be positive"),
        ((4, 4), 1.0, {"gain": 0.0}, "variance must be positive"),
        ((4, 4), 1.0, {"mode": "fan_avg"}, "fan_avg"),
        ((4,), 1.0, {}, "two or more dimensions"),
    ],
)
def test_refusals(
    size: tuple[int, ...], shape: float, options: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        gg.gg_(torch.empty(size), shape, **options)  # type: ignore[arg-type]


def test_model_variances() -> None:
    model = gg.init_model_(_model(n_layer=3), shape=1.5, gain=0.7, generator=_generator())
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05), name
        elif isinstance(module, Conv1D):  # [in, out]: the inputs are the first dimension
            wanted = 0.7 / module.weight.shape[0] / (6 if name.endswith("c_proj") else 1)
            assert module.weight.var().item() == pytest.approx(wanted, rel=0.1), name
            assert not module.bias.any(), name
        elif isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all() and not module.bias.any(), name


def test_model_tied_head_stays_tied() -> None:
    model = gg.init_model_(_model(), shape=1.5, generator=_generator())
    assert model.lm_head.weight is model.transformer.wte.weight


def test_model_untied_linear_head_is_out_in() -> None:
    model = gg.init_model_(_model(tied=False), shape=1.5, generator=_generator())
    head = model.lm_head.weight
    assert head.shape == (500, 128)
    assert head.var().item() * 128 == pytest.approx(1.0, rel=0.05)


def test_model_generator_decides() -> None:
    one, two = (gg.init_model_(_model(), shape=1.5, generator=_generator(7)) for _ in range(2))
    for (name, a), b in zip(one.named_parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_model_with_unknown_parameters_is_refused() -> None:
    model = _model()
    model.extra = nn.PReLU()
    with pytest.raises(TypeError, match="extra, a PReLU"):
        gg.init_model_(model, shape=1.5)


@pytest.mark.parametrize("shape", [0.02, 0.5, 2.0, 8.0])
def test_shares_and_their_inverse_are_scipys(shape: float) -> None:
    theirs = stats.gennorm(shape)
    q = np.array([1e-12, 1e-9, 0.02, 0.3, 0.45, 0.499999])
    x = gg.ppf(q, shape, 1.0)
    np.testing.assert_allclose(gg.cdf(x, shape, 1.0), q, rtol=1e-9)
    np.testing.assert_allclose(theirs.cdf(x), q, rtol=1e-8)


@pytest.mark.parametrize("shape", [20.0, 50.0, 300.0, 1e6])
def test_large_shapes_are_flat_around_the_centre(shape: float) -> None:
    """``|x|^v`` vanishes in float64 there, and its root does not come back."""
    half = np.exp(math.lgamma(1 + 1 / shape))
    x = np.array([-0.4, -0.1, -1e-3, -1e-30, 0.0, 1e-30, 0.02, 0.3])
    expected = 0.5 + x / (2 * half)
    # Next order of the density's integral.
    expected -= np.sign(x) * np.abs(x) ** (shape + 1) / (2 * half * (shape + 1))
    np.testing.assert_allclose(gg.cdf(x, shape, 1.0), expected, rtol=1e-13)
    q = np.array([1e-3, 0.1, 0.3, 0.45, 0.499, 0.6, 0.75])
    np.testing.assert_allclose(gg.cdf(gg.ppf(q, shape, 1.0), shape, 1.0), q, rtol=1e-9)
    np.testing.assert_allclose(gg.ppf(expected[:3], shape, 1.0), x[:3], rtol=1e-12)


def test_the_largest_shapes_are_uniform() -> None:
    assert gg.logpdf(np.zeros(1), 1e9, 0.5)[0] == pytest.approx(0.0, abs=1e-8)
    assert gg.ppf(np.array([0.25]), 1e300, 2.0)[0] == -1.0


@pytest.mark.parametrize("shape", [0.01, 0.04, 0.1, 300.0])
def test_samples_fit_their_type_or_are_refused(shape: float) -> None:
    with pytest.raises(ValueError, match=r"beyond torch.float32: scale \S+ or less") as large:
        gg.sample((9,), shape, 1e39)
    most = float(str(large.value).split()[-3])
    x = gg.sample((20_000,), shape, most * 0.99, generator=_generator(3))
    assert x.isfinite().all() and x.any()
    with pytest.raises(ValueError, match=r"too small for torch.float32: scale \S+ or more") as tiny:
        gg.sample((9,), shape, 1e-300)
    least = float(str(tiny.value).split()[-3])
    assert gg.sample((20_000,), shape, min(least * 1.01, most), generator=_generator(3)).any()


def test_tensors_that_hold_no_samples() -> None:
    for dtype in (torch.int32, torch.bool, torch.complex64):
        with pytest.raises(ValueError, match=f"needs a tensor of floats, got {dtype}"):
            gg.gg_(torch.empty(3, 3, dtype=dtype), 1.0)
    with pytest.raises(ValueError, match=r"beyond torch\.float16"):
        gg.gg_(torch.empty(3, 3, dtype=torch.float16), 1.0, gain=1e9)
    assert gg.gg_(torch.empty(64, 64, dtype=torch.float8_e5m2), 2.0).float().std() > 0.1


def test_arrays_that_torch_does_not_have() -> None:
    x = np.linspace(-2, 2, 9)
    expected = gg.cdf(x, 1.5, 1.0)
    for same in (x[::-1][::-1], x.astype(">f8"), np.repeat(x, 2)[::2], list(x)):
        assert (gg.cdf(same, 1.5, 1.0) == expected).all()
    assert (gg.cdf(x[::-1], 1.5, 1.0) == expected[::-1]).all()
    assert gg.cdf(0.0, 1.5, 1.0) == 0.5 and gg.cdf(np.arange(2, dtype="u8"), 1.5, 1.0)[0] == 0.5
    for broken in (x + 0j, torch.tensor([1j])):
        with pytest.raises(ValueError, match="these are complex"):
            gg.logpdf(broken, 1.5, 1.0)
