"""Weight files of every kind are read whole, or refused by the name of what is odd."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rf8.checkpoint.huggingface import to_transformers
from rf8.checkpoint.load import load_model
from rf8.errors import DataError
from rf8.evaluation.samples import sample

UP = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture
def folder(tmp_path):
    sample("llama").save_pretrained(tmp_path)
    return tmp_path


def state_of(folder):
    return load_file(folder / "model.safetensors")


def put(folder, state):
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "model.safetensors")


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def same(folder, expected):
    found = load_model(folder).tensors
    assert all((found[n] == values).all() for n, values in expected.items())


def test_shards(folder):
    expected, state = load_model(folder).tensors, state_of(folder)
    names = sorted(state)
    shards = {"a.safetensors": names[:7], "b.safetensors": names[7:]}
    for file, part in shards.items():
        save_file({n: state[n] for n in part}, folder / file)
    (folder / "model.safetensors").unlink()
    places = {name: file for file, part in shards.items() for name in part}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    same(folder, expected)

    index.write_text(json.dumps({"weight_map": {k: v for k, v in places.items() if k != names[3]}}))
    with pytest.raises(DataError, match=rf"a.safetensors: tensor {names[3]} is not in the index"):
        load_model(folder)
    index.write_text(json.dumps({"weight_map": {**places, "more.weight": "b.safetensors"}}))
    with pytest.raises(DataError, match=r"tensor more.weight is missing, which the index promises"):
        load_model(folder)
    moved = {k: v.replace("a.", "c.") for k, v in places.items()}
    index.write_text(json.dumps({"weight_map": moved}))
    with pytest.raises(DataError, match=r"c.safetensors is missing, which .* promises"):
        load_model(folder)
    index.unlink()
    (folder / "a.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    with pytest.raises(DataError, match=r"model-00001-of-00002.safetensors but no index"):
        load_model(folder)


def test_parts_that_would_be_left_out(folder):
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    with pytest.raises(DataError, match=r"has model.safetensors and model.safetensors.index.json"):
        load_model(folder)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(DataError, match="holds a PEFT adapter: merge it into the model"):
        load_model(folder)


def test_pickles_are_read_as_weights_alone(folder):
    expected, state = load_model(folder).tensors, state_of(folder)
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    same(folder, expected)
    torch.save({**state, "trainer": np.float64}, folder / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"pytorch_model.bin cannot be read as weights alone"):
        load_model(folder)
    torch.save({**state, "step": 3}, folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="step is no tensor but a int"):
        load_model(folder)


def float8(state, scales):
    """The matrices in float8, each beside the scales that ``scales`` gives for it."""
    found, exact = {}, {}
    for name, values in state.items():
        if "proj" not in name:
            found[name] = values
            continue
        scale, wide = scales(values)
        coded = (values / wide).to(torch.float8_e4m3fn)
        found[name], found[f"{name}_scale"] = coded, scale
        exact[name.removeprefix("model.")] = (coded.float() * wide).numpy()
    return found, exact


def one(values):
    scale = values.abs().max() / 448
    return scale.reshape(1), scale


def row(values):
    scale = values.abs().amax(1, keepdim=True) / 448
    return scale, scale


def block(values):
    rows, columns = (-(-n // 16) for n in values.shape)
    scale = torch.rand(rows, columns) * 0.01 + 0.01
    wide = scale.repeat_interleave(16, 0).repeat_interleave(16, 1)
    return scale, wide[: values.shape[0], : values.shape[1]]


@pytest.mark.parametrize("scales", [one, row, block])
def test_float8_takes_its_scales(folder, scales):
    found, exact = float8(state_of(folder), scales)
    put(folder, found)
    same(folder, exact)
    edit_config(folder, quantization_config={"quant_method": "fp8"})
    same(folder, exact)
    edit_config(folder, quantization_config={"quant_method": "fp8", "weight_block_size": [16, 16]})
    same(folder, exact)
    if scales is block:
        wrong = {"quant_method": "fp8", "weight_block_size": [16, 8]}
        edit_config(folder, quantization_config=wrong)
        with pytest.raises(DataError, match=r"_scale has shape .*, which fits no"):
            load_model(folder)


def test_float8_without_scales(folder):
    found, _ = float8(state_of(folder), one)
    del found[f"{UP}_scale"]
    put(folder, found)
    edit_config(folder, quantization_config={"quant_method": "fp8"})
    with pytest.raises(DataError, match=rf"{UP} is torch.float8_e4m3fn with no {UP}_scale"):
        load_model(folder)
    found[f"{UP}_scale"] = torch.ones(7, 7, 7)
    put(folder, found)
    with pytest.raises(DataError, match=rf"{UP}_scale has shape \(7, 7, 7\), which fits no"):
        load_model(folder)


def test_a_head_of_its_own_beside_the_flag_that_ties_it(folder):
    edit_config(folder, tie_word_embeddings=True)
    model = load_model(folder)
    assert not model.graph.tied
    (note,) = model.notes
    assert note.endswith("the file has a lm_head.weight of its own: it is used")
    state = state_of(folder)
    assert (model.tensors["lm_head.weight"] == state["lm_head.weight"].numpy()).all()
    module = to_transformers(model)
    assert (module.lm_head.weight.detach().numpy() == state["lm_head.weight"].numpy()).all()
    # The embedding once more is no other head.
    state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
    put(folder, state)
    again = load_model(folder)
    assert again.graph.tied and not again.notes
    # Of one matrix for both, files may have either name.
    del state["model.embed_tokens.weight"]
    put(folder, state)
    other = load_model(folder)
    embedding = "embed_tokens.weight"
    assert (other.tensors[embedding] == again.tensors[embedding]).all()


UNUSED = {
    "bias": ("model.layers.0.self_attn.q_proj.bias", torch.ones(48)),
    "matrix": ("model.layers.0.mlp.extra.weight", torch.ones(3, 3)),
    "layer": ("model.layers.2.input_layernorm.weight", torch.ones(48)),
    "scales": ("model.layers.0.mlp.up_proj.weight_scale", torch.ones(1)),
    "mask that is none": ("model.layers.0.attn.bias", torch.ones(48)),
}


@pytest.mark.parametrize("case", UNUSED)
def test_tensors_that_nothing_uses(folder, case):
    name, values = UNUSED[case]
    put(folder, {**state_of(folder), name: values})
    with pytest.raises(
        DataError, match=rf"tensor {name} is used by nothing that config.json descr"
    ):
        load_model(folder)


KNOWN = {
    "frequencies": ("model.layers.0.self_attn.rotary_emb.inv_freq", torch.ones(4)),
    "mask": ("model.layers.0.attn.bias", torch.ones(24, 24).tril()[None, None]),
    "fill": ("model.layers.0.attn.masked_bias", torch.tensor(-1e4)),
}


@pytest.mark.parametrize("case", KNOWN)
def test_buffers_that_follow_from_the_config(folder, case):
    expected = load_model(folder).tensors
    name, values = KNOWN[case]
    put(folder, {**state_of(folder), name: values})
    same(folder, expected)


def test_a_tensor_twice(folder):
    state = state_of(folder)
    put(folder, {**state, UP.removeprefix("model."): state[UP].clone()})
    with pytest.raises(DataError, match=r"layers.0.mlp.up_proj.weight is there twice"):
        load_model(folder)


def test_a_pointer_of_git_lfs(folder):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (folder / "model.safetensors").write_text(text)
    with pytest.raises(DataError, match=r"is a Git LFS pointer, not the file: run `git lfs pull`"):
        load_model(folder)


def test_models_larger_than_memory_are_refused_before_they_are_read(folder, monkeypatch):
    (folder / "model.safetensors").unlink()
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 20}
    monkeypatch.setattr("os.sysconf", sizes.__getitem__)
    words = r"0.0 G weights take 0 GB in float32, this computer has 0 GB: quantise it on"
    with pytest.raises(DataError, match=words):
        load_model(folder)
