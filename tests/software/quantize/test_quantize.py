"""``rf8.quantize`` is a function and a package."""

import importlib
import subprocess
import sys
from types import ModuleType

import numpy as np

import rf8
from rf8.checkpoint.load import load_model
from rf8.quantize import rounding


def test_function_and_package_at_once(checkpoint):
    model = load_model(checkpoint)
    assert isinstance(rf8.quantize, ModuleType)
    assert importlib.import_module("rf8.quantize.ste") is rf8.quantize.ste
    for options in ({}, {"rounding": "paper"}, {"span": 8}):
        found, expected = rf8.quantize(model, **options), rounding.quantize(model, **options)
        assert (found.span, found.method) == (expected.span, expected.method)
        for name in expected.tensors:
            assert np.array_equal(found.float_tensor(name), expected.float_tensor(name)), name


def test_import_by_the_full_name_in_a_new_process():
    code = "import rf8.quantize.ste as s; import rf8; print(s.__name__, callable(rf8.quantize))"
    command = [sys.executable, "-c", code]
    assert subprocess.check_output(command, text=True).split() == ["rf8.quantize.ste", "True"]
