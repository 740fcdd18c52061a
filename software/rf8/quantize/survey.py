"""What the linear layers of a float model take, and what their outputs are worth to its loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from rf8.checkpoint.huggingface import to_transformers
from rf8.checkpoint.model import Model
from rf8.graph.ir import Linear
from rf8.progress import Progress
from rf8.quantize.compensated import triangular

TOKENS = 512
"""Tokens of a window, at most: the memory of a backward pass grows with them."""

BYTES = 1 << 30
"""Of Hessians that are held at a time; the text is run once more for each further part."""


@dataclass(frozen=True)
class Survey:
    """``pivots``: vector that linear layers take -> the pivots of its elements, [K] float64: one
    over the diagonal of the upper Cholesky factor of its inverse Hessian, per token. They say what
    an error in a column costs once the columns after it have made good for what they can.
    ``worth``: weight -> mean square of the loss's derivative by each output, [N] float64.
    """

    pivots: dict[int, NDArray[np.float64]]
    worth: dict[str, NDArray[np.float64]]


def survey(model: Model, windows: Tensor, progress: Progress = lambda *_: None) -> Survey:
    """Run a float model forward and back on ``windows`` of tokens, int64 [n, T], of each of which
    the first TOKENS are used.

    The worth of an output is the empirical Fisher information about it: to second order, and as far
    as outputs do not depend on each other, a small error e in it costs worth x e^2 / 2 of the loss.
    """
    module = to_transformers(model).requires_grad_(False)
    windows = windows[:, :TOKENS]
    linears = {op.module: op for op in model.graph.ops if isinstance(op, Linear)}
    readers: dict[int, list[Linear]] = {}
    for op in linears.values():
        readers.setdefault(op.x, []).append(op)
    worth: dict[str, Tensor] = {}
    pivots: dict[int, NDArray[np.float64]] = {}
    batches = list(_batches({v: model.graph.ops[v].width for v in readers}))
    for number, vectors in enumerate(batches):
        seen = {readers[v][0].module: v for v in vectors}
        hessians = {v: torch.zeros(n, n) for v, n in vectors.items()}
        graded = linears if number == 0 else {}
        with _watched(module, seen, hessians, graded, worth):
            for at, window in enumerate(windows):
                step = number * len(windows) + at
                progress("survey", step, len(batches) * len(windows))
                with torch.set_grad_enabled(bool(graded)):
                    logits = module(input_ids=window[None], use_cache=False).logits[0]
                    if graded:
                        loss = F.cross_entropy(logits[:-1], window[1:], reduction="sum")
                        torch.autograd.backward(loss)
        for vector, hessian in hessians.items():
            factor, _, order = triangular(hessian / windows.numel())
            found = np.empty(len(order))
            found[order.numpy()] = 1 / factor.diagonal().numpy()
            pivots[vector] = found
    return Survey(pivots, {n: (t / windows.numel()).numpy() for n, t in worth.items()})


def _batches(widths: dict[int, int]) -> Iterator[dict[int, int]]:
    """Vectors with their widths, as many at a time as there is memory for their Hessians."""
    batch: dict[int, int] = {}
    for vector, width in widths.items():
        if batch and 4 * sum(n * n for n in [*batch.values(), width]) > BYTES:
            yield batch
            batch = {}
        batch[vector] = width
    if batch:
        yield batch


@contextmanager
def _watched(
    module: nn.Module,
    seen: dict[str, int],
    hessians: dict[int, Tensor],
    graded: dict[str, Linear],
    worth: dict[str, Tensor],
) -> Iterator[None]:
    """Within the block, inputs of the modules ``seen`` are added to ``hessians``, and squared
    derivatives by the outputs of the modules ``graded`` to ``worth``."""
    inner = dict(cast(nn.Module, module.base_model).named_modules())

    def part(path: str) -> nn.Module:
        return inner[path] if path in inner else module.get_submodule(path)

    def add_input(vector: int) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0].detach().flatten(0, -2)
            hessians[vector] += x.T @ x

        return hook

    def add_worth(op: Linear) -> Any:
        def of(gradient: Tensor) -> None:
            found = gradient.detach().flatten(0, -2).double().square().sum(0)
            first = 0
            for weight, _, size in op.parts:
                share = found[first : first + size]
                worth[weight] = worth[weight] + share if weight in worth else share.clone()
                first += size

        def hook(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            output.register_hook(of)  # type: ignore[no-untyped-call]

        return hook

    def begin(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        output.requires_grad_(True)

    handles = [part(p).register_forward_pre_hook(add_input(v)) for p, v in seen.items()]
    if graded:
        tokens = cast(Any, module).get_input_embeddings()
        handles.append(tokens.register_forward_hook(begin))
        handles += [part(p).register_forward_hook(add_worth(op)) for p, op in graded.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
