import numpy as np
import pytest
import torch

from rf8.checkpoint.families import FAMILIES
from rf8.checkpoint.huggingface import from_transformers, to_transformers
from rf8.evaluation.samples import sample
from rf8.graph.ir import Linear
from rf8.quantize.fold import absorbers, fold

IDS = torch.tensor([[3, 17, 99, 4, 4, 51, 0, 62, 8]])


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_folded_model_computes_the_same(kind):
    module = sample(kind)
    model = from_transformers(module, kind)
    rng = np.random.default_rng(6)
    scales = {}
    for vector, about in absorbers(model.graph):
        scales[vector] = about.shared(np.exp(rng.normal(0, 0.7, model.graph.ops[vector].width)))
    folded = fold(model, scales)
    with torch.no_grad():
        expected, found = module(IDS).logits, to_transformers(folded)(IDS).logits
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-4
    changed = [n for n, t in folded.tensors.items() if not np.array_equal(t, model.tensors[n])]
    # Whatever reads a norm is scaled; without a gate, nothing takes scales of the hidden layer.
    layer = [n for n in changed if n.startswith(model.graph.layers()[0])]
    assert len(layer) >= 4, changed


def test_what_takes_scales_in_a_llama():
    model = from_transformers(sample("llama", tie_word_embeddings=False), "llama")
    found = {}
    for vector, about in absorbers(model.graph):
        readers = [op for op in model.graph.ops if isinstance(op, Linear) and op.x == vector]
        found[tuple(weight for op in readers for weight, _, _ in op.parts)] = about
    named = {k[0].removesuffix(".weight"): sorted(v.places) for k, v in found.items()}
    assert named["layers.0.self_attn.q_proj"] == ["layers.0.input_layernorm.weight"]
    assert named["layers.0.self_attn.o_proj"] == ["layers.0.self_attn.v_proj.weight"]
    assert named["layers.1.mlp.down_proj"] == ["layers.1.mlp.up_proj.weight"]
    assert named["lm_head"] == ["norm.weight"]
    # Three heads share what a head of v makes.
    shared = found["layers.0.self_attn.o_proj.weight",].shared(np.arange(1.0, 49))
    assert np.allclose(shared[:8], shared[8:16]) and not np.allclose(shared[:8], shared[24:32])


def test_a_tied_head_is_scaled_with_its_embedding_or_not_at_all():
    model = from_transformers(sample("llama", tie_word_embeddings=True), "llama")
    heads = [v for v, _ in absorbers(model.graph) if v == model.graph.ops[model.graph.head].x]
    assert not heads
