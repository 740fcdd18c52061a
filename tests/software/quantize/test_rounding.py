import numpy as np
import pytest

import rf8
from golden.format import decode, encode, row_bias
from rf8.checkpoint.load import load_model
from rf8.checkpoint.model import RF8Tensor
from rf8.errors import DataError
from rf8.quantize import quantize, sqnr_db


@pytest.mark.parametrize("rounding", ["nearest_even", "paper"])
def test_matrices_become_rf8_by_row(checkpoint, rounding):
    model = load_model(checkpoint)
    result = quantize(model, rounding=rounding)
    for name, tensor in result.tensors.items():
        assert isinstance(tensor, RF8Tensor) == (name in model.matrices())
        if name in model.matrices():
            values = model.tensors[name]
            bias = row_bias(values, rounding=rounding)
            assert (tensor.codes == encode(values, bias[:, None], rounding=rounding)).all()
            assert (tensor.decode() == decode(tensor.codes, bias[:, None])).all()
            assert 25 < sqnr_db(model, result, name) < 32
        else:
            assert tensor is model.tensors[name]


@pytest.mark.parametrize("span", [16, 12, 10, 8])
def test_round_trip_and_requantising(checkpoint, tmp_path, span):
    first = quantize(load_model(checkpoint), span=span)
    first.save(tmp_path / "q")
    again = load_model(tmp_path / "q")
    assert again.span == span and again.method == "nearest"
    twice = quantize(again, span=span)
    for name, tensor in first.tensors.items():
        for other in (again.tensors[name], twice.tensors[name]):
            if isinstance(tensor, RF8Tensor):
                assert np.array_equal(tensor.codes, other.codes)
                assert np.array_equal(tensor.bias, other.bias)
            else:
                assert np.array_equal(tensor, other)


def test_narrower_span_flushes(checkpoint):
    wide = quantize(load_model(checkpoint))
    narrow = quantize(wide, span=8)
    for name, tensor in narrow.tensors.items():
        if isinstance(tensor, RF8Tensor):
            below = (wide.tensors[name].codes >> 3 & 15) < 8
            assert (tensor.codes[below] == 0).all()
            assert (tensor.codes[~below] == wide.tensors[name].codes[~below]).all()


def test_progress_names_every_tensor(checkpoint):
    model = load_model(checkpoint)
    seen = []
    quantize(model, progress=lambda name, number, total: seen.append((name, number, total)))
    assert [name for name, _, _ in seen] == list(model.tensors)
    assert seen[-1][1:] == (len(seen) - 1, len(seen))


def test_nan_names_the_tensor(checkpoint):
    model = load_model(checkpoint)
    model.tensors["h.1.mlp.c_fc.weight"] = np.full((50, 30), np.nan, np.float32)
    with pytest.raises(DataError, match=r"h\.1\.mlp\.c_fc\.weight: .*NaN"):
        rf8.quantize(model)
