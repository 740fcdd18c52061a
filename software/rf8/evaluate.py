"""Perplexity of transformers models on text, window by window."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rf8.errors import DataError

ROWS = 256  # positions whose logits are held at a time: a large vocabulary needs it


@dataclass(frozen=True)
class Perplexity:
    """``losses``: the mean negative log-likelihood in nats of each window; all have ``window``
    tokens, of which the first is not predicted."""

    losses: tuple[float, ...]
    window: int

    @property
    def value(self) -> float:
        """exp of the mean loss."""
        return math.exp(sum(self.losses) / len(self.losses))

    @property
    def tokens(self) -> int:
        """How many tokens were predicted."""
        return len(self.losses) * (self.window - 1)

    def ratio(self, other: Perplexity) -> tuple[float, float]:
        """This perplexity over another's on the same windows, and the standard error of that
        ratio over the windows (paired, first order); 0 for a single window."""
        differences = [a - b for a, b in zip(self.losses, other.losses, strict=True)]
        n = len(differences)
        mean = sum(differences) / n
        variance = sum((d - mean) ** 2 for d in differences) / max(1, n - 1)
        return math.exp(mean), math.exp(mean) * math.sqrt(variance / n)


@torch.no_grad()
def perplexity(
    model: nn.Module,
    ids: Tensor,
    window: int,
    *,
    limit: int | None = None,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Perplexity:
    """Perplexity over consecutive windows of ``ids`` [n], each run on its own.

    A last window that is not full is left out. limit: windows to use at most.
    Raises DataError for fewer tokens than a window.
    """
    count = min(len(ids) // window, limit or len(ids))
    if count < 1:
        raise DataError(f"{len(ids)} tokens of text are fewer than a window of {window}")
    head: Tensor = model.get_output_embeddings().weight  # type: ignore[operator]
    losses = []
    for number in range(count):
        progress("perplexity", number, count)
        tokens = ids[number * window : (number + 1) * window]
        hidden = model.base_model(input_ids=tokens[None], use_cache=False)  # type: ignore[operator]
        states = hidden.last_hidden_state[0, :-1]
        total = 0.0
        for first in range(0, window - 1, ROWS):
            logits = states[first : first + ROWS] @ head.T
            targets = tokens[1 + first : 1 + first + len(logits)]
            total += float(F.cross_entropy(logits, targets, reduction="sum"))
        losses.append(total / (window - 1))
    return Perplexity(tuple(losses), window)
