"""Parts of the integer pipeline in float models: each does something, and little."""

from functools import partial

import numpy as np
import pytest
import tiny_models
import torch

from rf8.checkpoint.huggingface import from_transformers, to_transformers
from rf8.evaluation.approximate import approximated
from rf8.evaluation.samples import sample

PARTS = ("activations", "kv", "softmax", "norms")
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 100]])


@pytest.fixture(scope="module", params=["gpt2", "llama", "gemma3_text", "stablelm"])
def model(request):
    made = getattr(tiny_models, request.param, None) or partial(sample, request.param)
    return from_transformers(made(), request.param)


def logits(module):
    with torch.no_grad():
        return module(IDS).logits[0].numpy()


def test_each_part_alone(model):
    module = to_transformers(model)
    exact = logits(module)
    largest = np.abs(exact).max()
    error = {}
    for part in PARTS:
        with approximated(module, model.graph, {part}):
            error[part] = np.abs(logits(module) - exact).max() / largest
        assert (logits(module) == exact).all()  # nothing is left behind
    with approximated(module, model.graph, {"activations"}, 8):
        coarse = np.abs(logits(module) - exact).max() / largest
    assert all(1e-8 < error[part] < 1e-3 for part in ("activations", "softmax", "norms"))
    # Values of one code: steps of an eighth.
    assert 1e-3 < error["kv"] < 0.3
    assert 20 * error["activations"] < coarse < 0.3


def test_no_part_is_the_model(model):
    module = to_transformers(model)
    exact = logits(module)
    with approximated(module, model.graph, set()):
        assert (logits(module) == exact).all()
