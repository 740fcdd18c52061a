"""Gains by nonlinearity, and initialisation of Llama models. Seeds are fixed."""

import math

import pytest
import tiny_models
import torch
import torch.nn.functional as F
from scipy import integrate, stats

from rf8 import gg

FUNCTIONS = {
    "linear": lambda z: z,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda z: F.gelu(z, approximate="tanh"),
    "silu": F.silu,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gain_is_one_over_the_power(name):
    def density(z):
        return float(FUNCTIONS[name](torch.tensor(z, dtype=torch.float64))) ** 2 * stats.norm.pdf(z)

    power, _ = integrate.quad(density, -12, 12, points=[0], limit=200)
    assert gg.gg_gain(name) == pytest.approx(1 / power, rel=1e-6)


def test_gain_keeps_power_through_layers():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(400, 512, generator=generator)
    for _ in range(6):
        weight = gg.gg_(torch.empty(512, 512), 1.0, nonlinearity="relu", generator=generator)
        x = F.relu(x) @ weight.T
    assert 0.6 < float(x.square().mean()) < 1.6


def test_slope_and_unknown_names():
    assert gg.gg_gain("leaky_relu", 0.5) == 2 / 1.25
    assert gg.gg_gain("sigmoid") == 1
    with pytest.raises(ValueError, match="nonlinearity is 'tanhh'"):
        gg.gg_gain("tanhh")
    with pytest.raises(ValueError, match="slope nan"):
        gg.gg_gain("leaky_relu", math.nan)


def test_llama():
    model = tiny_models.llama(hidden_size=300, num_hidden_layers=3, intermediate_size=400)
    gg.init_model_(model, shape=1.5, generator=torch.Generator().manual_seed(1))
    block = model.model.layers[1]
    for layer, inputs, writes in (
        (block.self_attn.q_proj, 300, False),
        (block.self_attn.o_proj, 60, True),
        (block.mlp.up_proj, 300, False),
        (block.mlp.down_proj, 400, True),
    ):
        variance = 1 / inputs / (6 if writes else 1)
        assert float(layer.weight.detach().var()) == pytest.approx(variance, rel=0.05)
    assert (block.input_layernorm.weight == 1).all() and (model.model.norm.weight == 1).all()
    assert float(model.model.embed_tokens.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
