"""GGUF files: the models they were made from, and what is not understood is named."""

import gguf
import numpy as np
import pytest
import torch
import transformers

from rf8.checkpoint.families import FAMILIES
from rf8.checkpoint.huggingface import from_transformers, to_transformers
from rf8.checkpoint.load import load_model
from rf8.errors import DataError
from rf8.evaluation.samples import sample, write_gguf

OWN = {
    # What llama.cpp gives the architecture, and its files do not say.
    "gemma2": {"query_pre_attn_scalar": 12},
    "gemma3_text": {"query_pre_attn_scalar": 12},
}
IDS = torch.arange(12)[None] * 3


def logits(module):
    with torch.no_grad():
        return module(IDS).logits.numpy()


@pytest.mark.parametrize("kind", FAMILIES)
def test_files_give_the_models_they_were_made_from(tmp_path, kind):
    changes = OWN.get(kind, {})
    if kind == "mistral":
        changes = {"sliding_window": None}
    module = sample(kind, **changes)
    path = write_gguf(tmp_path / "m.gguf", module, kind)
    model = load_model(path)
    exact = from_transformers(module, kind)
    assert model.tensors.keys() == exact.tensors.keys()
    for name, values in exact.tensors.items():
        # Norms are stored as one more than they are.
        assert np.allclose(model.tensors[name], values, rtol=0, atol=1e-6), name
    assert np.allclose(logits(to_transformers(model)), logits(module), atol=1e-4)
    assert "tokenizer.json" in model.files or kind in str(model.notes) or model.notes


@pytest.mark.parametrize("kind", ["llama", "qwen2", "stablelm"])
def test_transformers_reads_the_same(tmp_path, kind):
    path = write_gguf(tmp_path / "m.gguf", sample(kind), kind)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name)
    assert np.allclose(logits(to_transformers(load_model(path))), logits(theirs.eval()), atol=1e-5)


def test_scaling_of_rotary_positions_by_a_tensor(tmp_path):
    rope = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16, "rope_theta": 10000.0,
    }  # fmt: skip
    module = sample("llama", rope_parameters=rope)
    factors = 1e4 ** -(np.arange(0, 8, 2) / 8) / module.model.rotary_emb.inv_freq.numpy()
    extra = [("rope_freqs.weight", factors)]
    model = load_model(write_gguf(tmp_path / "m.gguf", module, "llama", extra=extra))
    assert np.allclose(logits(to_transformers(model)), logits(module), atol=1e-5)
    odd = [("rope_freqs.weight", factors * [1, 1, 1.3, 1])]
    with pytest.raises(DataError, match=r"rope_freqs.weight is no scaling of Llama 3"):
        load_model(write_gguf(tmp_path / "odd.gguf", module, "llama", extra=odd))


def test_biases_are_used(tmp_path):
    module = sample("llama", attention_bias=True, mlp_bias=True)
    model = load_model(write_gguf(tmp_path / "m.gguf", module, "llama"))
    assert np.allclose(logits(to_transformers(model)), logits(module), atol=1e-5)


def test_quantised_tensors(tmp_path):
    module = sample("llama", hidden_size=64, num_attention_heads=2)
    name = "blk.0.ffn_up.weight"
    kind = gguf.GGMLQuantizationType.Q8_0
    path = write_gguf(tmp_path / "m.gguf", module, "llama", types={name: kind})
    found = load_model(path).tensors["layers.0.mlp.up_proj.weight"]
    exact = module.model.layers[0].mlp.up_proj.weight.detach().numpy()
    assert 0 < np.abs(found - exact).max() < np.abs(exact).max() / 100


def test_no_tokenizer(tmp_path):
    module = sample("llama")
    model = load_model(write_gguf(tmp_path / "m.gguf", module, "llama", tokenizer=False))
    assert not model.files
    assert model.notes[0].endswith("has no tokenizer: give tokens with --prompt-ids")


ONES = np.ones((4, 50, 48))
BROKEN = {
    "missing tensor": ({"drop": ["blk.1.ffn_up.weight"]}, r"mlp.up_proj.weight is missing"),
    "missing embedding": ({"drop": ["token_embd.weight"]}, r"embed_tokens.weight is missing"),
    "unused tensor": ({"extra": [("blk.0.spin.weight", ONES)]}, "tensor blk.0.spin.weight belongs"),
    "experts' tensors": ({"extra": [("blk.0.ffn_up_exps.weight", ONES)]}, "ffn_up_exps.weight bel"),
    "experts": ({"metadata": {"expert_count": 4}}, "expert_count is 4: mixtures of experts"),
    "one more layer's": (
        {"metadata": {"block_count": 1}},
        r"tensor blk.1.\S+ belongs to",
    ),
    "scaling": ({"metadata": {"rope.scaling.type": "spiral"}}, "rope.scaling.type is 'spiral'"),
    "yarn by half": (
        {"metadata": {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}},
        "'yarn' without rope.scaling.original_context_length",
    ),
    "longrope by half": (
        {"metadata": {"rope.scaling.type": "longrope"}},
        "'longrope' without tensors of its factors",
    ),
    "a factor of nothing": (
        {"metadata": {"rope.scaling.factor": 4.0}},
        "factor is 4, which is not supported where",
    ),
    "another length": (
        {"metadata": {"rope.scaling.attn_factor": 1.5}},
        "attn_factor is 1.5, which is not support",
    ),
    "another base": ({"metadata": {"rope.freq_base_swa": 1e4}}, "freq_base_swa is not known for l"),
    "unknown key": ({"metadata": {"attention.clamp_kqv": 8.0}}, "clamp_kqv is 8.0, which is not"),
    "two widths": ({"metadata": {"attention.value_length": 4}}, "another width than keys"),
    "both ways": ({"metadata": {"attention.causal": False}}, "only causal models"),
    "shape": ({"metadata": {"feed_forward_length": 51}}, r"has shape \(50, 48\), config"),
    "no layers": ({"metadata": {"block_count": None}}, "its metadata has no num_hidden_layers"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_not_understood_is_named(tmp_path, case):
    options, words = BROKEN[case]
    path = write_gguf(tmp_path / "m.gguf", sample("llama"), "llama", **options)
    with pytest.raises(DataError, match=words) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_other_architectures_are_named(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(
        DataError, match="architecture 'mamba' is not supported; this rf8 reads lla"
    ):
        load_model(tmp_path / "m.gguf")
