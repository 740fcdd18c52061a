import numpy as np
import pytest
import torch
from torch.nn import functional

from golden import layers
from golden.layers import Block, KVCache, block_quantize
from golden.rf8 import decode, encode, is_valid, row_bias

SEED = 20250601


def fixed(values, frac=16):
    return np.rint(np.asarray(values) * 2.0**frac).astype(np.int64)


def value(block):
    return block.mantissa * 2.0**block.exponent


@pytest.mark.parametrize("bits", [8, 16])
def test_block_quantize(bits):
    random = np.random.default_rng(SEED)
    x = random.integers(-(2**31), 2**31, (50, 33)) >> random.integers(0, 31, (50, 1))
    x[0] = 0
    block = block_quantize(x, bits)
    step = 2.0**block.exponent
    top = (1 << bits - 1) - 1
    assert -top - 1 <= block.mantissa.min() and block.mantissa.max() <= top
    assert (
        np.abs(value(block) - x / 65536)
        <= step / 2 + (block.mantissa == 2 ** (bits - 1) - 1) * step
    ).all()
    # The exponent is the smallest: half of the range is used, or nothing is lost.
    used = np.abs(block.mantissa).max(axis=1, keepdims=True) >= 1 << bits - 2
    assert (used | (block.exponent == -16)).all()


def test_embed_is_the_decoded_value():
    weights = np.random.default_rng(SEED).normal(size=(40, 31)).astype(np.float32)
    bias = row_bias(weights)
    codes = encode(weights, bias[:, None])
    exact = decode(codes, bias[:, None], np.float64) * 65536
    assert (layers.embed(codes, bias) == np.rint(exact)).all()


