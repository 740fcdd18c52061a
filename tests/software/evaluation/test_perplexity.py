import math

import pytest
import tiny_models
import torch
import torch.nn.functional as F

from rf8.errors import DataError
from rf8.evaluation import perplexity as evaluate
from rf8.evaluation.perplexity import Perplexity, perplexity

IDS = torch.randint(101, (100,), generator=torch.Generator().manual_seed(8))


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_equals_the_definition(kind, monkeypatch):
    monkeypatch.setattr(evaluate, "ROWS", 5)  # no divisor of a window's 23 predictions
    model = getattr(tiny_models, kind)()
    found = perplexity(model, IDS, 24)
    assert found.tokens == 4 * 23
    losses = []
    with torch.no_grad():
        for window in IDS[:96].view(4, 1, 24):
            logits = model(window).logits[0]
            losses.append(float(F.cross_entropy(logits[:-1], window[0, 1:])))
    assert found.losses == pytest.approx(losses, rel=1e-5)
    assert found.value == pytest.approx(math.exp(sum(losses) / 4), rel=1e-5)
    assert perplexity(model, IDS, 24, limit=2).losses == found.losses[:2]


def test_ratio_is_paired():
    base = Perplexity((1.0, 2.0, 4.0), 10)
    ratio, error = Perplexity((1.1, 2.1, 4.1), 10).ratio(base)
    assert ratio == pytest.approx(math.exp(0.1)) and error == pytest.approx(0, abs=1e-9)
    ratio, error = Perplexity((1.1, 2.2, 4.3), 10).ratio(base)
    # differences 0.1, 0.2, 0.3: mean 0.2, standard deviation 0.1
    assert ratio == pytest.approx(math.exp(0.2))
    assert error == pytest.approx(math.exp(0.2) * 0.1 / math.sqrt(3))


def test_short_text():
    with pytest.raises(DataError, match="23 tokens of text are fewer than a window of 24"):
        perplexity(tiny_models.gpt2(), IDS[:23], 24)
