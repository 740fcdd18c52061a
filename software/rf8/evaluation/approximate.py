"""Float models of transformers with parts of the integer pipeline switched on.

What a part costs is the perplexity with it alone over that of the float model with the same
weights. Needs the extra ``gg``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Set
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from golden import layers
from golden.arith import Int64, saturate
from golden.attention import KVCache, decode_shared, exponentials
from golden.config import RESULT_BITS, RESULT_FRAC
from rf8.checkpoint.fixed_point import NORM_FRAC
from rf8.errors import DataError
from rf8.graph.ir import Activate, Graph, Linear, Norm, Op, Rotary

Part = Literal["activations", "kv", "softmax", "norms"]
"""activations: block floating point, what enters every matrix product. kv: keys and values in RF8.
softmax: exponentials and reciprocals. norms: norms, activation functions, rotary positions."""

_ATTENTION = "rf8"


def to_fixed(x: Tensor, frac: int = RESULT_FRAC) -> Int64:
    """int32 fixed point with ``frac`` fraction bits, rounded half to even, saturated."""
    scaled = np.rint(x.detach().double().numpy() * 2.0**frac)
    return saturate(scaled.astype(np.int64), RESULT_BITS)


def to_float(x: Int64) -> Tensor:
    """Values of Q16 integers, float32."""
    return torch.from_numpy(x * 2.0**-RESULT_FRAC).float()


def _blocks(x: Tensor, bits: int, frac: int = RESULT_FRAC) -> Tensor:
    block = layers.block_quantize(to_fixed(x, frac), bits, frac)
    return torch.from_numpy(block.mantissa * np.exp2(block.exponent)).float()


@contextmanager
def approximated(
    module: nn.Module, graph: Graph, parts: Set[Part], bits: int = 16, span: int = 16
) -> Iterator[None]:
    """Within the block, ``parts`` of ``module`` (of `to_transformers`) are as in the
    integer pipeline with activations of ``bits`` bits and RF8 of ``span`` exponents."""
    base: Any = module.base_model
    with ExitStack() as hooks:

        def hook(where: nn.Module, function: Callable[..., Any], before: bool = False) -> None:
            add = where.register_forward_pre_hook if before else where.register_forward_hook
            hooks.callback(add(function).remove)

        ops, head = graph.ops[: graph.head], graph.ops[graph.head]
        if "norms" in parts:
            for op in ops:
                _hook_tables(base, op, hook)
            kinds = _rotaries(module, graph)
            if kinds:
                hook(base.rotary_emb, _angles(kinds))
        if "activations" in parts:
            for op in ops:
                if isinstance(op, Linear):
                    part = base.get_submodule(op.module)
                    hook(part, lambda _, args: (_blocks(args[0], bits), *args[1:]), True)
            # What enters the head.
            last = base.get_submodule(ops[head.inputs[0]].module)
            hook(last, lambda _, args, output: _blocks(output, bits))
        if parts & {"activations", "kv", "softmax"}:
            hooks.enter_context(_attention_as(module, parts, bits, span))
        yield


def _hook_tables(base: Any, op: Op, hook: Callable[..., None]) -> None:
    """A norm or an activation function of the integer pipeline."""
    if isinstance(op, Norm):
        part = base.get_submodule(op.module)
        weight = part.weight.detach().double().numpy() + op.offset
        scaled = np.rint(weight * 2.0**NORM_FRAC).astype(np.int64)
        gamma = layers.block_quantize(scaled, 16, NORM_FRAC)
        norm = partial(layers.rms_norm, gamma=gamma, epsilon=op.epsilon)
        if op.center:
            beta = np.zeros(1, np.int64) if op.bias is None else to_fixed(part.bias)
            norm = partial(layers.layer_norm, gamma=gamma, beta=beta, epsilon=op.epsilon)
        hook(part, lambda _, args, output: to_float(norm(to_fixed(args[0]))))
    elif isinstance(op, Activate):
        part, kind = base.get_submodule(op.module), op.kind
        hook(part, lambda _, args, output: to_float(layers.activate(to_fixed(args[0]), kind)))


def _rotaries(module: Any, graph: Graph) -> dict[str, Rotary]:
    """The rotary positions of each kind of layer, by its name in the config."""
    attentions = [op for _, op in graph.attentions()]
    kinds = getattr(module.config, "layer_types", None) or ["every layer"] * len(attentions)
    found: dict[str, Rotary] = {}
    for kind, op in zip(kinds, attentions, strict=True):
        if op.rotary is not None and found.setdefault(kind, op.rotary) != op.rotary:
            raise DataError(f"{op.module}: its rotary positions are not those of all of {kind}")
    return found


def _angles(kinds: dict[str, Rotary]) -> Callable[..., tuple[Tensor, ...]]:
    """A hook that gives cosines and sines of rotary positions, as long as transformers' are."""
    steps = {kind: layers.rotary_steps(rotary.steps) for kind, rotary in kinds.items()}
    first = next(iter(steps.values()))

    def table(_: nn.Module, args: Any, output: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        step = steps[args[2]] if len(args) > 2 else first
        angle = np.tile(np.arange(output[0].shape[1])[:, None] * step, 2)
        turned = (angle + (1 << (layers.TURN_BITS - 2)), angle)  # cosine, sine
        size = output[0].reshape(-1)[0] * 2.0**-layers.SINE_FRAC  # position 0 does not turn
        return tuple(torch.from_numpy(layers.sine(a)).float()[None] * size for a in turned)

    return table


@contextmanager
def _attention_as(module: nn.Module, parts: Set[Part], bits: int, span: int) -> Iterator[None]:
    from transformers import AttentionInterface

    def attention(
        _: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Any, scaling: float | None = None,
        sliding_window: int | None = None, softcap: float | None = None, **options: Any,
    ) -> tuple[Tensor, None]:  # fmt: skip
        scale = 1 / math.sqrt(q.shape[-1]) if scaling is None else scaling
        window = q.shape[2] if sliding_window is None else sliding_window
        seen = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).tril().triu(1 - window)
        result = _attend(q[0], k[0], v[0], scale, softcap, seen, parts, bits, span)
        return result.transpose(0, 1)[None], None

    AttentionInterface.register(_ATTENTION, attention)
    configs: dict[int, Any] = {
        id(m.config): m.config for m in module.modules() if hasattr(m, "config")
    }
    before = {key: config._attn_implementation for key, config in configs.items()}
    for config in configs.values():
        config._attn_implementation = _ATTENTION
    try:
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    cap: float | None,
    seen: Tensor,
    parts: Set[Part],
    bits: int,
    span: int,
) -> Tensor:
    """Attention, q [H, T, W], k, v [G, T, W] to [H, T, W], a head at a time.

    ``cap``: soft cap of the scores; ``seen`` [T, T]: which positions a token sees.
    """
    if "kv" in parts:
        cache = KVCache.empty(len(k), k.shape[-1])
        cache.append(to_fixed(k.transpose(0, 1)), to_fixed(v.transpose(0, 1)), span)
        sums = sum(decode_shared(cache.keys[:, :, i], cache.key_bias) for i in (0, 1))
        values = decode_shared(cache.values, cache.value_bias)
        k, v = (torch.from_numpy(part * 2.0**-RESULT_FRAC).float().transpose(0, 1)
                for part in (np.asarray(sums), values))  # fmt: skip
    if "activations" in parts:
        q = _blocks(q, bits)
    shared = len(q) // len(k)
    result = []
    for head, query in enumerate(q):
        score = query @ k[head // shared].T * scale
        if cap is not None:
            score = cap * torch.tanh(score / cap)
        score = score * math.log2(math.e)
        if "softmax" in parts:
            weight = exponentials(to_fixed(score), seen.numpy())
            inverse, size = layers.reciprocal(weight.sum(axis=-1, keepdims=True))
            share = torch.from_numpy(
                weight * (inverse * np.exp2(-float(layers.INVERSE_FRAC) - size))
            ).float()
        else:
            masked = torch.where(seen, score, torch.tensor(-torch.inf))
            share = torch.softmax(masked * math.log(2), dim=-1)
        if "activations" in parts:
            share = _blocks(share, bits, RESULT_BITS - 2)
        result.append(share @ v[head // shared])
    return torch.stack(result)
