"""Generalized-Gaussian (GG) initialisation of weights.

The weights of trained language models are close to generalized Gaussians with a shape below 2, so
the paper draws the initial weights from that family too.

Source: "It Takes a Good Model to Train a Good Model: Generalized Gaussian Priors for Optimized
LLMs", arXiv 2506.00486.
"""

from __future__ import annotations

import math
from typing import Literal, TypeVar, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rf8.gg.distribution import check_range, sample
from rf8.gg.ziggurat import fill_

M = TypeVar("M", bound=nn.Module)
WRITERS = ("c_proj", "o_proj", "down_proj")  # add to the residual stream
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


Nonlinearity = Literal["linear", "sigmoid", "relu", "leaky_relu", "gelu", "gelu_tanh", "silu"]


def gg_gain(nonlinearity: Nonlinearity, slope: float = 0.01) -> float:
    """xi: the variance of weights times their number of inputs that keeps a signal's power.

    For inputs ``f(z)`` with z standard normal, a layer with n of them keeps the power 1 where its
    weights have variance ``xi / n`` with ``xi = 1 / E[f(z)^2]``:

    - linear 1, ReLU 2, leaky ReLU of the given negative ``slope`` k ``2 / (1 + k^2)``. The paper
      (arXiv 2506.00486) uses 1 for sigmoid too.
    - GELU: Stein's lemma, ``E[z g(z)] = E[g'(z)]``, applied twice to ``E[z^2 P(z)^2]``, with P the
      normal cdf, gives ``E = 1/3 + 1 / (2 pi sqrt(3))``, so 2.3517.
    - tanh GELU and SiLU: Gauss-Hermite quadrature of E, 2.3519 and 2.8108.

    Raises ValueError for another name or a slope that is not finite.
    """
    if nonlinearity in ("linear", "sigmoid"):
        return 1.0
    if nonlinearity == "relu":
        return 2.0
    if nonlinearity == "leaky_relu" and math.isfinite(slope):
        return 2 / (1 + slope**2)
    if nonlinearity == "gelu":
        return 1 / (1 / 3 + 1 / (2 * math.pi * math.sqrt(3)))
    if nonlinearity in ("gelu_tanh", "silu"):
        nodes, weights = np.polynomial.hermite_e.hermegauss(120)
        z = torch.from_numpy(nodes)
        f = F.silu(z) if nonlinearity == "silu" else F.gelu(z, approximate="tanh")
        power = float((f.square() * torch.from_numpy(weights)).sum()) / math.sqrt(2 * math.pi)
        return 1 / power
    known = ", ".join(map(repr, get_args(Nonlinearity)))
    raise ValueError(f"nonlinearity is {nonlinearity!r} with slope {slope}; known: {known}")


@torch.no_grad()
def gg_(
    tensor: Tensor,
    shape: float,
    *,
    gain: float | None = None,
    nonlinearity: Nonlinearity = "linear",
    mode: str = "fan_in",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Fill `tensor` in place with zero-mean GG samples of variance ``gain / n``; return it.

    Sampling is exact up to rounding to float32 (`rf8.gg.ziggurat`), on the tensor's own device.

    tensor: at least two dimensions, laid out as torch does, [out, in, ...].
    shape: v of the density; 2 is Gaussian, 1 Laplace, smaller has heavier tails.
    gain: xi, the variance of the product of the layer with n inputs of unit variance; that of
        `gg_gain` if None.
    nonlinearity: what made the layer's inputs; "linear" also stands for a normalised stream.
    mode: whether n is the "fan_in", the default, or the "fan_out". The paper's own code takes n
        from the first dimension, which for torch's nn.Linear is "fan_out". A transposed weight,
        [in, out] as in transformers' Conv1D, has its inputs where torch counts "fan_out".
    generator: of the tensor's device; the default one if None.

    Raises ValueError for a non-positive shape or gain, a one-dimensional tensor, one that is not of
    floats or cannot hold the samples, or another mode.
    """
    if not tensor.is_floating_point():
        raise ValueError(f"GG init needs a tensor of floats, got {tensor.dtype}")
    if tensor.ndim < 2:
        raise ValueError(f"GG init needs a tensor of two or more dimensions, got {tensor.ndim}")
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f'mode must be "fan_in" or "fan_out", got {mode!r}')
    xi = gg_gain(nonlinearity) if gain is None else gain
    if tensor.numel() == 0:
        return tensor
    receptive_field = math.prod(tensor.shape[2:])
    n = tensor.shape[1 if mode == "fan_in" else 0] * receptive_field
    scale = gg_scale(shape, xi / n)
    check_range(shape, scale, tensor.dtype)
    if tensor.is_meta:
        return tensor
    if tensor.dtype == torch.float32 and tensor.is_contiguous():
        fill_(tensor.view(-1), shape, scale, generator)
        return tensor
    return tensor.copy_(
        sample(tuple(tensor.shape), shape, scale, generator=generator, device=tensor.device)
    )


def init_model_(
    model: M, *, shape: float, gain: float = 1.0, generator: torch.Generator | None = None
) -> M:
    """Initialise a transformers GPT-2 or Llama in place with GG weights; return it.

    Projections get variance ``gain / inputs``; the two that write to the residual stream in each
    block (``c_proj``, ``o_proj``, ``down_proj``) are divided by ``sqrt(2 * layers)`` in standard
    deviation, and embeddings have standard deviation 0.02, both as in GPT-2. Norms become 1,
    biases 0. A tied output head is the token embedding and is left alone.

    shape, gain, generator: as in `gg_`. Modules are visited in the model's own order, so that one
    generator state gives one model. Raises ValueError as `gg_` does, and TypeError for a module
    with parameters of its own that is none of these kinds.
    """
    from transformers.pytorch_utils import Conv1D

    n_layer: int = model.config.num_hidden_layers  # type: ignore[union-attr,assignment]
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            # gg_ divides the variance by n, so give it n times the one wanted.
            variance = EMBEDDING_STD**2 * module.embedding_dim
            gg_(module.weight, shape, gain=variance, generator=generator)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif type(module).__name__.endswith("RMSNorm"):
            nn.init.ones_(module.weight)
        elif isinstance(module, (Conv1D, nn.Linear)):
            if id(module.weight) in embeddings:
                continue
            mode = "fan_out" if isinstance(module, Conv1D) else "fan_in"  # Conv1D is [in, out]
            xi = gain / (2 * n_layer) if name.endswith(WRITERS) else gain
            gg_(module.weight, shape, gain=xi, mode=mode, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif next(module.parameters(recurse=False), None) is not None:
            raise TypeError(f"GG init has no rule for {name}, a {type(module).__name__}")
    return model
