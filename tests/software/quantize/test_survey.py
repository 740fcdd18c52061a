import numpy as np
import torch

from rf8.checkpoint.huggingface import from_transformers, to_transformers
from rf8.evaluation.samples import sample
from rf8.graph.ir import Linear
from rf8.quantize.survey import survey

IDS = torch.randint(101, (30 * 24,), generator=torch.Generator().manual_seed(5))


def test_survey_sees_gradients_and_inputs():
    model = from_transformers(sample("llama"), "llama")
    windows = IDS[:96].view(4, 24)
    found = survey(model, windows)
    linears = [op for op in model.graph.ops if isinstance(op, Linear)]
    assert set(found.pivots) == {op.x for op in linears}
    assert set(found.worth) == {weight for op in linears for weight, _, _ in op.parts}
    # By hand for one layer: add a parameter to its output and look at its gradient, token by token.
    module = to_transformers(model)
    layer = module.base_model.layers[1].mlp.down_proj
    total = torch.zeros(48, dtype=torch.float64)
    for window in windows:
        probe = torch.zeros(24, 48, requires_grad=True)
        handle = layer.register_forward_hook(lambda _, args, out, probe=probe: out + probe)
        logits = module(input_ids=window[None]).logits[0]
        torch.nn.functional.cross_entropy(logits[:-1], window[1:], reduction="sum").backward()
        handle.remove()
        total += probe.grad.double().square().sum(0)
    expected = (total / 96).numpy()
    assert np.allclose(found.worth["layers.1.mlp.down_proj.weight"], expected, rtol=1e-3)
    assert all((pivots > 0).all() for pivots in found.pivots.values())
