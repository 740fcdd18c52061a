"""``rf8 rate`` on an RF8 and on a float model."""

import json
import sys

import numpy as np
import pytest
from command import rf8

from rf8.checkpoint.load import load_model
from rf8.cli import main
from rf8.gg.rate import entropy, quantize_uniform


def test_codes_and_floats(checkpoint):
    done = rf8("rate", "default", "--json")
    assert done.returncode == 0, done.stderr
    model, found = load_model("default"), json.loads(done.stdout)
    assert found["span"] == 16 and 6 < found["total"]["entropy"] < found["total"]["huffman"] < 8
    codes = model.tensors["h.1.mlp.c_fc.weight"].codes
    of_tensor = found["tensors"]["h.1.mlp.c_fc.weight"]
    assert of_tensor["entropy"] == pytest.approx(entropy(codes.astype(np.int64)))
    done = rf8("rate", checkpoint, "--step", "0.01", "--json")
    found, model = json.loads(done.stdout), load_model(checkpoint)
    symbols = quantize_uniform(model.tensors["wte.weight"], 0.01)
    assert found["tensors"]["wte.weight"]["entropy"] == pytest.approx(entropy(symbols))
    assert "golomb-3-ranked" in found["total"]
    assert "all" in rf8("rate", checkpoint).stdout


def test_bad_step(checkpoint):
    done = rf8("rate", checkpoint, "--step", "0")
    assert done.returncode == 2 and "--step is 0.0" in done.stderr


def test_missing_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setattr(sys, "argv", ["rf8", "rate", "default"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    assert "zstandard is missing: pip install 'rf8[gg]'" in capsys.readouterr().err
