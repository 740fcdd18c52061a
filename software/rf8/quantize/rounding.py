"""Quantisation of models to RF8."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from golden.format import Rounding, encode, row_bias
from rf8.checkpoint.model import Float, Model, RF8Tensor
from rf8.errors import DataError
from rf8.progress import Progress

METHODS: dict[Rounding, str] = {"nearest_even": "nearest", "paper": "paper"}
"""Rounding -> name of the method, as checkpoints and `rf8 quantize --method` have it."""

"""Called with the name of a tensor, its number and how many there are."""


def quantize_matrix(
    weights: Float, *, rounding: Rounding = "nearest_even", span: int = 16
) -> RF8Tensor:
    """Quantise a matrix [out, in] to RF8 with one power-of-two bias a row."""
    bias = row_bias(weights, rounding=rounding)
    return RF8Tensor(encode(weights, bias[:, None], rounding=rounding, span=span), bias)


def quantize(
    model: Model,
    *,
    rounding: Rounding = "nearest_even",
    span: int = 16,
    progress: Progress = lambda *_: None,
) -> Model:
    """A copy of ``model`` whose matrices (linear layers, embeddings, head) are RF8.

    A model that is RF8 already is decoded and encoded again, which changes nothing unless ``span``
    is narrower than its own; norms and biases stay float32.

    Raises
    ------
    DataError
        Where a weight cannot be encoded; the message names the tensor.
    """
    if model.span is not None:
        span = min(span, model.span)
    tensors: dict[str, Float | RF8Tensor] = {}
    matrices = set(model.matrices())
    for number, name in enumerate(model.tensors):
        progress(name, number, len(model.tensors))
        if name in matrices:
            try:
                values = model.float_tensor(name)
                tensors[name] = quantize_matrix(values, rounding=rounding, span=span)
            except ValueError as error:
                raise DataError(f"{name}: {error}") from error
        else:
            tensors[name] = model.tensors[name]
    method = model.method or METHODS[rounding]
    return replace(model, tensors=tensors, span=span, method=method)


def sqnr_db(model: Model, quantized: Model, name: str) -> float:
    """Signal to quantisation noise ratio of one matrix, in dB (infinite where it is exact)."""
    signal, error = 0.0, 0.0
    exact, coded = model.float_tensor(name), quantized.float_tensor(name)
    for rows in range(0, len(exact), 1024):
        part = exact[rows : rows + 1024].astype(np.float64)
        signal += float((part**2).sum())
        error += float(((part - coded[rows : rows + 1024]) ** 2).sum())
    return float("inf") if error == 0 else 10 * float(np.log10(signal / error))
