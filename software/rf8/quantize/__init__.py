"""Quantisation of models to RF8. The package is a function, too: ``rf8.quantize(model)``."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from rf8.checkpoint.model import Model
from rf8.quantize.rounding import METHODS, quantize, quantize_matrix, sqnr_db

__all__ = ["METHODS", "quantize", "quantize_matrix", "sqnr_db"]


class _Callable(ModuleType):
    """A package that may be called, so that ``rf8.quantize`` is both verb and package."""

    def __call__(self, model: Model, **options: Any) -> Model:
        """`rf8.quantize.rounding.quantize`."""
        return quantize(model, **options)


sys.modules[__name__].__class__ = _Callable
