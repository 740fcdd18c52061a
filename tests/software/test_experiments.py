"""The comparison of formats on a small model; the claims are made with real ones."""

import json

import pytest
import tiny_models
import torch

import rf8
from rf8.errors import DataError
from rf8.experiments import formats

GENERATOR = torch.Generator().manual_seed(11)
TEXT = torch.randint(101, (24 * 4,), generator=GENERATOR)
CALIBRATION = torch.randint(101, (24 * 30,), generator=GENERATOR)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("m") / "tiny-llama"
    tiny_models.llama().save_pretrained(folder)
    return rf8.load_model(folder)


def test_formats(model, tmp_path, monkeypatch):
    def cut_off(name, number, total):
        if name == "rf8-paper":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        formats.run(model, TEXT, CALIBRATION, tmp_path, windows=3, progress=cut_off)
    path = tmp_path / "formats-tiny-llama.json"
    before = json.loads(path.read_text())["formats"]
    assert list(before) == list(formats.NAMES[:-2])
    evaluated = []
    measure = formats.perplexity
    monkeypatch.setattr(
        formats, "perplexity", lambda *a, **k: evaluated.append(1) or measure(*a, **k)
    )
    results = formats.run(model, TEXT, CALIBRATION, tmp_path, windows=3)
    assert len(evaluated) == 2, "what was there is not measured again"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"formats-tiny-llama.{suffix}" for suffix in ("json", "md", "png")
    ]
    found = results["formats"]
    assert found["float32"]["ratio"] == 1
    # The fewer bits, the more noise.
    order = ["int4", "int4-group", "e5m2", "e4m3", "int8"]
    noise = [found[name]["sqnr_db"] for name in order]
    assert noise == sorted(noise)
    assert found["rf8-nearest"]["sqnr_db"] > found["rf8-paper"]["sqnr_db"]
    assert 8 < found["rf8-nearest"]["bits"] < 9
    page = (tmp_path / "formats-tiny-llama.md").read_text()
    assert page.count("\n| ") == 1 + len(formats.NAMES)
    assert (tmp_path / "formats-tiny-llama.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(DataError, match="holds a run with another windows: delete it"):
        formats.run(model, TEXT, CALIBRATION, tmp_path, windows=2)


def test_rf8_model_is_refused(model, tmp_path):
    with pytest.raises(DataError, match="needs the float model"):
        formats.run(rf8.quantize(model), TEXT, CALIBRATION, tmp_path)
    assert not list(tmp_path.iterdir())


def test_broken_results(model, tmp_path):
    (tmp_path / "formats-tiny-llama.json").write_text("{")
    with pytest.raises(DataError, match="holds no results"):
        formats.run(model, TEXT, CALIBRATION, tmp_path)
