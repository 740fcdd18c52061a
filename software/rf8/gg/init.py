"""Generalized-Gaussian (GG) initialisation of weights.

The weights of trained language models are close to generalized Gaussians with a shape below 2, so
the paper draws the initial weights from that family too.

Source: "It Takes a Good Model to Train a Good Model: Generalized Gaussian Priors for Optimized
LLMs", arXiv 2506.00486.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)
EMBEDDING_STD = 0.02  # GPT-2's, for token and position embeddings


def gg_scale(shape: float, variance: float) -> float:
    """Scale a of the GG density ``p(x) ~ exp(-(|x| / a)**shape)`` that has the given variance.

    ``a = sqrt(variance * G(1/shape) / G(3/shape))``, with G the gamma function.
    Raises ValueError unless shape and variance are positive and finite.
    """
    if not (0 < shape < math.inf):
        raise ValueError(f"GG shape must be positive and finite, got {shape}; 2 is Gaussian")
    if not (0 < variance < math.inf):
        raise ValueError(f"GG variance must be positive and finite, got {variance}")
    # lgamma, because G(3/shape) overflows a float for shapes below about 0.018.
    log_ratio = math.lgamma(1 / shape) - math.lgamma(3 / shape)
    return math.sqrt(variance) * math.exp(log_ratio / 2)


@torch.no_grad()
def gg_(
    tensor: Tensor,
    shape: float,
    *,
    gain: float = 1.0,
    mode: str = "fan_in",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Fill `tensor` in place with zero-mean GG samples of variance ``gain / n``; return it.

    Sampling is exact: ``|x| = a * Gamma(1/shape) ** (1/shape)`` with a fair random sign, drawn in
    float32 on the tensor's own device (arXiv 2506.00486).

    tensor: at least two dimensions, laid out as torch does, [out, in, ...].
    shape: v of the density; 2 is Gaussian, 1 Laplace, smaller has heavier tails.
    gain: xi, the variance of the product of the layer with n inputs of unit variance.
    mode: whether n is the "fan_in" or the "fan_out". A transposed weight, [in, out] as in
        transformers' Conv1D, has its inputs where torch counts "fan_out".
    generator: of the tensor's device; the default one if None.

    Raises ValueError for a non-positive shape or gain, a one-dimensional tensor or another mode.
    """
    if tensor.ndim < 2:
        raise ValueError(f"GG init needs a tensor of two or more dimensions, got {tensor.ndim}")
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f'mode must be "fan_in" or "fan_out", got {mode!r}')
    receptive_field = math.prod(tensor.shape[2:])
    n = tensor.shape[1 if mode == "fan_in" else 0] * receptive_field
    scale = gg_scale(shape, gain / n)
    if tensor.is_meta:
        return tensor
    alpha = torch.full(tensor.shape, 1 / shape, device=tensor.device, dtype=torch.float32)
    magnitude = torch._standard_gamma(alpha, generator=generator).pow_(1 / shape).mul_(scale)
    sign = torch.empty_like(magnitude).bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
    return tensor.copy_(magnitude.mul_(sign))


def init_model_(
    model: M, *, shape: float, gain: float = 1.0, generator: torch.Generator | None = None
) -> M:
    """Initialise a transformers GPT-2 in place with GG weights; return it.

    Projections get variance ``gain / inputs``; the two that write to the residual stream in each
    block (``c_proj``) are divided by ``sqrt(2 * n_layer)`` in standard deviation, and embeddings
    have standard deviation 0.02, both as in GPT-2. Norms become 1, biases 0. A tied output head is
    the token embedding and is left alone.

    shape, gain, generator: as in `gg_`. Modules are visited in the model's own order, so that one
    generator state gives one model. Raises ValueError as `gg_` does, and TypeError for a module
    with parameters of its own that is none of these kinds.
    """
    from transformers.pytorch_utils import Conv1D

    n_layer: int = model.config.n_layer  # type: ignore[union-attr,assignment]
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            # gg_ divides the variance by n, so give it n times the one wanted.
            variance = EMBEDDING_STD**2 * module.embedding_dim
            gg_(module.weight, shape, gain=variance, generator=generator)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, (Conv1D, nn.Linear)):
            if id(module.weight) in embeddings:
                continue
            mode = "fan_out" if isinstance(module, Conv1D) else "fan_in"  # Conv1D is [in, out]
            xi = gain / (2 * n_layer) if name.endswith("c_proj") else gain
            gg_(module.weight, shape, gain=xi, mode=mode, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif next(module.parameters(recurse=False), None) is not None:
            raise TypeError(f"GG init has no rule for {name}, a {type(module).__name__}")
    return model
