"""The transformer between its linear layers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from golden import layers
from golden.arith import Int64
from golden.layers import Block, KVCache
from rf8.architecture import GPT2Spec, LlamaSpec
from rf8.program import Program

Linear = Callable[[str, Int64], Int64]
"""Takes a kernel's name and activations [T, inputs] Q16; gives results [T, outputs] Q16."""


class Transformer:
    """A model on vectors of Q16 integers, with its key-value cache.

    Parameters
    ----------
    program: shapes, embeddings and norms
    linear: does the linear layers and the head
    """

    def __init__(self, program: Program, linear: Linear) -> None:
        self._program, self._linear = program, linear
        self._norms = {
            name.removesuffix(".gamma"): Block(
                array.astype(np.int64), program.host[f"{name}_exponent"].astype(np.int64)
            )
            for name, array in program.host.items()
            if name.endswith(".gamma")
        }
        self.caches: list[KVCache] = []
        self.reset()

    def reset(self) -> None:
        """Start a new sequence: forget keys and values."""
        spec = self._program.spec
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
        spec = self._program.spec
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
        last = "ln_f" if isinstance(self._program.spec, GPT2Spec) else "norm"
        return self._linear("lm_head", self._norm(last, hidden))

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
        steps = self._program.host["rotary.steps"].astype(np.int64)
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
        config, width = self._program.config, self._program.spec.head_width
        q, k, v = (part.reshape(len(part), -1, width) for part in (q, k, v))
        context = layers.attention(q, k, v, cache, config.act_bits, config.span)
        return context.reshape(len(context), -1)

    def _embed(self, name: str, rows: list[int] | Int64) -> Int64:
        host = self._program.host
        return layers.embed(host[f"{name}.weight.codes"][rows], host[f"{name}.weight.bias"][rows])

    def _norm(self, name: str, x: Int64) -> Int64:
        gamma, epsilon = self._norms[name], self._program.spec.epsilon
        beta = self._program.host.get(f"{name}.beta")
        if beta is None:
            return layers.rms_norm(x, gamma, epsilon)
        return layers.layer_norm(x, gamma, beta.astype(np.int64), epsilon)
