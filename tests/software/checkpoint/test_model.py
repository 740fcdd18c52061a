import json
import shutil
from fnmatch import fnmatch

import numpy as np
import pytest
import tiny_models
import torch
from safetensors.torch import load_file, save_file

from rf8.checkpoint.load import load_model
from rf8.errors import DataError
from rf8.quantize import quantize


def test_loads_what_transformers_saved(checkpoint):
    model = load_model(checkpoint)
    state = load_file(checkpoint / "model.safetensors")
    # Conv1D is [in, out]; models here are [out, in].
    attn = state["transformer.h.0.attn.c_attn.weight"]
    assert (model.tensors["h.0.attn.c_attn.weight"] == attn.T.numpy()).all()
    assert (model.tensors["wte.weight"] == state["transformer.wte.weight"].numpy()).all()
    (_, attention), _ = model.graph.attentions()
    assert attention.heads == 5 and model.graph.tied
    assert model.graph.matrices()["h.1.mlp.c_fc.weight"] == (50, 30)


def test_untied_head(tmp_path):
    tiny_models.save(tmp_path, tie_word_embeddings=False, vocab_size=7)
    assert load_model(tmp_path).tensors["lm_head.weight"].shape == (7, 30)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_float_types(checkpoint, tmp_path, dtype):
    shutil.copytree(checkpoint, tmp_path / "m")
    state = load_file(checkpoint / "model.safetensors")
    save_file({k: v.to(dtype) for k, v in state.items()}, tmp_path / "m" / "model.safetensors")
    loaded = load_model(tmp_path / "m").tensors["wpe.weight"]
    assert (loaded == state["transformer.wpe.weight"].to(dtype).float().numpy()).all()


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_tensors(folder, change):
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


WTE = "transformer.wte.weight"


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


BROKEN = {
    "architecture": (lambda f: edit_config(f, model_type="mamba"), "'mamba' is not supported"),
    "no config": (lambda f: (f / "config.json").unlink(), r"config.json is missing"),
    "no json": (lambda f: (f / "config.json").write_text("{"), "is no JSON"),
    "a list": (lambda f: (f / "config.json").write_text("[1]"), "holds no JSON object"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
    "truncated": (truncate, "is broken or truncated"),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "is broken or truncated"),
    "heads": (lambda f: edit_config(f, n_head=4), "transformers refuses it: .*embed_dim"),
    "layers": (lambda f: edit_config(f, n_layer=3), "tensor h.2.attn.c_attn.weight is missing"),
    "shape": (lambda f: edit_config(f, vocab_size=102), r"wte.weight has shape \(101, 30\)"),
    "number": (lambda f: edit_config(f, n_layer="2"), "transformers refuses it: .*n_layer"),
    "activation": (
        lambda f: edit_config(f, activation_function="mish"),
        "act: operation aten.mish",
    ),
    "epsilon": (lambda f: edit_config(f, layer_norm_epsilon=None), "refuses it: .*_epsilon"),
    "no name": (lambda f: edit_config(f, activation_function=["a"]), "refuses it: .*_function"),
    "option": (lambda f: edit_config(f, new_trick=3), "new_trick is 3, which .* GPT2Config does n"),
    "foreign": (
        lambda f: edit_config(f, quantization_config={"quant_method": "gptq"}),
        "quantised as 'gptq'",
    ),
    "dtype": (
        lambda f: edit_tensors(f, lambda s: s.update({WTE: s[WTE].to(torch.int32)})),
        "wte.weight has dtype int32",
    ),
    "nan": (
        lambda f: edit_tensors(f, lambda s: s[WTE].__setitem__((3, 4), float("nan"))),
        r"wte.weight has 1 NaN or Inf of 3030, first \[3, 4\]",
    ),
    "missing tensor": (
        lambda f: edit_tensors(f, lambda s: s.pop("transformer.ln_f.bias")),
        "tensor ln_f.bias is missing",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_models_are_named(checkpoint, tmp_path, case):
    folder = tmp_path / "m"
    shutil.copytree(checkpoint, folder)
    breaks, message = BROKEN[case]
    breaks(folder)
    with pytest.raises(DataError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "nonsense"])
def test_no_such_model(name):
    with pytest.raises(DataError, match=r"no model .*neither a directory"):
        load_model(name)


def test_file_instead_of_directory(checkpoint):
    with pytest.raises(DataError, match="is a file; a model is a directory"):
        load_model(checkpoint / "config.json")


def test_save_refuses_to_replace_something_else(checkpoint, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(DataError, match="holds other files"):
        load_model(checkpoint).save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


@pytest.mark.parametrize("config", ['{"app": 1}', '{"model_type": "gpt2"}'])
def test_save_keeps_folders_that_are_not_its_own(checkpoint, tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(DataError, match="holds other files"):
        load_model(checkpoint).save(tmp_path)
    assert (tmp_path / "config.json").read_text() == config


def test_save_replaces_an_rf8_checkpoint(checkpoint, tmp_path):
    out = tmp_path / "q"
    for span in (16, 8):
        quantize(load_model(checkpoint), span=span).save(out)
        assert load_model(out).span == span
    assert [p.name for p in tmp_path.iterdir()] == ["q"]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="holds other files"):
        quantize(load_model(checkpoint)).save(out)


def test_wrong_span_label(checkpoint, tmp_path):
    quantize(load_model(checkpoint)).save(tmp_path / "q")
    for label, message in ((8, "codes below its span of 8"), (7, "span is 7, must be one of")):
        info = {"quant_method": "rf8", "version": 1, "method": "paper", "span": label}
        edit_config(tmp_path / "q", quantization_config=info)
        with pytest.raises(DataError, match=message):
            load_model(tmp_path / "q")


def test_failed_save_leaves_nothing(checkpoint, tmp_path, monkeypatch):
    model = load_model(checkpoint)

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(DataError, match=r"cannot write .*No space left on device"):
        model.save(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_float_round_trip(checkpoint, tmp_path):
    model = load_model(checkpoint)
    model.save(tmp_path / "again")
    again = load_model(tmp_path / "again")
    assert all(np.array_equal(model.tensors[n], again.tensors[n]) for n in model.tensors)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_hub_model_of_either_kind(checkpoint, tmp_path, monkeypatch, kind):
    # A stand-in for the hub, which hands over what matches the patterns it is asked for.
    hub, here = tmp_path / "hub", tmp_path / "here"
    shutil.copytree(checkpoint, hub)
    if kind == "bin":
        torch.save(load_file(hub / "model.safetensors"), hub / "pytorch_model.bin")
        (hub / "model.safetensors").unlink()

    def download(name, allow_patterns):
        here.mkdir(exist_ok=True)
        for path in hub.iterdir():
            if any(fnmatch(path.name, pattern) for pattern in allow_patterns):
                shutil.copy(path, here)
        return str(here)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    found, expected = load_model("someone/tiny"), load_model(checkpoint)
    assert found.name == "someone/tiny"
    assert all((found.tensors[n] == t).all() for n, t in expected.tensors.items())
