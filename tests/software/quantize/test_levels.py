import json

import numpy as np
import pytest
import torch
from command import rf8 as command

import rf8
from golden.code import MAX_LENGTH, NOT_A_LEVEL, ranks, steps
from golden.format import decode
from rf8.checkpoint.huggingface import from_transformers, to_transformers
from rf8.evaluation.samples import sample
from rf8.quantize.levels import coded_mean, nearest, quantize_nearest, rounded_to_levels

IDS = torch.randint(101, (30 * 24,), generator=torch.Generator().manual_seed(5))


def test_nearest_level():
    bias = np.array([-3, 0, 5], np.int8)
    values = (
        np.random.default_rng(3).normal(size=(3, 500)) * np.ldexp(20, bias.astype(int) + 1)[:, None]
    )
    found = nearest(values.astype(np.float32), bias, 16)
    assert (ranks(16)[found] != NOT_A_LEVEL).all()
    grid = np.concatenate([-steps(16)[::-1], steps(16)])
    for row, b in enumerate(bias):
        every = grid * 2.0 ** (int(b) + 1)
        best = np.abs(values[row][:, None] - every).min(axis=1)
        assert np.allclose(np.abs(values[row] - decode(found[row], int(b))), best, rtol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "gemma2"])
@pytest.mark.parametrize("span", [16, 8])
def test_without_text_the_nearest_levels(kind, span):
    model = from_transformers(sample(kind), kind)
    result = quantize_nearest(model, 4.5, span=span)
    assert coded_mean(rounded_to_levels(result).values()) == pytest.approx(4.5, abs=0.1)
    with torch.no_grad():
        found, exact = (to_transformers(m)(IDS[None, :20]).logits for m in (result, model))
    assert np.corrcoef(found.flatten(), exact.flatten())[0, 1] > 0.9


def test_command(tmp_path):
    sample("llama").save_pretrained(tmp_path / "m")
    done = command("quantize", tmp_path / "m", "-o", tmp_path / "q", "--bits", "4.5", "--json")
    found = json.loads(done.stdout)
    assert found["bits"] == pytest.approx(4.5, abs=0.1)
    coded = [t for t in found["tensors"] if "bits" in t]
    assert all(t["entropy"] <= t["bits"] <= MAX_LENGTH + 1 for t in coded) and len(coded) == 15
    assert rf8.load_model(tmp_path / "q").method == "nearest-rated"
    done = command("quantize", tmp_path / "m", "-o", tmp_path / "p", "--bits", "4.5")
    assert "bits a weight of the linear layers" in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--bits", "9"], "--bits is 9"),
        (["--bits", "4", "--rate", "1e-9"], "give one of them"),
        (["--rate", "1e-9"], "needs --calibration"),
        (["--rate", "inf", "--calibration", "text.txt"], "--rate is inf, must be positive"),
        (["--bits", "4", "--method", "paper"], "not with paper"),
    ],
)
def test_mistakes(tmp_path, options, words):
    done = command("quantize", "default", "-o", tmp_path / "q", *options)
    assert done.returncode == 2 and words in done.stderr
