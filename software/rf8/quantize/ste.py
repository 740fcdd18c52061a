"""Quantisation-aware fine-tuning: weights are rounded to RF8 in the forward pass only.

>>> prepare_(model)                 # doctest: +SKIP
>>> ...                             # any training loop   # doctest: +SKIP
>>> finish_(model)                  # doctest: +SKIP
>>> model.save_pretrained("tuned")  # then: rf8 quantize tuned -o DIR   # doctest: +SKIP
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from golden.rf8_torch import row_bias
from rf8.quantize.compensated import round_to_rf8

M = TypeVar("M", bound=nn.Module)


class _Round(torch.autograd.Function):
    """A function of its own, because ``w + (r - w)`` misses r by a last bit now and then."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, span: int) -> Tensor:
        return round_to_rf8(weight, row_bias(weight)[:, None].int(), span)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class StraightThrough(nn.Module):
    """``w -> RF8(w)``, with the gradient of ``w -> w`` (the straight-through estimator of
    arXiv 1308.3432). transposed: the weight is [in, out], as in transformers' Conv1D."""

    def __init__(self, *, span: int, transposed: bool) -> None:
        super().__init__()
        self.span, self.transposed = span, transposed

    def forward(self, weight: Tensor) -> Tensor:
        """The rounded weight, of the same shape."""
        turned = weight.T if self.transposed else weight
        rounded: Tensor = _Round.apply(turned, self.span)  # type: ignore[no-untyped-call]
        return rounded.T if self.transposed else rounded


def prepare_(model: M, *, span: int = 16) -> M:
    """Make every linear layer and embedding of a transformers model round its weight; return it.

    Row biases follow the weights at each step. Tied weights stay tied. Raises ValueError where a
    model is prepared already.
    """
    from transformers.pytorch_utils import Conv1D

    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear | nn.Embedding | Conv1D):
            if parametrize.is_parametrized(module):
                raise ValueError(f"prepare_: {name} rounds its weight already; call finish_ first")
            rounding = StraightThrough(span=span, transposed=isinstance(module, Conv1D))
            parametrize.register_parametrization(module, "weight", rounding)
    return model


def finish_(model: M) -> M:
    """Replace the weights of a prepared model by their RF8 values for good; return it.

    Rounding to nearest, as ``rf8 quantize`` does it, then changes nothing.
    """
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    model.tie_weights()  # type: ignore[operator]
    return model
