import json
import zlib
from itertools import pairwise

import numpy as np
import pytest
import tiny_models
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import rf8
from rf8.checkpoint.huggingface import from_transformers
from rf8.checkpoint.load import PACKAGED
from rf8.errors import DataError
from rf8.program.image import Program


def test_round_trip(image):
    program = Program.load(image)
    assert program.config.name == "tiny" and program.vocab == 101
    assert {(e.columns, e.head) for e in program.entries} == {
        (1, False), (1, True), (2, False), (2, True),
    }  # fmt: skip
    assert program.context == 24
    assert [r.name for r in program.regions] == [
        "logits", "layer 0, keys and values", "layer 1, keys and values",
    ]  # fmt: skip
    for address, data in program.sections.values():
        assert address + data.size <= program.memory_bytes
    taken = sorted((a, data.size) for a, data in program.sections.values())
    taken = sorted(taken + [(r.address, r.size) for r in program.regions])
    for (a, size), (b, _) in pairwise(taken):
        assert a + size <= b


def test_llama_round_trip(tmp_path):
    model = rf8.quantize(from_transformers(tiny_models.llama(), "llama"))
    program = rf8.compile(model, config="tiny")
    program.save(tmp_path / "llama.rf8")
    again = Program.load(tmp_path / "llama.rf8")
    assert (
        again.vocab == model.vocab
        and again.architecture == "llama"
        and again.entries == program.entries
    )
    ids = [3, 1, 4]
    assert (rf8.Session(again).forward(ids) == rf8.Session(program).forward(ids)).all()


def rewrite(image, path, change):
    with safe_open(image, framework="np") as handle:
        metadata = handle.metadata()
    tensors = load_file(image)
    change(tensors, metadata)
    save_file(tensors, path, metadata=metadata)


def flip(tensors, _):
    tensors["section.weights"] = tensors["section.weights"].copy()
    tensors["section.weights"][77] ^= 1


def drop(tensors, _):
    del tensors["section.program"]


def old(_, metadata):
    metadata["version"] = "0"


def other(_, metadata):
    metadata["format"] = "pt"


def config(_, metadata):
    about = json.loads(metadata["program"])
    about["config"]["rows"] = 3
    metadata["program"] = json.dumps(about)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (flip, "is corrupted in section.weights"),
        (drop, "is corrupted"),
        (old, "is an image of version 0, this rf8 runs 5: compile the model again"),
        (other, "is no program image"),
        (config, "is corrupted in its description"),
    ],
)
def test_broken_images(image, tmp_path, change, message):
    path = tmp_path / "broken.rf8"
    rewrite(image, path, change)
    with pytest.raises(DataError, match=message):
        Program.load(path)


@pytest.mark.parametrize(("eos", "read"), [(None, ()), (7, (7,)), ([7, 8], (7, 8))])
def test_end_tokens_of_images_of_before(image, tmp_path, eos, read):
    def change(_, metadata):
        about = json.loads(metadata["program"]) | {"eos": eos}
        metadata["program"] = json.dumps(about)
        metadata["checksum"] = str(zlib.crc32(metadata["program"].encode()))

    rewrite(image, tmp_path / "m.rf8", change)
    assert Program.load(tmp_path / "m.rf8").eos == read


def test_what_cannot_be_read_is_not_called_broken(tmp_path):
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        Program.load(tmp_path)


@pytest.mark.parametrize("size", [0, 5, 1000])
def test_truncated_images(image, tmp_path, size):
    path = tmp_path / "short.rf8"
    path.write_bytes(image.read_bytes()[:size])
    with pytest.raises(DataError, match="broken or truncated"):
        Program.load(path)


def test_missing_image(tmp_path):
    with pytest.raises(DataError, match="is missing: make it with `rf8 compile"):
        Program.load(tmp_path / "none.rf8")


def test_failed_save_leaves_nothing(image, tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    program = Program.load(image)
    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(DataError, match="No space left on device"):
        program.save(tmp_path / "out.rf8")
    assert not list(tmp_path.iterdir())


def test_default_model_is_shipped_and_small():
    model = rf8.load_model("default")
    assert model.span == 16 and model.tokenizer() is not None
    weights = PACKAGED / "default" / "model.safetensors"
    assert weights.stat().st_size <= 8_000_000
    logits = rf8.Session(rf8.compile(model)).forward([5])
    assert np.isfinite(logits).all()
