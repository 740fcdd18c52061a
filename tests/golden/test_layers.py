import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from golden import layers
from golden.attention import KVCache, attention, decode_shared, encode_shared
from golden.format import decode, encode, is_valid, row_bias
from golden.layers import Block, block_quantize

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


@pytest.mark.parametrize("width", [1, 7, 576])
@pytest.mark.parametrize("size", [1e-2, 1.0, 300.0])
def test_rms_norm_is_close_to_float(width, size):
    random = np.random.default_rng(SEED)
    x = fixed(random.normal(size=(9, width)) * size)
    x[0, width // 2] = 4000 << 16
    gamma = random.normal(1, 0.3, width)
    ours = layers.rms_norm(x, block_quantize(fixed(gamma, 24), 16, 24), 1e-5) / 65536
    exact = functional.rms_norm(
        torch.from_numpy(x / 65536), (width,), torch.from_numpy(gamma), 1e-5
    ).numpy()
    assert np.abs(ours - exact).max() < 2e-3 * max(1, np.abs(exact).max())


def activation(kind, x):
    real = torch.from_numpy(x / 65536)
    if kind == "silu":
        return functional.silu(real).numpy()
    return functional.gelu(real, approximate="tanh" if kind == "gelu_tanh" else "none").numpy()


# Steps of 2**-16; half a step is the rounding of the result.
WORST_ACTIVATION = {"gelu": 1.6, "gelu_tanh": 1.6, "silu": 1.5}


@pytest.mark.parametrize("kind", WORST_ACTIVATION)
def test_activation_over_the_whole_table(kind):
    """Every argument of the table, of both signs; beyond its end, where it adds nothing, a few."""
    end = 17 << 16
    far = np.array([-(2**31), -(2**31) + 1, -(2**20), 2**20, 2**31 - 1])
    worst = 0
    for x in (*np.array_split(np.arange(-end, end), 8), far):
        error = layers.activate(x, kind) - activation(kind, x) * 65536
        worst = max(worst, np.abs(error).max())
    assert worst <= WORST_ACTIVATION[kind]


def test_exp2_table_over_all_arguments():
    u = np.arange(1 << 16)
    exact = 2.0 ** (24 - u / 65536)
    assert np.abs(layers.EXP2(u) - exact).max() < 5  # of 2**24


def test_sine_over_all_angles():
    """All 2**18 angles that the table tells apart, and the ends of what rounds to them."""
    whole = np.arange(1 << 18) << 14
    exact = np.sin(whole * (math.tau / 2**32)) * 65536
    assert np.abs(layers.sine(whole) - exact).max() < 1.1  # of 2**16
    for offset in (-(1 << 13), (1 << 13) - 1, 5 << 32):
        assert (layers.sine(whole + offset) == layers.sine(whole)).all()


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("width", "theta"), [(2, 1e4), (10, 1e4), (64, 1e5), (128, 5e5)])
def test_rotation_is_close_to_float(width, theta, interleaved):
    random = np.random.default_rng(SEED)
    positions = np.array([0, 1, 2, 77, 1023, 8191, 131071])
    x = fixed(random.normal(size=(7, 3, width)))
    ours = layers.rotate(
        x,
        positions,
        layers.rotary_steps(theta ** -(np.arange(0, width, 2) / width)),
        interleaved=interleaved,
    )
    angle = positions[:, None] * theta ** (-2.0 * np.arange(width // 2) / width)
    turn = np.exp(1j * angle)[:, None]
    if interleaved:
        exact = (x[..., ::2] + 1j * x[..., 1::2]) * turn
        found = ours[..., ::2] + 1j * ours[..., 1::2]
    else:
        exact = (x[..., : width // 2] + 1j * x[..., width // 2 :]) * turn
        found = ours[..., : width // 2] + 1j * ours[..., width // 2 :]
    # Half of 2**-32 of a turn a position, and half of 2**-18 for the table.
    error = positions * math.pi * 2.0**-32 + math.pi * 2.0**-18 + 2.0**-15
    assert (np.abs(found - exact) <= np.abs(exact) * error[:, None, None] + 1).all()
    assert (ours[0] == x[0]).all()


def test_rotation_saturates():
    top = np.full((1, 1, 2), 2**31 - 1)
    steps = np.array([1 << 29])  # an eighth of a turn
    assert layers.rotate(top, np.array([1]), steps).tolist() == [[[0, 2**31 - 1]]]


def test_multiply():
    a = np.array([3 << 15, -(3 << 15), 1, 3, -1, 2**31 - 1, -(2**31), 2**31 - 1])
    b = np.array([5 << 16, 5 << 16, 1 << 15, 1 << 15, 1 << 15, 2**31 - 1, 2**31 - 1, -(2**31)])
    top = 2**31 - 1
    assert layers.multiply(a, b).tolist() == [
        15 << 15,
        -(15 << 15),
        0,
        2,
        0,
        top,
        -top - 1,
        -top - 1,
    ]


@pytest.mark.parametrize("positions", [1, 3, 1000, 1024, 131072])
def test_reciprocal_keeps_its_bits_at_any_length(positions):
    """Uniform weights, and 2**17 positions of the largest one but one."""
    total = np.array([positions << 24, (positions << 24) - positions + 1])
    inverse, size = layers.reciprocal(total)
    assert (inverse >= 1 << 20).all() and (inverse <= 1 << 21).all()
    error = inverse * 2.0 ** -(20.0 + size) * total - 1
    assert np.abs(error).max() < 2.0**-19


@pytest.mark.parametrize("span", [16, 8])
def test_keys_of_two_codes_and_values_of_one(span):
    random = np.random.default_rng(SEED)
    x = fixed(random.normal(size=(50, 3, 64))) << random.integers(0, 12, (50, 3, 1))
    x[0], x[1, 0, :2] = 0, [2**31 - 1, -(2**31)]
    cache = KVCache.empty(3, 64)
    cache.append(x, x, span)
    cache.append(x[:5], x[:5], span)
    assert cache.positions == 55
    values = decode_shared(cache.values, cache.value_bias)[:50]
    keys = sum(decode_shared(cache.keys[:50, :, i], cache.key_bias[:50]) for i in (0, 1))
    largest = np.abs(x).max(axis=-1, keepdims=True)
    # Steps are at most 1/4 of a power of two; below the smallest exponent all is lost.
    floor = largest * 2.0 ** (1 - span)
    assert (np.abs(values - x) <= np.abs(x) / 10 + floor).all()
    assert (np.abs(keys - x) <= np.abs(x) / 100 + floor).all()
    assert (values[0] == 0).all() and (keys[0] == 0).all()
    assert cache.key_bias.min() >= -31 and cache.key_bias.max() <= 0


def test_encode_shared_is_the_encoder_of_the_format():
    random = np.random.default_rng(SEED)
    x = random.integers(-(2**31), 2**31, (20, 33)) >> random.integers(0, 31, (20, 1))
    codes, bias = encode_shared(x, 1)
    real = x / 65536
    expected = row_bias(real)
    assert (bias[x.any(axis=1)] == expected[x.any(axis=1)]).all()
    # What lies below the fraction bits is rounded first; it may move a value to a midpoint.
    direct = encode(real, bias[:, None])
    small = np.abs(x).max(axis=1) < 2**21
    assert small.any() and (codes[small, 0] == direct[small]).all()
    assert (codes[:, 0] != direct).mean() < 0.02


def test_integer_sqrt():
    values = np.array(
        [0, 1, 2, 3, 4, 2**52, 2**52 - 1, 2**61, (2**30 + 1) ** 2 - 1, (2**30 + 1) ** 2]
    )
    root = layers.integer_sqrt(values)
    assert (root * root <= values).all() and ((root + 1) ** 2 > values).all()


def test_divide_rounds_half_to_even():
    values = np.array([5, 15, 25, -5, -15, 14, 16, -14, -16])
    assert layers.divide_round_half_even(values, 10).tolist() == [0, 2, 2, 0, -2, 1, 2, -1, -2]


def float_attention(q, k, v, cache):
    """With the keys and values that the cache holds: only the rest is to be compared."""
    k = sum(decode_shared(cache.keys[:, :, i], cache.key_bias) for i in (0, 1))
    v = decode_shared(cache.values, cache.value_bias)
    turned = [torch.from_numpy(t / 65536).permute(1, 0, 2) for t in (q, k, v)]
    exact = functional.scaled_dot_product_attention(*turned, is_causal=True, enable_gqa=True)
    return exact.permute(1, 0, 2).numpy()


@pytest.mark.parametrize(
    ("heads", "groups", "width", "positions"),
    [(1, 1, 1, 3), (3, 3, 13, 40), (4, 2, 64, 100), (9, 3, 8, 70), (2, 1, 128, 33)],
)
def test_attention_is_close_to_float_and_the_same_in_any_batching(heads, groups, width, positions):
    random = np.random.default_rng(SEED)
    q, k, v = (
        fixed(random.normal(size=(positions, n, width)) * 2) for n in (heads, groups, groups)
    )
    whole = KVCache.empty(groups, width)
    at_once = attention(q, k, v, whole, 16)
    cache = KVCache.empty(groups, width)
    parts = [attention(q[a:b], k[a:b], v[a:b], cache, 16) for a, b in ((0, 1), (1, 3))]
    parts += [attention(q[i : i + 1], k[i : i + 1], v[i : i + 1], cache, 16)
              for i in range(3, positions)]  # fmt: skip
    assert (np.concatenate(parts) == at_once).all()
    assert np.abs(at_once / 65536 - float_attention(q, k, v, whole)).max() < 2e-3


@pytest.mark.parametrize("bits", [8, 16])
def test_attention_of_many_equal_positions(bits):
    """Uniform weights: the mean of the values, to the bits of an activation."""
    random = np.random.default_rng(SEED)
    v = fixed(random.normal(size=(1024, 1, 8)) * 3)
    cache, none = KVCache.empty(1, 8), np.zeros((1024, 1, 8), np.int64)
    ours = attention(none, none, v, cache, bits)[-1] / 65536
    mean = decode_shared(cache.values, cache.value_bias).mean(axis=0) / 65536
    # A value's bias moves its weight's bits: one with a bias 2 below the largest loses two.
    assert np.abs(ours - mean).max() < 2.0 ** (4 - bits)


def test_attention_of_large_scores():
    random = np.random.default_rng(SEED)
    q, k, v = (fixed(random.normal(size=(8, 1, 64)) * size) for size in (60, 60, 1))
    cache = KVCache.empty(1, 64)
    ours = attention(q, k, v, cache, 16) / 65536
    assert np.abs(ours - float_attention(q, k, v, cache)).max() < 0.02
    top = np.full((2, 1, 128), 2**31 - 1)
    # RF8's largest below 2**31, and a tie goes up to it: 15/8 * 2**30.
    for bits in (8, 16):
        found = attention(top, top, top, KVCache.empty(1, 128), bits)
        assert np.abs(found / 2.0**31 - 1).max() < 2.0 ** (2 - bits)


def test_truncated_cache_goes_on():
    random = np.random.default_rng(SEED)
    q, k, v = (fixed(random.normal(size=(9, 2, 8))) for _ in range(3))
    cache = KVCache.empty(2, 8)
    whole = attention(q, k, v, cache, 16)
    cache.truncate(4)
    assert (attention(q[4:], k[4:], v[4:], cache, 16) == whole[4:]).all()


def test_a_window_without_positions_is_refused():
    x, cache = np.zeros((1, 1, 4), np.int64), KVCache.empty(1, 4)
    with pytest.raises(ValueError, match="window is 0, must be 1 or more"):
        attention(x, x, x, cache, 16, window=0)
    assert cache.positions == 0


def test_tanh_is_odd_and_close_to_float():
    x = np.concatenate([np.arange(0, 9 << 16, 7), [1 << 31, (1 << 31) - 1]])
    found = layers.tanh(x)
    assert (layers.tanh(-x) == -found).all()
    assert np.abs(found / 65536 - np.tanh(x / 65536)).max() < 2.5 * 2.0**-16
    assert found[0] == 0 and (found[x >= 8 << 16] == 65536).all()
    assert (np.diff(found[:-2]) >= 0).all()


@pytest.mark.parametrize("cap", [1, 1.5, 30.0, 50, 1000, 1000 * math.log2(math.e), 2047.9])
def test_soft_cap_is_close_to_float(cap):
    random = np.random.default_rng(SEED)
    edges = [0, 1, -1, (1 << 31) - 1, -(1 << 31)]
    x = np.concatenate(
        [random.integers(-(1 << 31), 1 << 31, 5000) >> random.integers(0, 31, 5000), edges]
    )
    found, exact = layers.soft_cap(x, cap) / 65536, cap * np.tanh(x / 65536 / cap)
    assert np.abs(found - exact).max() < 3.5 * cap * 2.0**-16
    assert np.abs(found).max() <= cap * (1 + 2.0**-16) + 2.0**-16
    assert min(layers.cap_factors(cap)) >= 1 << 15 and max(layers.cap_factors(cap)) < 1 << 31


@pytest.mark.parametrize("cap", [0.99, 2048, 0, -3, math.nan])
def test_soft_caps_out_of_range_are_refused(cap):
    with pytest.raises(ValueError, match=f"soft cap is {cap}, must be 1 or more and below 2048"):
        layers.soft_cap(np.zeros(1, np.int64), cap)


def test_factor_of_queries():
    for width in range(1, 257):  # as programs of before have it
        want = round(math.log2(math.e) / math.sqrt(width) * 2**20)
        assert (
            layers.query_factor(width) == layers.query_factor(7, 1 / math.sqrt(width)) == (want, 20)
        )
    for scale in (1 / 256, 1 / 100, 1 / 16.1, 1 / 16, 1.0):
        factor, bits = layers.query_factor(64, scale)
        assert 1 << 16 <= factor < 1 << 29
        assert abs(factor / 2**bits / (scale * math.log2(math.e)) - 1) < 2.0**-17
    for scale in (0.0039, 1.01, 0, math.nan):
        with pytest.raises(ValueError, match=f"attention's scale is {scale}, must be 1/256 to 1"):
            layers.query_factor(64, scale)


@pytest.mark.parametrize(("scale", "cap"), [(1.0, None), (1 / 256, None), (None, 2.0), (0.5, 30)])
def test_attention_with_scale_and_soft_cap_is_close_to_float(scale, cap):
    random = np.random.default_rng(SEED)
    size = 4 if scale == 1 / 256 else 1
    q, k, v = (fixed(random.normal(size=(12, 1, 16)) * s) for s in (size, size, 1))
    cache = KVCache.empty(1, 16)
    found = attention(q, k, v, cache, 16, scale=scale, soft_cap=cap)[:, 0] / 65536
    keys = sum(decode_shared(cache.keys[:, 0, i], cache.key_bias[:, 0]) for i in (0, 1)) / 65536
    values = decode_shared(cache.values[:, 0], cache.value_bias[:, 0]) / 65536
    scores = q[:, 0] / 65536 @ keys.T * (0.25 if scale is None else scale)
    if cap is not None:
        scores = cap * np.tanh(scores / cap)
    weights = np.where(np.tri(12, dtype=bool), np.exp(scores), 0)
    exact = weights / weights.sum(axis=1, keepdims=True) @ values
    assert np.abs(found - exact).max() < 2e-3


@pytest.mark.parametrize("window", [1, 3, 9, 40])
def test_attention_of_a_window(window):
    """As if the cache began with the window."""
    random = np.random.default_rng(SEED)
    q, k, v = (fixed(random.normal(size=(12, n, 8))) for n in (4, 2, 2))
    found = attention(q, k, v, KVCache.empty(2, 8), 16, window=window)
    for last in range(12):
        seen = slice(max(0, last + 1 - window), last + 1)
        alone = KVCache.empty(2, 8)
        attention(q[seen], k[seen], v[seen], alone, 16)
        alone.truncate(alone.positions - 1)
        want = attention(q[last:][:1], k[last:][:1], v[last:][:1], alone, 16)
        assert (found[last] == want[0]).all(), last


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
    assert (attention(zero, zero, zero, KVCache.empty(1, 4), 16) == 0).all()


def test_add_saturates():
    assert layers.add(np.array([2**31 - 1]), np.array([5]))[0] == 2**31 - 1
