"""Rate measures. Seeds are fixed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rf8.gg import rate

ints = st.lists(st.integers(-(2**50), 2**50), min_size=1, max_size=200)
few = st.lists(st.integers(-3, 3), min_size=1, max_size=300)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(symbols=ints | few, k=st.integers(0, 15), ranked=st.booleans())
def test_golomb_round_trip(symbols, k, ranked):
    assert list(rate.decode_golomb(rate.encode_golomb(symbols, k, ranked=ranked))) == symbols


@settings(max_examples=60, deadline=None, derandomize=True)
@given(symbols=ints | few)
def test_huffman_and_zstd_round_trip(symbols):
    assert list(rate.decode_huffman(rate.encode_huffman(symbols))) == symbols
    assert list(rate.decode_zstd(rate.encode_zstd(symbols))) == symbols


def test_chunks_join(monkeypatch):
    symbols = np.random.default_rng(1).integers(-40, 40, 1000)
    whole = [rate.encode_golomb(symbols, 1, ranked=False), rate.encode_huffman(symbols)]
    monkeypatch.setattr(rate, "CHUNK", 7)
    assert [rate.encode_golomb(symbols, 1, ranked=False), rate.encode_huffman(symbols)] == whole


@pytest.mark.parametrize(
    ("k", "symbols", "words"),
    [
        (0, [0, -1, 1, -2, 2], "1 010 011 00100 00101"),  # of 0, 1, 2, 3, 4
        (1, [0, -1, 1, -2, 2], "10 11 0100 0101 0110"),
        (2, [0, 2, -3], "100 01000 01001"),  # of 0, 4, 5
    ],
)
def test_golomb_words_by_hand(k, symbols, words):
    stream = rate.encode_golomb(symbols, k, ranked=False)
    bits = words.replace(" ", "")
    body = bits.ljust(-(-len(bits) // 8) * 8, "0")
    assert stream[17:] == int(body, 2).to_bytes(len(body) // 8, "big")


def test_ranks_follow_frequency():
    symbols = [7] * 5 + [-900] * 3 + [0]
    stream = rate.encode_golomb(symbols, 0, ranked=True)
    assert list(np.frombuffer(stream, "<i8", 3, 17)) == [7, -900, 0]
    assert len(stream) == 17 + 3 * 8 + 3  # 5 words of 1 bit, 3 of 3, one of 3: 17 bits


def test_huffman_is_within_a_bit_of_the_entropy():
    generator = np.random.default_rng(2)
    for spread in (0.3, 2, 30):
        symbols = np.rint(generator.laplace(0, spread, 50_000)).astype(np.int64)
        table = 16 + 9 * len(np.unique(symbols))
        body = 8 * (len(rate.encode_huffman(symbols)) - table) / len(symbols)
        assert rate.entropy(symbols) <= body < rate.entropy(symbols) + 1
        found = rate.rates(symbols)
        assert len(found) == 11 and all(v >= found["entropy"] for v in found.values())


def test_entropy():
    assert rate.entropy([5, 5, 5]) == 0
    assert rate.entropy([1, 2, 3, 4]) == 2
    assert rate.entropy([0, 0, 0, 1]) == pytest.approx(0.811278, abs=1e-6)


def test_uniform_quantisation():
    weights = np.float32([[0.5, -0.25], [1.5, 2.5]])
    assert list(rate.quantize_uniform(weights, 1.0)) == [0, 0, 2, 2]
    assert list(rate.quantize_uniform(weights)) == [4096, -2048, 12288, 20480]
    for same in (weights.astype(">f4"), weights[::-1][::-1], torch.tensor(weights).bfloat16()):
        assert list(rate.quantize_uniform(same)) == [4096, -2048, 12288, 20480]
    assert list(rate.quantize_uniform(torch.ones(2).to(torch.float8_e4m3fn), 1.0)) == [1, 1]
    assert rate.quantize_uniform(np.empty((0, 3)), 1.0).shape == (0,)
    assert list(rate.quantize_uniform([0.5, 2**50], 1.0)) == [0, 2**50]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: rate.quantize_uniform(np.ones(2), 0), "step must be positive"),
        (lambda: rate.quantize_uniform(np.ones(2, int)), "give floats"),
        (lambda: rate.quantize_uniform(np.float32([1, np.nan]), name="w"), "w has 1 NaN"),
        (lambda: rate.rates([]), "dtype float64"),
        (lambda: rate.rates(np.empty(0, np.uint8)), "no symbols"),
        (lambda: rate.entropy([2**51]), "within 2"),
        (lambda: rate.histogram(np.array([2**64 - 1, 1], np.uint64)), "within 2"),
        (lambda: rate.entropy(np.array([-(2**63)])), "within 2"),
        (lambda: rate.quantize_uniform(np.array([1e30]), 1e-30), r"w\w+: 1e\+60 steps of 1e-30"),
        (lambda: rate.quantize_uniform(np.array([1e300]), 1e-30, name="w"), "w: inf steps"),
        (lambda: rate.quantize_uniform(np.array([2**51 + 0.0]), 1.0), "a larger step"),
        (lambda: rate.encode_golomb([1], 16, ranked=False), "order k"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("spread", [0, 3, 10**9])
def test_figures_from_counts(spread):
    symbols = np.random.default_rng(3).integers(-spread, spread + 1, 5000)
    alphabet, counts = rate.histogram(symbols)
    known, expected = np.unique(symbols, return_counts=True)
    assert (alphabet == known).all() and (counts == expected).all()
    assert rate.entropy_of(counts) == rate.entropy(symbols)
    assert rate.huffman_of(counts) == 8 * len(rate.encode_huffman(symbols)) / len(symbols)
