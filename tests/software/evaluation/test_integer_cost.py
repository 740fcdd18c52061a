"""What `rf8 eval` measures: every row on the same windows, kept window by window."""

import json

import pytest
import tiny_models
import torch

import rf8
from golden.config import CONFIGS
from rf8.checkpoint.huggingface import from_transformers
from rf8.errors import DataError
from rf8.evaluation import integer_cost as pipeline
from rf8.evaluation.integer_cost import FLOAT, INTEGERS, PARTS, WEIGHTS, measure

IDS = torch.randint(101, (50,), generator=torch.Generator().manual_seed(8))
SIZES = {"window": 20, "windows": 2, "config": CONFIGS["tiny"]}


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_all_rows(kind, tmp_path):
    original = from_transformers(getattr(tiny_models, kind)(), kind)
    model = rf8.quantize(original)
    steps = []
    found = measure(
        model, original, IDS, tmp_path / "e.json", **SIZES, progress=lambda *s: steps.append(s)
    )
    integers = [INTEGERS.format(bits=bits) for bits in (16, 8)]
    assert list(found) == [FLOAT, WEIGHTS, *integers, *PARTS]
    assert [number for _, number, _ in steps] == list(range(2 * len(found)))
    assert steps[-1][2] == 2 * len(found)
    base = found[WEIGHTS]
    assert all(row.tokens == 38 for row in found.values())

    def change(name):
        return abs(found[name].value / base.value - 1)

    fine = ("only activations of 16 bits", "only norms and tables")
    assert all(0 < change(name) < 1e-3 for name in fine)
    # Of 24 bits, it may be lost in the rounding of float32 losses, on some processors.
    assert change("only softmax") < 1e-3
    assert change("only activations of 16 bits") < change("only activations of 8 bits")
    # Keys and values are all that the integers of 16 bits change visibly.
    kv, whole = found["only the RF8 KV cache"], found[integers[0]]
    assert whole.losses == pytest.approx(kv.losses, rel=1e-3)


def test_values_out_of_range_are_counted(tmp_path):
    theirs = tiny_models.gpt2()
    with torch.no_grad():
        theirs.transformer.h[0].mlp.c_proj.weight.mul_(1e6)
    model = rf8.quantize(from_transformers(theirs, "large"))
    found = measure(model, None, IDS, tmp_path / "e.json", **SIZES)
    lost = {name for name, row in found.items() if row.saturated}
    assert lost == {INTEGERS.format(bits=bits) for bits in (16, 8)}
    again = measure(model, None, IDS, tmp_path / "e.json", **SIZES)
    assert {name: row.saturated for name, row in again.items()} == {
        name: row.saturated for name, row in found.items()
    }


def test_goes_on_where_it_stopped(tmp_path, monkeypatch):
    model = rf8.quantize(from_transformers(tiny_models.gpt2(), "m"))
    path = tmp_path / "e.json"
    whole = measure(model, None, IDS, path, **SIZES)
    assert FLOAT not in whole
    kept = json.loads(path.read_text())
    last = list(kept["runs"])[-1]
    removed = kept["runs"].pop(last)
    path.write_text(json.dumps(kept))
    done = []
    monkeypatch.setattr(pipeline, "loss", lambda *_: done.append(1) or removed["loss"])
    assert measure(model, None, IDS, path, **SIZES) == whole
    assert len(done) == 1
    with pytest.raises(DataError, match="holds a run with another text"):
        measure(model, None, IDS.flip(0), path, **SIZES)
    with pytest.raises(DataError, match="fewer than a window of 20"):
        measure(model, None, IDS[:19], path, **SIZES)
