"""DeepShape on models and its command. Seeds are fixed."""

import json
import sys

import numpy as np
import pytest
import tiny_models

import rf8
from rf8 import gg
from rf8.cli import main
from rf8.errors import DataError
from rf8.gg import reshape


def run(*arguments):
    """Run the command; returns its exit code."""
    sys.argv = ["rf8", *map(str, arguments)]
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_models.save(folder, n_embd=60, n_inner=200, vocab_size=500)
    return folder


@pytest.mark.parametrize(("group", "count"), [("tensor", 10), ("kind", 6), ("model", 1)])
def test_groups(folder, group, count):
    model = rf8.load_model(folder)
    result, changes = reshape.reshape_model(
        model, shape=1.0, step=2.0**-6, min_count=0.01, group=group
    )
    assert len(changes) == count
    names = set(model.matrices())
    assert {n for done in changes for n in done.names} == names
    for done in changes:
        values = np.concatenate([result.tensors[n].ravel() for n in done.names])
        levels, counts = np.unique(values, return_counts=True)
        kept = done.goal.counts > 0
        assert (levels == done.goal.levels[kept]).all()
        assert (counts == done.goal.counts[kept]).all()
        assert done.new_shape == 1.0 and done.new_std == pytest.approx(done.std)
    for name in set(model.tensors) - names:
        assert result.tensors[name] is model.tensors[name]


def test_factors(folder):
    model = rf8.load_model(folder)
    _, (done,) = reshape.reshape_model(
        model, shape_factor=0.5, std_factor=2.0, step=2.0**-6, min_count=0.1, group="model"
    )
    found = gg.fit([model.float_tensor(n) for n in done.names])
    assert (done.shape, done.std) == (found.shape, found.std)
    assert done.new_shape == found.shape * 0.5 and done.new_std == found.std * 2


def test_command_and_undo(folder, tmp_path, capsys):
    out, back = tmp_path / "shaped", tmp_path / "back"
    options = ("--shape-factor", 0.8, "--step", 2.0**-8, "--min-count", 0.01)
    assert run("deepshape", folder, "-o", out, *options, "--json") == 0
    rows = json.loads(capsys.readouterr().out)["groups"]
    assert len(rows) == 10 and all(row["new_shape"] < row["shape"] for row in rows)
    assert run("deepshape", out, "--undo", "-o", back, "--json") == 0
    assert 0 < json.loads(capsys.readouterr().out)["rms_over_std"] < 0.1
    model, shaped, restored = (rf8.load_model(f) for f in (folder, out, back))
    for done in reshape.read_changes(out / reshape.REPORT):
        (name,) = done.names
        old, new, undone = (m.float_tensor(name) for m in (model, shaped, restored))
        assert not (new == old).all()
        error = np.sqrt(np.mean((undone - old).astype(float) ** 2))
        assert error == pytest.approx(done.rms_undone, rel=1e-3, abs=1e-7)


def test_undo_refuses_another_model(folder):
    model = rf8.load_model(folder)
    shaped, changes = reshape.reshape_model(model, step=2.0**-6, min_count=0.01)
    with pytest.raises(DataError, match=r"cannot undo wte\.weight, it holds values that are no"):
        reshape.undo_model(model, changes)
    del shaped.tensors["h.1.mlp.c_fc.weight"]
    with pytest.raises(DataError, match=r"has no h\.1\.mlp\.c_fc\.weight"):
        reshape.undo_model(shaped, changes)


def test_refusals(folder, tmp_path, capsys):
    model = rf8.load_model(folder)
    with pytest.raises(DataError, match="RF8 already"):
        reshape.reshape_model(rf8.quantize(model))
    with pytest.raises(ValueError, match="group is 'all'"):
        reshape.reshape_model(model, group="all")
    constant = rf8.load_model(folder)
    constant.tensors["wte.weight"] = np.full((500, 60), 0.5, np.float32)
    with pytest.raises(DataError, match=r"^wte\.weight: all 30000 values are equally far from 0"):
        reshape.reshape_model(constant)
    assert run("deepshape", folder, "-o", tmp_path / "x", "--step", -1) == 2
    assert "--step is -1.0, must be positive" in capsys.readouterr().err
    assert run("deepshape", folder, "--undo", "--step", 0.5, "-o", tmp_path / "x") == 2
    assert "--undo takes no target" in capsys.readouterr().err
    assert run("deepshape", folder, "--undo", "-o", tmp_path / "x") == 1
    assert "deepshape.safetensors is missing" in capsys.readouterr().err
    assert run("deepshape", folder, "-o", tmp_path / "x", "--step", 1e-7) == 1
    assert "multiples of 1e-07 are needed: larger step" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing")
    with pytest.raises(DataError, match="is broken"):
        reshape.read_changes(broken)
