"""``rf8 quantize --method compensated`` on the model that comes with the package."""

import dataclasses
import json
from pathlib import Path

import pytest
from command import rf8 as command

import rf8
from rf8.checkpoint.model import RF8Tensor

TEXT = Path(__file__).parents[3] / "README.md"


@pytest.fixture(scope="module")
def floats(tmp_path_factory):
    """The default model as a float checkpoint with its tokenizer."""
    model = rf8.load_model("default")
    tensors = {n: model.float_tensor(n) for n in model.tensors}
    folder = tmp_path_factory.mktemp("float") / "model"
    dataclasses.replace(model, tensors=tensors, span=None, method=None).save(folder)
    return folder


def test_compensated(floats, tmp_path):
    options = ["--method", "compensated", "--calibration", TEXT, "--span", "8", "--json"]
    done = command("quantize", floats, "-o", tmp_path / "q", *options)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)["tensors"]}
    row = rows["h.2.mlp.c_fc.weight"]
    assert 0 < row["output_error"] < row["nearest_output_error"]
    assert rows["wpe.weight"]["output_error"] is None
    model = rf8.load_model(tmp_path / "q")
    assert model.method == "compensated" and model.span == 8
    assert sum(isinstance(t, RF8Tensor) for t in model.tensors.values()) == len(rows)
    assert [path.name for path in tmp_path.iterdir()] == ["q"], "the state stays only if cut off"


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--method", "compensated"], 2, "go together"),
        (["--method", "nearest", "--calibration", TEXT], 2, "go together"),
        (["--method", "compensated", "--calibration", "nowhere.txt"], 1, "nowhere.txt"),
        (["--method", "compensated", "--calibration", TEXT.parent / ".gitignore"], 1, "window"),
        (["--method", "best"], 2, "best"),
    ],
)
def test_bad_options(floats, tmp_path, options, code, words):
    done = command("quantize", floats, "-o", tmp_path / "q", *options)
    assert done.returncode == code
    assert words in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "q").exists()


def test_too_short_text_leaves_no_state(floats, tmp_path):
    text = tmp_path / "short.txt"
    text.write_text("one two")
    options = ["--method", "compensated", "--calibration", text]
    assert command("quantize", floats, "-o", tmp_path / "q", *options).returncode == 1
    assert [path.name for path in tmp_path.iterdir()] == ["short.txt"]
