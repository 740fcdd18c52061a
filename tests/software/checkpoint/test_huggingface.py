import numpy as np
import pytest
import tiny_models
import torch

import rf8
from rf8.checkpoint.families import FAMILIES
from rf8.checkpoint.huggingface import from_transformers, skeleton, to_transformers
from rf8.errors import DataError
from rf8.evaluation.samples import sample

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
    assert set(model.tensors) == {*model.graph.matrices(), *model.graph.vectors()}
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
    assert set(model.tensors) - set(model.matrices()) == {n for n in model.tensors if "norm" in n}


def test_gpt2_shares_its_memory(checkpoint):
    model = rf8.load_model(checkpoint)
    held = to_transformers(model).transformer.wte.weight.detach().numpy()
    assert np.shares_memory(held, model.tensors["wte.weight"])


@pytest.mark.parametrize("kind", FAMILIES)
def test_families_go_there_and_back(tmp_path, kind):
    theirs = sample(kind)
    theirs.save_pretrained(tmp_path)
    model = rf8.load_model(tmp_path)
    ids = torch.arange(12)[None] * 3
    with torch.no_grad():
        assert (to_transformers(model)(ids).logits == theirs(ids).logits).all()
    assert model.graph == from_transformers(theirs, kind).graph
    rf8.quantize(model).save(tmp_path / "coded")
    assert rf8.load_model(tmp_path / "coded").graph == model.graph


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_act": "gelu_fast_x"}, "transformers refuses it: .*gelu_fast_x"),
        ({"rms_norm_eps": "x"}, "transformers refuses it: .*rms_norm_eps"),
        ({"rope_scaling": "x"}, "rope_scaling is 'x', must be an object"),
        ({"rope_scaling": {"rope_type": "spiral"}}, "of type 'spiral' are not supported, only def"),
        ({"rope_scaling": {"type": "linear", "spin": 2}}, "rope_scaling.spin is 2, which is not k"),
        ({"rope_interleaved": True}, "rope_interleaved is True, which transformers' LlamaConfig"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5, which .* does not use"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
        ({"model_type": "gpt2", "rope_theta": 3.0}, "rope_theta is 3.0, which .* GPT2Config does"),
        ({"num_local_experts": 8}, "num_local_experts is 8: mixtures of experts are not supported"),
        ({"model_type": "mixtral", "num_local_experts": 8}, "'mixtral' is a mixture of experts"),
        ({"model_type": "qwen4"}, "'qwen4' is not supported; the nearest is 'qwen3'"),
        ({"model_type": None}, "model_type is None"),
        ({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}, "more than text"),
    ],
)
def test_configs_that_are_not_understood(change, words):
    config = {"model_type": "llama", "num_attention_heads": 32, **change}
    with pytest.raises(DataError, match=words) as caught:
        skeleton(config, "here")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change", [{"n_ctx": 8}, {"new_trick": False}, {"task_specific_params": {}}]
)
def test_fields_that_change_nothing_are_taken(change):
    skeleton({"model_type": "gpt2", "n_layer": 1, **change}, "here")


def test_broken_gguf(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + bytes(20))
    with pytest.raises(DataError, match=r"m\.gguf is no GGUF file that can be read"):
        rf8.load_model(path)
