"""Rate and distortion of a model: weights on a grid, their bits, and the loss they leave."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from rf8.checkpoint.huggingface import to_transformers
from rf8.checkpoint.model import Float, Model, RF8Tensor
from rf8.evaluation.perplexity import Perplexity, perplexity
from rf8.gg.rate import entropy_of, histogram, huffman_of, quantize_uniform


def on_grid(model: Model, step: float) -> Model:
    """A float model with the weights of its matrices rounded to multiples of a step."""
    tensors: dict[str, Float | RF8Tensor] = dict(model.tensors)
    for name in model.matrices():
        values = model.float_tensor(name)
        symbols = quantize_uniform(values, step, name=name)
        tensors[name] = (symbols * step).astype(np.float32).reshape(values.shape)
    return replace(model, tensors=tensors)


def bits(model: Model, step: float | None = None) -> dict[str, float]:
    """Bits a weight of all matrices, coded with one table: RF8 codes, or multiples of a step.

    ``entropy``; ``huffman``, the length of the stream, table included; ``zeros``, a share.
    """
    total: dict[int, int] = {}
    zeros = weights = 0
    for name in model.matrices():
        tensor = model.tensors[name]
        if isinstance(tensor, RF8Tensor):
            symbols = tensor.codes.astype(np.int64).ravel()
        else:
            assert step is not None
            symbols = quantize_uniform(tensor, step, name=name)
        for symbol, count in zip(*(part.tolist() for part in histogram(symbols)), strict=True):
            total[symbol] = total.get(symbol, 0) + count
        zeros += int(np.count_nonzero(symbols == 0))
        weights += len(symbols)
    counts = np.array(list(total.values()), np.int64)
    return {
        "entropy": entropy_of(counts),
        "huffman": huffman_of(counts),
        "zeros": zeros / weights,
    }


def losses(model: Model, text: Tensor, window: int, windows: int) -> list[float]:
    """Mean loss of each window of text, in nats a token."""
    return list(perplexity(to_transformers(model), text, window, limit=windows).losses)


def over(entry: dict[str, Any], base: dict[str, Any], window: int) -> tuple[float, float]:
    """Perplexity of a run over that of another, minus one, and its standard error over windows."""
    ours, theirs = (Perplexity(tuple(e["losses"]), window) for e in (entry, base))
    ratio, error = ours.ratio(theirs)
    return ratio - 1, error