@pytest.mark.parametrize("width", [1, 7, 64, 768])
@pytest.mark.parametrize("size", [1e-2, 1.0, 300.0])
def test_layer_norm_is_close_to_float(width, size):
    random = np.random.default_rng(SEED)
    x = fixed(random.normal(size=(9, width)) * size)
    x[0, width // 2] = 4000 << 16  # one massive activation
    gamma, beta = random.normal(1, 0.3, width), random.normal(size=width)
    block = block_quantize(fixed(gamma, 24), 16, 24)
    ours = layers.layer_norm(x, block, fixed(beta), 1e-5) / 65536
    exact = functional.layer_norm(
        torch.from_numpy(x / 65536), (width,), torch.from_numpy(gamma), torch.from_numpy(beta), 1e-5
    ).numpy()
    assert np.abs(ours - exact).max() < 2e-3 * max(1, np.abs(exact).max())


def test_layer_norm_of_a_constant_is_beta():
    x = np.full((2, 10), 5 << 16, np.int64)
    gamma = Block(np.full(10, 16384, np.int64), np.array([-14]))
    beta = np.arange(10)
    assert (layers.layer_norm(x, gamma, beta, 1e-5) == beta).all()


@pytest.mark.parametrize(("kind", "approximate"), [("gelu", "none"), ("gelu_tanh", "tanh")])
def test_gelu_within_two_steps(kind, approximate):
    x = np.concatenate([np.arange(-9 << 16, 9 << 16, 7), [-(2**31), 2**31 - 1]])
    exact = functional.gelu(torch.from_numpy(x / 65536), approximate=approximate).numpy() * 65536
    assert np.abs(layers.activate(x, kind) - exact).max() <= 2


def test_exp2_table_over_all_arguments():
    u = np.arange(1 << 16)
    exact = 2.0 ** (24 - u / 65536)
    assert np.abs(layers.EXP2(u) - exact).max() < 8  # of 2**24


def test_integer_sqrt():
    values = np.array(
        [0, 1, 2, 3, 4, 2**52, 2**52 - 1, 2**61, (2**30 + 1) ** 2 - 1, (2**30 + 1) ** 2]
    )
    root = layers.integer_sqrt(values)
    assert (root * root <= values).all() and ((root + 1) ** 2 > values).all()


def test_divide_rounds_half_to_even():
    values = np.array([5, 15, 25, -5, -15, 14, 16, -14, -16])
    assert layers.divide_round_half_even(values, 10).tolist() == [0, 2, 2, 0, -2, 1, 2, -1, -2]


@pytest.mark.parametrize(("heads", "width", "positions"), [(1, 1, 3), (3, 13, 40), (4, 64, 100)])
def test_attention_is_close_to_float_and_the_same_in_any_batching(heads, width, positions):
    random = np.random.default_rng(SEED)
    q, k, v = (fixed(random.normal(size=(positions, heads, width)) * 2) for _ in range(3))
    at_once = layers.attention(q, k, v, KVCache.empty(heads, width), 16)
    cache = KVCache.empty(heads, width)
    parts = [layers.attention(q[a:b], k[a:b], v[a:b], cache, 16) for a, b in ((0, 1), (1, 3))]
    parts += [layers.attention(q[i : i + 1], k[i : i + 1], v[i : i + 1], cache, 16)
              for i in range(3, positions)]  # fmt: skip
    assert (np.concatenate(parts) == at_once).all()
    turned = [torch.from_numpy(t / 65536).permute(1, 0, 2) for t in (q, k, v)]
    exact = functional.scaled_dot_product_attention(*turned, is_causal=True).permute(1, 0, 2)
    assert np.abs(at_once / 65536 - exact.numpy()).max() < 5e-3


def test_attention_of_large_scores():
    random = np.random.default_rng(SEED)
    q, k, v = (fixed(random.normal(size=(8, 1, 64)) * size) for size in (60, 60, 1))
    ours = layers.attention(q, k, v, KVCache.empty(1, 64), 16)[:, 0] / 65536
    turned = [torch.from_numpy(t / 65536).permute(1, 0, 2) for t in (q, k, v)]
    exact = functional.scaled_dot_product_attention(*turned, is_causal=True)[0].numpy()
    assert np.abs(ours - exact).max() < 0.02
    top = np.full((2, 1, 128), 2**31 - 1)
    assert np.isfinite(layers.attention(top, top, top, KVCache.empty(1, 128), 16)).all()
    assert (layers.attention(top, top, top, KVCache.empty(1, 128), 16) >= top - (1 << 17)).all()


@pytest.mark.parametrize("bias", [-128, -30, 0, 4, 5, 8, 11, 12, 127])
def test_embed_at_every_bias(bias):
    codes = np.arange(256, dtype=np.uint8)[None]
    codes = codes[:, is_valid(codes)[0]]
    exact = decode(codes, np.array([[bias]], np.int8), np.float64) * 65536
    limit = np.clip(np.rint(exact), -(2.0**31), 2.0**31 - 1)
    assert (layers.embed(codes, np.array([bias], np.int8)) == limit).all()


@pytest.mark.parametrize("epsilon", [1e-12, 1e-5, 1e-3, 0.1, 0.9])
def test_layer_norm_of_tiny_values_follows_epsilon(epsilon):
    x = np.tile(np.array([1, -1, 3, -3]), (1, 8)).reshape(1, 32)
    one = Block(np.full(32, 16384, np.int64), np.array([-14]))
    ours = layers.layer_norm(x, one, np.zeros(32, np.int64), epsilon) / 65536
    real = x / 65536
    exact = real / np.sqrt((real**2).mean() + epsilon)
    assert np.abs(ours - exact).max() < 2e-3 * max(1e-2, np.abs(exact).max())


def test_attention_of_zeros():
    zero = np.zeros((2, 1, 4), np.int64)
    assert (layers.attention(zero, zero, zero, KVCache.empty(1, 4), 16) == 0).all()


def test_add_saturates():
    assert layers.add(np.array([2**31 - 1]), np.array([5]))[0] == 2**31 - 1
