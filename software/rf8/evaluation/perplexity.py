"""Perplexity of transformers models and of the integer pipeline on text, window by window."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from golden.config import RESULT_FRAC, AccelConfig
from rf8.checkpoint.model import Model
from rf8.errors import DataError
from rf8.evaluation.reference import Transformer
from rf8.program.image import Program
from rf8.progress import Progress
from rf8.runtime.session import Session

ROWS = 256  # positions whose logits are held at a time: a large vocabulary needs it


@dataclass(frozen=True)
class Perplexity:
    """``losses``: the mean negative log-likelihood in nats of each window; all have ``window``
    tokens, of which the first is not predicted. ``saturated``: values that left the integers'
    range on the way."""

    losses: tuple[float, ...]
    window: int
    saturated: int = 0

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
    progress: Progress = lambda *_: None,
) -> Perplexity:
    """Perplexity over consecutive windows of ``ids`` [n], each run on its own.

    A last window that is not full is left out. limit: windows to use at most.
    Raises DataError for fewer tokens than a window.
    """
    windows = cut(ids, window, limit)
    losses = []
    for number, tokens in enumerate(windows):
        progress("perplexity", number, len(windows))
        losses.append(loss(model, tokens))
    return Perplexity(tuple(losses), window)


def cut(ids: Tensor, window: int, limit: int | None = None) -> list[Tensor]:
    """Consecutive windows of ``ids``, at most ``limit``; a last one that is not full is left out.

    Raises DataError for fewer tokens than a window.
    """
    count = min(len(ids) // window, limit or len(ids))
    if count < 1:
        raise DataError(f"{len(ids)} tokens of text are fewer than a window of {window}")
    return list(ids[: count * window].view(count, window))


@torch.no_grad()
def loss(model: nn.Module, tokens: Tensor) -> float:
    """Mean negative log-likelihood in nats of the tokens of a window but the first."""
    head: Tensor = model.get_output_embeddings().weight  # type: ignore[operator]
    hidden = model.base_model(input_ids=tokens[None], use_cache=False)  # type: ignore[operator]
    states: Tensor = hidden.last_hidden_state[0]
    return _mean_loss(tokens, lambda rows: states[rows] @ head.T)


class Integers:
    """The integer pipeline of a model in RF8, a window at once."""

    def __init__(self, model: Model, config: AccelConfig) -> None:
        self._model = Transformer(model, config)

    @property
    def saturated(self) -> int:
        """Values that left the integers' range so far."""
        return self._model.saturated

    def loss(self, tokens: Tensor) -> float:
        """Mean negative log-likelihood in nats of the tokens of a window but the first."""
        self._model.reset()
        states = self._model.hidden(tokens.tolist())

        def logits(rows: slice) -> Tensor:
            return torch.from_numpy(self._model.logits(states[rows]) * 2.0**-RESULT_FRAC)

        return _mean_loss(tokens, logits)


class Programs:
    """A compiled model: its programs run on the golden machine, a window at once."""

    def __init__(self, program: Program) -> None:
        self._session = Session(program)

    @property
    def saturated(self) -> int:
        """Values that left the integers' range so far, where the machine counts them."""
        return getattr(self._session.stats, "saturated", 0)

    def loss(self, tokens: Tensor) -> float:
        """Mean negative log-likelihood in nats of the tokens of a window but the first."""
        logits = torch.from_numpy(self._session.forward(tokens.tolist()))
        return _mean_loss(tokens, lambda rows: logits[rows])


def measured(integers: Integers | Programs, tokens: Tensor) -> dict[str, Any]:
    """What is kept of a window: ``loss``, and ``saturated`` in it."""
    before = integers.saturated
    return {"loss": integers.loss(tokens), "saturated": integers.saturated - before}


def collected(runs: list[dict[str, Any]], window: int) -> Perplexity:
    """The perplexity of windows that were kept so."""
    losses = tuple(float(run["loss"]) for run in runs)
    return Perplexity(losses, window, sum(run.get("saturated", 0) for run in runs))


def _mean_loss(tokens: Tensor, logits: Callable[[slice], Tensor]) -> float:
    count, total = len(tokens) - 1, 0.0
    for first in range(0, count, ROWS):
        rows = slice(first, min(first + ROWS, count))
        targets = tokens[1:][rows]
        total += float(F.cross_entropy(logits(rows), targets, reduction="sum"))
    return total / count
