"""Choosing the next token at random."""

from __future__ import annotations

import numpy as np

from golden.arith import Int64
from golden.config import RESULT_FRAC
from rf8.errors import UsageError


class Sampler:
    """Chooses tokens at random by ``softmax(logits / temperature)``, reproducibly.

    Parameters
    ----------
    temperature: above 0
    seed: of the generator (NumPy's default)
    top_k: choose among the k likeliest tokens; None for all
    top_p: then among the fewest of them, likeliest first, that hold this share of their
        probability, above 0 to 1

    Of equal logits the first ids count as the likelier. Raises UsageError for other values.
    """

    def __init__(
        self, temperature: float, seed: int, *, top_k: int | None = None, top_p: float = 1.0
    ) -> None:
        if not 0 < temperature < float("inf"):
            raise UsageError(f"temperature is {temperature}, must be above 0")
        if top_k is not None and top_k < 1:
            raise UsageError(f"top-k is {top_k}, must be 1 or more")
        if not 0 < top_p <= 1:
            raise UsageError(f"top-p is {top_p}, must be above 0 and at most 1")
        self._temperature, self._random = temperature, np.random.default_rng(seed)
        self._top_k, self._top_p = top_k, top_p

    def __call__(self, logits: Int64) -> int:
        scaled = (logits - logits.max()) * (2.0**-RESULT_FRAC / self._temperature)
        noise = self._random.gumbel(size=scaled.size)
        order = np.argsort(-scaled, kind="stable")[: self._top_k]
        if self._top_p < 1:
            share = np.cumsum(np.exp(scaled[order]))
            order = order[: 1 + int((share < self._top_p * share[-1]).sum())]
        # The largest of logits with Gumbel noise is a sample of their softmax.
        return int(order[(scaled + noise)[order].argmax()])
