"""What experiments share: runs that are kept as they end, statistics, the default text."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from rf8.checkpoint.model import Model
from rf8.errors import DataError

SEEDS = (0, 1, 2)
# Student's t, two-sided 95 %, for 1, 2, ... degrees of freedom; seeds are few.
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


class Spread(NamedTuple):
    """Mean, sample standard deviation, and half-width of the 95 % interval of the mean."""

    mean: float
    deviation: float
    half_width: float


def spread(values: Iterable[float]) -> Spread:
    """Statistics of a figure over seeds; NaN for what two or more values would need."""
    list_ = list(values)
    n = len(list_)
    mean = sum(list_) / n
    if n < 2:
        return Spread(mean, math.nan, math.nan)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in list_) / (n - 1))
    student = STUDENT[min(n - 1, len(STUDENT)) - 1]
    return Spread(mean, deviation, student * deviation / math.sqrt(n))


def default_text(model: Model, data: Path) -> tuple[Tensor, Tensor]:
    """Token ids, int64, of the default model's training and held-out books (`rf8.train.data`)."""
    from transformers import PreTrainedTokenizerFast

    from rf8.train.data import corpus, encode

    tokenizer = model.tokenizer()
    if tokenizer is None:
        raise DataError(f"{model.name} has no tokenizer.json, and text needs one")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    train, held_out = (encode(fast, documents) for documents in corpus(data))
    return train, held_out


def figure(columns: int = 1, height: float = 3.4, width: float = 5.2) -> tuple[Any, Any]:
    """A matplotlib figure without a screen, and its axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    made, axes = pyplot.subplots(
        1, columns, figsize=(width * columns, height), layout="constrained"
    )
    for one in axes if columns > 1 else [axes]:
        one.spines[["top", "right"]].set_visible(False)
    return made, axes


def save_figure(made: Any, path: Path) -> None:
    """Write a figure as PNG and free it."""
    from matplotlib import pyplot

    made.savefig(path, format="png", dpi=150)
    pyplot.close(made)
