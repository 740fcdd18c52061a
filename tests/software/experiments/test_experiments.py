"""The experiments on small models and few steps; the claims are made with real ones."""

import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import tiny_models
import torch

import rf8
from rf8.checkpoint.huggingface import from_transformers, to_transformers
from rf8.cli import main
from rf8.errors import DataError
from rf8.experiments import backslash, coding, deepshape, formats, init, study

GENERATOR = torch.Generator().manual_seed(11)
TEXT = torch.randint(101, (24 * 4,), generator=GENERATOR)
CALIBRATION = torch.randint(101, (24 * 30,), generator=GENERATOR)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("m") / "tiny-llama"
    tiny_models.llama().save_pretrained(folder)
    return rf8.load_model(folder)


def files(folder):
    return sorted(p.name for p in folder.iterdir())


def test_formats(model, tmp_path, monkeypatch):
    def cut_off(name, number, total):
        if name == "rf8-paper":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        formats.run(model, TEXT, CALIBRATION, tmp_path, windows=3, progress=cut_off)
    path = tmp_path / "formats-tiny-llama.json"
    before = json.loads(path.read_text())["runs"]
    assert list(before) == list(formats.NAMES[:-2])
    evaluated = []
    measure = formats.perplexity
    monkeypatch.setattr(
        formats, "perplexity", lambda *a, **k: evaluated.append(1) or measure(*a, **k)
    )
    done = formats.run(model, TEXT, CALIBRATION, tmp_path, windows=3)
    assert len(evaluated) == 1 + len(study.SEEDS), "what was there is not measured again"
    assert files(tmp_path) == [f"formats-tiny-llama.{s}" for s in ("json", "md", "png")]
    found = formats.summary(done)
    assert found["float32"]["ratio"] == 1
    # The fewer bits, the more noise.
    order = ["int4", "int4-group", "e5m2", "e4m3", "int8"]
    noise = [found[name]["sqnr_db"] for name in order]
    assert noise == sorted(noise)
    assert found["rf8-nearest"]["sqnr_db"] > found["rf8-paper"]["sqnr_db"]
    assert 8 < found["rf8-nearest"]["bits"] < 9
    seeds = [tuple(done.runs[k]["losses"]) for k in formats.RUNS["rf8-compensated"]]
    assert len(set(seeds)) == 3 and found["rf8-compensated"]["seed_sd"] > 0
    page = (tmp_path / "formats-tiny-llama.md").read_text()
    assert page.count("\n| ") == 1 + len(formats.NAMES)
    assert (tmp_path / "formats-tiny-llama.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(DataError, match="holds a run with another windows: delete it"):
        formats.run(model, TEXT, CALIBRATION, tmp_path, windows=2)


@pytest.mark.parametrize("experiment", ["formats", "deepshape"])
def test_rf8_model_is_refused(model, tmp_path, experiment):
    with pytest.raises(DataError, match="needs the float model"):
        if experiment == "formats":
            formats.run(rf8.quantize(model), TEXT, CALIBRATION, tmp_path)
        else:
            deepshape.run(rf8.quantize(model), TEXT, CALIBRATION, tmp_path, window=24, windows=2)
    assert not list(tmp_path.iterdir())


def test_broken_results(model, tmp_path):
    for content in ("{", "[]", '{"setup": 3}'):
        (tmp_path / "formats-tiny-llama.json").write_text(content)
        with pytest.raises(DataError, match="holds no results"):
            formats.run(model, TEXT, CALIBRATION, tmp_path)


def small(recipe):
    return replace(
        recipe, steps=6, vocab_size=101, context=24, n_embd=32, n_layer=2, n_head=2, batch=3
    )


def test_init(tmp_path, monkeypatch):
    monkeypatch.setattr(init, "POINTS", (3,))
    few = {m: t for m, t in init.METHODS.items() if m in ("gpt2", "small-1", "gg-0.5", "gg-2")}
    monkeypatch.setattr(init, "METHODS", few)
    done = init.run(CALIBRATION, TEXT, tmp_path, recipe=small(init.RECIPE))
    assert files(tmp_path) == ["init.json", "init.md", "init.png"]
    assert len(done.runs) == len(init.KINDS) * len(init.METHODS) * len(study.SEEDS)
    assert all(list(run["losses"]) == ["3", "6"] for run in done.runs.values())
    losses = [run["losses"]["6"] for run in done.runs.values()]
    assert len(set(losses)) == len(losses), "every run is another one"
    assert all(0 < loss < 1.2 * math.log(101) for loss in losses)
    page = (tmp_path / "init.md").read_text()
    for title in init.METHODS.values():
        assert page.count(f"| {title} |") == 2


def variances(method):
    found = {}
    for kind in init.KINDS:
        recipe = replace(init.RECIPE, vocab_size=500)
        module = init.new_model(recipe) if kind == "gpt2" else init.small_llama(recipe)
        init.initialise_(module, method, 5)
        state = from_transformers(module, kind)
        prefix = "h.1." if kind == "gpt2" else "layers.1."
        for name, values in state.tensors.items():
            if name.startswith(prefix) and values.ndim == 2:
                found[kind, name.removeprefix(prefix)] = (values.var(), *values.shape)
        embedding = "wte.weight" if kind == "gpt2" else "embed_tokens.weight"
        assert state.tensors[embedding].std() == pytest.approx(0.02, rel=0.05)
    return found


@pytest.mark.parametrize("method", list(init.METHODS))
def test_initialisations_have_their_variances(method):
    for (_, name), (variance, rows, columns) in variances(method).items():
        depth = 1 / 8 if "c_proj" in name or "o_proj" in name or "down_proj" in name else 1
        wanted = {
            "torch": 1 / (3 * columns),
            "xavier": 2 / (rows + columns),
            "kaiming": 2 / columns,
        }.get(method, depth / columns)
        if method in ("gpt2", "small-0.5", "small-1"):
            wanted = 0.02**2 * depth
        assert variance == pytest.approx(wanted, rel=0.15), name


def test_deepshape(model, tmp_path, monkeypatch):
    monkeypatch.setattr(deepshape, "STEPS", (2.0**-8, 2.0**-5))
    monkeypatch.setattr(deepshape, "RECOVERED", (2.0**-5,))
    monkeypatch.setattr(deepshape, "RECIPE", replace(deepshape.RECIPE, steps=3, warmup=1))
    exact = {n: t.copy() for n, t in model.tensors.items()}
    options = {"window": 24, "windows": 4}
    done = deepshape.run(model, TEXT, CALIBRATION, tmp_path, **options)
    assert all((model.tensors[n] == t).all() for n, t in exact.items()), "the model is left alone"
    assert files(tmp_path) == [f"deepshape-tiny-llama.{s}" for s in ("json", "md", "png")]
    assert len(done.runs) == 1 + 2 * 4 + 3 * 4
    for factor in ("plain", "shape-x1", "shape-x0.6"):
        fine, coarse = (done.runs[f"{factor}/2^{k}"]["entropy"] for k in (-8, -5))
        assert fine > coarse + 2
    # A peaked target of the same deviation has less entropy.
    assert done.runs["shape-x0.6/2^-8"]["entropy"] < done.runs["shape-x1/2^-8"]["entropy"]
    page = (tmp_path / "deepshape-tiny-llama.md").read_text()
    assert page.count("\n| 2^-") == 8 and "after recovery" in page
    short = deepshape.run(model, TEXT, CALIBRATION, tmp_path / "short", recovery=False, **options)
    assert len(short.runs) == 1 + 2 * 4
    assert "recovery" not in short.path.with_suffix(".md").read_text()


def test_backslash(tmp_path, monkeypatch):
    monkeypatch.setattr(backslash, "LAMBDAS", (0.0, 3000.0))
    done = backslash.run(CALIBRATION, TEXT, tmp_path, recipe=small(backslash.RECIPE))
    assert files(tmp_path) == ["backslash.json", "backslash.md", "backslash.png"]
    assert list(done.runs) == [f"{s}/{k}" for k in study.SEEDS for s in ("0", "3000")]
    for seed in study.SEEDS:
        free, priced = (done.runs[f"{s}/{seed}"]["2^-13"] for s in ("0", "3000"))
        assert priced["entropy"] < free["entropy"]
    page = (tmp_path / "backslash.md").read_text()
    assert page.count("\n| ") == 1 + (2 + len(backslash.GRIDS)) * 2


def test_coding(model):
    coded = coding.on_grid(model, 0.125)
    for name, tensor in coded.tensors.items():
        old = model.tensors[name]
        assert (tensor == (np.rint(old / 0.125) * 0.125 if old.ndim == 2 else old)).all()
    found = coding.bits(coded, 0.125)
    values = np.concatenate([t.ravel() for t in coded.tensors.values() if t.ndim == 2])
    _, counts = np.unique(values, return_counts=True)
    p = counts / counts.sum()
    assert found["entropy"] == pytest.approx(-(p * np.log2(p)).sum())
    assert found["entropy"] <= found["huffman"] and found["zeros"] == np.mean(values == 0)
    quantized = coding.bits(rf8.quantize(model))
    assert 4 < quantized["entropy"] < 8


def test_modules_become_models(model):
    again = from_transformers(to_transformers(model), "copy")
    assert again.graph == model.graph and again.name == "copy"
    assert set(again.tensors) == set(model.tensors)
    assert all((again.tensors[n] == model.tensors[n]).all() for n in model.tensors)


def test_spread():
    one = study.spread([2.0])
    assert one.mean == 2 and math.isnan(one.deviation)
    # By hand: deviations -1, 0, 1; standard error 1 / sqrt(3); t of two degrees of freedom 4.30.
    three = study.spread([1.0, 2.0, 3.0])
    assert three == pytest.approx((2.0, 1.0, 4.30 / math.sqrt(3)))


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["deepshape", "default", "--windows", "0", "-o", "x"], "--windows is 0", 2),
        (["deepshape", "default", "--text", "a.txt", "-o", "x"], "give both", 2),
        (["deepshape", "nowhere", "-o", "x"], "no model 'nowhere'", 1),
        (["init"], "--output", 2),
    ],
)
def test_command_refusals(arguments, words, code, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["rf8", "experiment", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == code
    assert words in capsys.readouterr().err
