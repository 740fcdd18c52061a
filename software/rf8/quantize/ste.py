"""Quantisation-aware fine-tuning: weights are rounded in the forward pass only, to RF8 or to
multiples of a step (recovery after DeepShape).

>>> prepare_(model)                 # doctest: +SKIP
>>> ...                             # any training loop   # doctest: +SKIP
>>> finish_(model)                  # doctest: +SKIP
>>> model.save_pretrained("tuned")  # then: rf8 quantize tuned -o DIR   # doctest: +SKIP
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from golden.format_torch import row_bias
from rf8.quantize.compensated import round_to_rf8

M = TypeVar("M", bound=nn.Module)


Rounding = Callable[[Tensor], Tensor]


class _Round(torch.autograd.Function):
    """A function of its own, because ``w + (r - w)`` misses r by a last bit now and then."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rounding: Rounding) -> Tensor:
        return rounding(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class StraightThrough(nn.Module):
    """``w -> rounding(w)``, with the gradient of ``w -> w`` (the straight-through estimator of
    arXiv 1308.3432). transposed: the weight is [in, out], as in transformers' Conv1D."""

    def __init__(self, rounding: Rounding, *, transposed: bool) -> None:
        super().__init__()
        self.rounding, self.transposed = rounding, transposed

    def forward(self, weight: Tensor) -> Tensor:
        """The rounded weight, of the same shape."""
        turned = weight.T if self.transposed else weight
        rounded: Tensor = _Round.apply(turned, self.rounding)  # type: ignore[no-untyped-call]
        return rounded.T if self.transposed else rounded


def prepare_(model: M, *, span: int = 16, step: float | None = None) -> M:
    """Make every linear layer and embedding of a transformers model round its weight; return it.

    To RF8 of a span, with row biases that follow the weights at each step; or, if ``step`` is
    given, to the nearest multiple of it. Tied weights stay tied. Raises ValueError where a model is
    prepared already, or for a step that is not positive and finite.
    """
    from transformers.pytorch_utils import Conv1D

    if step is not None and not 0 < step < math.inf:
        raise ValueError(f"step is {step}, must be positive and finite")

    def to_rf8(weight: Tensor) -> Tensor:
        return round_to_rf8(weight, row_bias(weight)[:, None].int(), span)

    def to_grid(weight: Tensor) -> Tensor:
        assert step is not None
        return (weight / step).round_().mul_(step)

    rounding = to_rf8 if step is None else to_grid
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear | nn.Embedding | Conv1D):
            if parametrize.is_parametrized(module):
                raise ValueError(f"prepare_: {name} rounds its weight already; call finish_ first")
            straight = StraightThrough(rounding, transposed=isinstance(module, Conv1D))
            parametrize.register_parametrization(module, "weight", straight)
    return model


def finish_(model: M) -> M:
    """Replace the weights of a prepared model by their rounded values for good; return it.

    Rounding the same way again, as ``rf8 quantize`` does it for RF8, then changes nothing.
    """
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    model.tie_weights()  # type: ignore[operator]
    return model
