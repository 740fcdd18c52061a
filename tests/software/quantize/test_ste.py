"""Quantisation-aware fine-tuning. Seeds are fixed."""

import pytest
import tiny_models
import torch

import rf8
from rf8.checkpoint.huggingface import to_transformers
from rf8.quantize.ste import StraightThrough, finish_, prepare_

IDS = torch.randint(101, (4, 24), generator=torch.Generator().manual_seed(9))


def assert_it_learns(model):
    """Fifteen steps on one batch lower its loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    losses = []
    for _ in range(15):
        loss = model(input_ids=IDS, labels=IDS).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.5


def test_gradient_passes_straight_through():
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(2), requires_grad=True)
    factor = torch.arange(35.0).view(5, 7)
    (StraightThrough(torch.round, transposed=False)(weight) * factor).sum().backward()
    assert (weight.grad == factor).all()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("tied", [True, False])
def test_tuned_model_is_rf8(kind, tied, tmp_path):
    model = getattr(tiny_models, kind)(tie_word_embeddings=tied)
    model.save_pretrained(tmp_path / "float")
    quantized = rf8.quantize(rf8.load_model(tmp_path / "float"))
    prepare_(model)
    with torch.no_grad():
        assert (model(IDS).logits == to_transformers(quantized)(IDS).logits).all()
    with pytest.raises(ValueError, match="rounds its weight already"):
        prepare_(model)
    assert_it_learns(model)
    finish_(model)
    model.save_pretrained(tmp_path / "tuned")
    tuned = rf8.load_model(tmp_path / "tuned")
    again = rf8.quantize(tuned)
    for name in tuned.tensors:
        assert (tuned.float_tensor(name) == again.float_tensor(name)).all()


def test_step_must_be_positive():
    with pytest.raises(ValueError, match=r"step is 0\.0, must be positive"):
        prepare_(tiny_models.gpt2(), step=0.0)


def test_multiples_of_a_step():
    model = prepare_(tiny_models.gpt2(), step=0.25)
    assert_it_learns(model)
    for name, parameter in finish_(model).named_parameters():
        if parameter.ndim == 2:
            assert (parameter.detach() % 0.25 == 0).all(), name
