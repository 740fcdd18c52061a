import numpy as np
import pytest
import tiny_models

import rf8
from golden.config import RESULT_FRAC
from rf8.checkpoint.fixed_point import resolution_loss
from rf8.checkpoint.load import load_model
from rf8.quantize import quantize, quantize_matrix


@pytest.mark.parametrize("drop", [-3, 0, 2])
@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-5, 1e-8, 1e-30])
def test_share_of_an_embedding_below_the_resolution(size, drop):
    weights = np.random.default_rng(4).normal(0, size, (37, 19)).astype(np.float32)
    coded = quantize_matrix(weights)
    values = coded.decode().astype(np.float64) * 2.0**-drop
    rounded = np.rint(values * 2.0**RESULT_FRAC) * 2.0**-RESULT_FRAC
    expected = ((values - rounded) ** 2).sum() / (values**2).sum()
    assert resolution_loss(coded, drop) == pytest.approx(expected, rel=1e-4)
    assert size < 1 or expected < 1e-8
    assert size > 1e-8 or resolution_loss(coded, drop) == pytest.approx(1)


def test_an_embedding_of_zeros_loses_nothing():
    assert resolution_loss(quantize_matrix(np.zeros((3, 4), np.float32)), 0) == 0


def test_a_program_says_that_its_embedding_is_small(tmp_path):
    tiny_models.save(tmp_path / "small")
    model = quantize(load_model(tmp_path / "small"))
    assert rf8.compile(model, config="tiny").notes == ()
    tensor = model.tensors["wpe.weight"]
    tensor.bias[:] = np.maximum(tensor.bias - 18, -128)
    program = rf8.compile(model, config="tiny")
    (note,) = program.notes
    assert note.startswith("wpe.weight is small") and "2^-16" in note
    program.save(tmp_path / "small.rf8")
    assert rf8.Program.load(tmp_path / "small.rf8").notes == program.notes
