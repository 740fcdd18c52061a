"""The formats that RF8 is compared with. Seeds are fixed."""

import ml_dtypes
import numpy as np
import pytest
import torch

from rf8.quantize.formats import FORMATS, float8, integer, power_of_two

WEIGHTS = torch.randn(17, 70, generator=torch.Generator().manual_seed(3)) ** 3


def test_integers_are_the_nearest_of_their_grid():
    for bits in (4, 8):
        top = 2 ** (bits - 1) - 1
        step = WEIGHTS.abs().amax(dim=1, keepdim=True) / top
        grid = torch.arange(-top, top + 1) * step  # [rows, levels]
        best = (WEIGHTS[:, :, None] - grid[:, None]).abs().amin(dim=2)
        found = (WEIGHTS - integer(WEIGHTS, bits)).abs()
        torch.testing.assert_close(found, best, atol=1e-6, rtol=0)


def test_groups_have_scales_of_their_own():
    whole = torch.cat([integer(WEIGHTS[:, :64], 4), integer(WEIGHTS[:, 64:], 4)], dim=1)
    assert (integer(WEIGHTS, 4, 64) == whole).all()


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2"])
def test_float8_is_the_cast_of_another_library(name):
    kind = getattr(ml_dtypes, name)
    top = WEIGHTS.abs().amax(dim=1, keepdim=True).numpy()
    scale = top / np.float32(ml_dtypes.finfo(kind).max)
    theirs = (WEIGHTS.numpy() / scale).astype(kind).astype(np.float32) * scale
    assert (float8(WEIGHTS, getattr(torch, name)).numpy() == theirs).all()


def test_powers_of_two_are_the_nearest():
    powers = 2.0 ** torch.arange(-40, 10)
    best = (WEIGHTS.abs()[..., None] - powers).abs().amin(dim=-1)
    values = power_of_two(WEIGHTS)
    kept = values != 0
    assert ((WEIGHTS - values).abs()[kept] == best[kept]).all()
    assert (values[kept].sign() == WEIGHTS[kept].sign()).all()
    largest = values.abs().amax(dim=1, keepdim=True).expand_as(values)
    assert (values[kept].abs() >= largest[kept] * 2.0**-15).all()
    assert (WEIGHTS[~kept].abs() < largest[~kept] * 2.0**-15).all()


@pytest.mark.parametrize("name", FORMATS)
def test_zero_rows_stay_zero(name):
    weights = WEIGHTS.clone()
    weights[3] = 0
    values = FORMATS[name].values(weights)
    assert torch.isfinite(values).all() and (values[3] == 0).all()
