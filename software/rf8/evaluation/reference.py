"""A model on integers by `golden.layers`, all tokens of a text at once.

It interprets the graph of a model (`rf8.graph.ir`) and shares nothing else with the compiler:
what a compiled program computes instruction by instruction it must equal to the bit. It is the way
to perplexity on long texts, and what programs are tested against.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from golden import layers
from golden.arith import Int64, requantize
from golden.attention import KVCache, attention
from golden.config import MAX_SIGNIFICAND, RESULT_FRAC, AccelConfig
from golden.format import INTEGERS
from golden.layers import Block
from rf8.checkpoint.fixed_point import fixed_point, norm_weight
from rf8.checkpoint.model import Model, RF8Tensor
from rf8.errors import DataError
from rf8.graph.ir import (
    Activate,
    Add,
    Attention,
    Cap,
    Embedding,
    Linear,
    Multiply,
    Norm,
    Op,
    Scale,
    Take,
)


class Matrices:
    """The linear layers of an RF8 model: W x + b for any number of tokens.

    Weights are unpacked on first use and kept, 8 bytes each.
    """

    def __init__(self, model: Model, act_bits: int) -> None:
        self._model, self._bits = model, act_bits
        self._kept: dict[tuple[str, str | None, int], tuple[torch.Tensor, Int64, Int64]] = {}

    def __call__(self, weight: str, bias: str | None, x: Int64, drop: int = 0) -> Int64:
        """Results [T, outputs] Q16 for activations [T, inputs] Q16, by the tensors' names, times
        ``2**-drop``."""
        key = weight, bias, drop
        if key not in self._kept:
            self._kept[key] = self._unpacked(*key)
        weights, exponents, added = self._kept[key]
        block = layers.block_quantize(x, self._bits)
        vectors = torch.from_numpy(block.mantissa.astype(np.float64))
        dots = (vectors @ weights.T).numpy().astype(np.int64)
        return requantize(dots, exponents + block.exponent + (RESULT_FRAC - 4), added)

    def _unpacked(
        self, weight: str, bias: str | None, drop: int
    ) -> tuple[torch.Tensor, Int64, Int64]:
        tensor = self._model.tensors[weight]
        assert isinstance(tensor, RF8Tensor)
        outputs, inputs = tensor.codes.shape
        layers.check_exact(inputs * (MAX_SIGNIFICAND << 15) << (self._bits - 1))
        added = np.zeros(outputs, np.int64)
        if bias is not None:
            added = fixed_point(self._model, bias, RESULT_FRAC - drop)
        weights = torch.from_numpy(INTEGERS[tensor.codes].astype(np.float64))
        return weights, tensor.bias.astype(np.int64) - drop, added


class Transformer:
    """A model on vectors of Q16 integers, with its key-value cache.

    Parameters
    ----------
    model: in RF8
    config: the accelerator, of which ``act_bits`` and ``span`` matter

    Raises
    ------
    DataError
        Where an operation is not supported, or a norm's weight or bias is too large.

    ``saturated``: how many results so far lie at an end of the 32 bits, as saturated ones do.
    """

    def __init__(self, model: Model, config: AccelConfig) -> None:
        graph = model.graph
        self._ops, self._head = graph.ops[: graph.head], graph.ops[graph.head]
        self._after = graph.ops[graph.head + 1 :]
        self._model, self._config = model, config
        self._linear = Matrices(model, config.act_bits)
        self._last_users = [max(users, default=-1) for users in graph.users()]
        self._norms: dict[str, tuple[Block, Int64 | None]] = {
            op.module: (
                norm_weight(model, op),
                None if op.bias is None else fixed_point(model, op.bias, RESULT_FRAC - op.drop),
            )
            for op in self._ops
            if isinstance(op, Norm)
        }
        self._caches: dict[str, KVCache] = {}
        self._position = self.saturated = 0
        self.reset()

    def reset(self) -> None:
        """Start a new sequence: forget keys and values."""
        self._position = 0
        self._caches = {
            op.module: KVCache.empty(op.kv_heads, op.width // op.heads)
            for op in self._ops
            if isinstance(op, Attention)
        }

    def hidden(self, ids: list[int]) -> Int64:
        """What enters the head, [T, D], for the next T tokens."""
        values: dict[int, Int64] = {}
        for index, op in enumerate(self._ops):
            operands = [values[i] for i in op.inputs]
            values[index] = self._counted(op, operands, ids)
            for i in set(op.inputs):
                if self._last_users[i] == index:
                    del values[i]  # long texts need the memory
        self._position += len(ids)
        return values[self._head.inputs[0]]

    def logits(self, hidden: Int64) -> Int64:
        """Logits [T, vocab] Q16 of what `hidden` gave."""
        logits = self._counted(self._head, [hidden], [])
        for op in self._after:
            logits = self._counted(op, [logits], [])
        return logits

    def _counted(self, op: Op, operands: list[Int64], ids: list[int]) -> Int64:
        found, ends = self._computed(op, operands, ids), np.iinfo(np.int32)
        if not isinstance(op, Take):  # parts of what was counted
            self.saturated += int(np.count_nonzero((found == ends.min) | (found == ends.max)))
        return found

    def _computed(self, op: Op, operands: list[Int64], ids: list[int]) -> Int64:
        """The vector that ``op`` gives, [T, op.width]; ``ids``: the tokens."""
        match op:
            case Embedding():
                tensor = self._model.tensors[op.weight]
                assert isinstance(tensor, RF8Tensor)
                positions = range(self._position, self._position + len(ids))
                rows = ids if op.by == "token" else list(positions)
                return layers.embed(tensor.codes[rows], tensor.bias[rows], op.drop)
            case Add():
                return layers.add(*operands)
            case Multiply():
                return layers.multiply(*operands)
            case Norm():
                return self._norm(op, operands[0])
            case Linear(parts=parts):
                results = [self._linear(w, bias, operands[0], op.drop) for w, bias, _ in parts]
                return results[0] if len(results) == 1 else np.concatenate(results, axis=1)
            case Take():
                runs = [operands[0][:, start : start + op.length] for start in op.starts]
                return np.concatenate(runs, axis=1)
            case Cap():
                return layers.soft_cap(operands[0], op.cap)
            case Scale():
                return layers.scale(operands[0], op.factor)
            case Attention():
                return self._attention(op, *operands)
            case Activate():
                return layers.activate(operands[0], op.kind)
        raise DataError(f"{op.module}: {type(op).__name__} is not supported")

    def _norm(self, op: Norm, x: Int64) -> Int64:
        gamma, beta = self._norms[op.module]
        parts = x.reshape(len(x), op.parts, -1)
        if op.center:
            parts = layers.centered(parts)
        y = layers.rms_norm(parts, gamma, op.epsilon)
        return (y if beta is None else layers.add(y, beta)).reshape(x.shape)

    def _attention(self, op: Attention, q: Int64, k: Int64, v: Int64) -> Int64:
        config, width = self._config, op.width // op.heads
        q, k, v = (part.reshape(len(part), -1, width) for part in (q, k, v))
        if op.rotary is not None:
            positions = np.arange(self._position, self._position + len(q))
            steps = layers.rotary_steps(op.rotary.steps)
            neighbours = op.rotary.pairing == "neighbours"
            q, k = (layers.rotate(x, positions, steps, interleaved=neighbours) for x in (q, k))
        cache = self._caches[op.module]
        options: dict[str, Any] = {"scale": op.scale, "window": op.window, "soft_cap": op.cap}
        found = attention(q, k, v, cache, config.act_bits, config.span, **options)
        return found.reshape(len(q), -1)
