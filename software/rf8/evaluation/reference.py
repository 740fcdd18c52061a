"""A model on integers by `golden.layers`, all tokens of a text at once.

What a compiled program computes instruction by instruction, to the bit; it is the way to perplexity
on long texts, and what programs are tested against.
"""

from __future__ import annotations

import numpy as np
import torch

from golden import layers
from golden.arith import Int64, requantize
from golden.attention import KVCache, attention
from golden.config import MAX_SIGNIFICAND, RESULT_FRAC, AccelConfig
from golden.format import INTEGERS
from rf8.checkpoint.architecture import GPT2Spec, LlamaSpec
from rf8.checkpoint.fixed_point import fixed_point, norm_weight
from rf8.checkpoint.model import Model, RF8Tensor
from rf8.compiler.graphs import graph_of


class Matrices:
    """The linear layers of an RF8 model: W x + b for any number of tokens.

    Weights are unpacked on first use and kept, 8 bytes each.
    """

    def __init__(self, model: Model, act_bits: int) -> None:
        self._model, self._bits = model, act_bits
        self._kept: dict[str, tuple[torch.Tensor, Int64, Int64]] = {}

    def __call__(self, name: str, x: Int64) -> Int64:
        """Results [T, outputs] Q16 of the matrix ``name`` for activations [T, inputs] Q16."""
        if name not in self._kept:
            self._kept[name] = self._unpacked(name)
        weights, exponents, bias = self._kept[name]
        block = layers.block_quantize(x, self._bits)
        vectors = torch.from_numpy(block.mantissa.astype(np.float64))
        dots = (vectors @ weights.T).numpy().astype(np.int64)
        return requantize(dots, exponents + block.exponent + (RESULT_FRAC - 4), bias)

    def _unpacked(self, name: str) -> tuple[torch.Tensor, Int64, Int64]:
        tensor = self._model.tensors[f"{name}.weight"]
        assert isinstance(tensor, RF8Tensor)
        outputs, inputs = tensor.codes.shape
        layers.check_exact(inputs * (MAX_SIGNIFICAND << 15) << (self._bits - 1))
        bias = np.zeros(outputs, np.int64)
        if f"{name}.bias" in self._model.tensors:
            bias = fixed_point(self._model, f"{name}.bias")
        weights = torch.from_numpy(INTEGERS[tensor.codes].astype(np.float64))
        return weights, tensor.bias.astype(np.int64), bias


class Transformer:
    """A model on vectors of Q16 integers, with its key-value cache.

    Parameters
    ----------
    model: in RF8
    config: the accelerator, of which ``act_bits`` and ``span`` matter

    Raises
    ------
    DataError
        Where an operation is not supported.
    """

    def __init__(self, model: Model, config: AccelConfig) -> None:
        graph_of(model.spec, model.name)  # refuses what cannot be lowered
        self._model, self._config = model, config
        self._linear = Matrices(model, config.act_bits)
        self._gammas = {name: norm_weight(model, name) for name in model.spec.norms()}
        self._betas = {
            name: fixed_point(model, f"{name}.bias")
            for name in model.spec.norms()
            if f"{name}.bias" in model.tensors
        }
        self.caches: list[KVCache] = []
        self.reset()

    def reset(self) -> None:
        """Start a new sequence: forget keys and values."""
        spec = self._model.spec
        self.caches = [KVCache.empty(spec.kv_heads, spec.head_width) for _ in range(spec.layers)]

    def truncate(self, position: int) -> None:
        """Go back to where ``position`` tokens were in the cache."""
        for cache in self.caches:
            cache.truncate(position)

    @property
    def position(self) -> int:
        """Tokens in the cache."""
        return self.caches[0].positions

    def hidden(self, ids: list[int]) -> Int64:
        """The residual stream [T, D] after all blocks, for the next T tokens."""
        spec = self._model.spec
        positions = np.arange(self.position, self.position + len(ids))
        if isinstance(spec, GPT2Spec):
            x = layers.add(self._embed("wte", ids), self._embed("wpe", positions))
            for layer, cache in enumerate(self.caches):
                x = self._gpt2_block(spec, f"h.{layer}.", x, cache)
            return x
        x = self._embed("embed_tokens", ids)
        for layer, cache in enumerate(self.caches):
            x = self._llama_block(spec, f"layers.{layer}.", x, cache, positions)
        return x

    def logits(self, hidden: Int64) -> Int64:
        """Logits [T, vocab] Q16 of what `hidden` gave."""
        last = "ln_f" if isinstance(self._model.spec, GPT2Spec) else "norm"
        spec = self._model.spec
        head = spec.embeddings()[0] if spec.tied else "lm_head"
        return self._linear(head, self._norm(last, hidden))

    def _gpt2_block(self, spec: GPT2Spec, at: str, x: Int64, cache: KVCache) -> Int64:
        qkv = self._linear(f"{at}attn.c_attn", self._norm(f"{at}ln_1", x))
        q, k, v = np.split(qkv, 3, axis=1)
        x = layers.add(x, self._linear(f"{at}attn.c_proj", self._attention(q, k, v, cache)))
        inner = self._linear(f"{at}mlp.c_fc", self._norm(f"{at}ln_2", x))
        active = layers.activate(inner, spec.activation)
        return layers.add(x, self._linear(f"{at}mlp.c_proj", active))

    def _llama_block(
        self, spec: LlamaSpec, at: str, x: Int64, cache: KVCache, positions: Int64
    ) -> Int64:
        normal = self._norm(f"{at}input_layernorm", x)
        q, k, v = (self._linear(f"{at}self_attn.{part}_proj", normal) for part in "qkv")
        steps = layers.rotary_steps(spec.head_width, spec.theta)
        q, k = (
            layers.rotate(
                part.reshape(len(x), -1, spec.head_width),
                positions,
                steps,
                interleaved=spec.interleaved,
            )
            for part in (q, k)
        )
        context = self._attention(q, k, v, cache)
        x = layers.add(x, self._linear(f"{at}self_attn.o_proj", context))
        normal = self._norm(f"{at}post_attention_layernorm", x)
        gate, up = (self._linear(f"{at}mlp.{part}_proj", normal) for part in ("gate", "up"))
        inner = layers.multiply(layers.activate(gate, "silu"), up)
        return layers.add(x, self._linear(f"{at}mlp.down_proj", inner))

    def _attention(self, q: Int64, k: Int64, v: Int64, cache: KVCache) -> Int64:
        config, width = self._config, self._model.spec.head_width
        q, k, v = (part.reshape(len(part), -1, width) for part in (q, k, v))
        context = attention(q, k, v, cache, config.act_bits, config.span)
        return context.reshape(len(context), -1)

    def _embed(self, name: str, rows: list[int] | Int64) -> Int64:
        tensor = self._model.tensors[f"{name}.weight"]
        assert isinstance(tensor, RF8Tensor)
        return layers.embed(tensor.codes[rows], tensor.bias[rows])

    def _norm(self, name: str, x: Int64) -> Int64:
        gamma, epsilon = self._gammas[name], self._model.spec.epsilon
        if name not in self._betas:
            return layers.rms_norm(x, gamma, epsilon)
        return layers.layer_norm(x, gamma, self._betas[name], epsilon)
