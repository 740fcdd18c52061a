import numpy as np
import pytest
import tiny_models
import torch

import rf8
from rf8.checkpoint.architecture import LlamaSpec, is_matrix, read_spec
from rf8.checkpoint.huggingface import from_transformers, to_transformers
from rf8.errors import DataError

LLAMAS = {
    "untied": {},
    "tied": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
}


@pytest.mark.parametrize("changes", LLAMAS.values(), ids=LLAMAS)
def test_llama_goes_there_and_back(tmp_path, changes):
    theirs = tiny_models.llama(**changes)
    theirs.save_pretrained(tmp_path)
    model = rf8.load_model(tmp_path)
    assert isinstance(model.spec, LlamaSpec)
    assert set(model.tensors) == set(model.spec.shapes())
    ids = torch.arange(24)[None] * 3
    with torch.no_grad():
        assert (to_transformers(model)(ids).logits == theirs(ids).logits).all()
    model.save(tmp_path / "again")
    again = rf8.load_model(tmp_path / "again")
    for name in model.tensors:
        assert (again.tensors[name] == model.tensors[name]).all()


def test_quantized_llama_has_the_values_of_its_codes(tmp_path):
    tiny_models.llama().save_pretrained(tmp_path)
    model = rf8.quantize(rf8.load_model(tmp_path))
    state = to_transformers(model).state_dict()
    for name in model.tensors:
        key = name if name.startswith("lm_head") else f"model.{name}"
        assert (state[key].numpy() == model.float_tensor(name)).all()
    assert {n for n in model.tensors if not is_matrix(n)} == {
        n for n in model.tensors if "norm" in n
    }


def test_gpt2_shares_its_memory(checkpoint):
    model = rf8.load_model(checkpoint)
    held = to_transformers(model).transformer.wte.weight.detach().numpy()
    assert np.shares_memory(held, model.tensors["wte.weight"])


def test_what_cannot_run_is_named(tmp_path):
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    tiny_models.llama(rope_parameters=rope).save_pretrained(tmp_path)
    words = "model.rotary_emb: rotary positions of type 'linear' cannot be lowered, only 'default'"
    with pytest.raises(DataError, match=words):
        rf8.compile(rf8.quantize(rf8.load_model(tmp_path)), config="tiny")


def test_interleaved_pairs_are_not_transformers(tmp_path):
    model = from_transformers(tiny_models.llama(rope_interleaved=True), "m")
    assert model.spec.interleaved
    with pytest.raises(DataError, match="m: transformers' Llama has no rope_interleaved"):
        to_transformers(model)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"num_key_value_heads": 5},
            "32 is no multiple of num_key_value_heads 5",
        ),
        ({"hidden_act": "gelu"}, "hidden_act='gelu' is not supported"),
        ({"rms_norm_eps": 2.0}, "rms_norm_eps is 2.0"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"head_dim": 7}, "head_dim is 7: rotary positions need pairs"),
        ({"rope_parameters": {"rope_theta": -1}}, "rope_theta is -1, must be above 1"),
        ({"rope_scaling": "x"}, "rope_parameters is 'x', must be an object"),
    ],
)
def test_impossible_llamas(change, words):
    config = {"model_type": "llama", "num_attention_heads": 32, **change}
    with pytest.raises(DataError, match=words):
        read_spec(config, "here")


def test_broken_gguf(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + bytes(20))
    with pytest.raises(DataError, match=r"m\.gguf is no GGUF file that can be read"):
        rf8.load_model(path)


def test_rotary_fields_of_older_configs():
    config = {"model_type": "llama", "rope_theta": 5e5, "rope_scaling": {"type": "dynamic"}}
    spec = read_spec(config, "here")
    assert (spec.theta, spec.rotary) == (5e5, "dynamic")
    assert read_spec({"model_type": "llama"}, "here").rotary == "default"
