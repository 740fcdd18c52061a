"""Graphs of the architectures that the package knows, from their shapes."""

from __future__ import annotations

from rf8.checkpoint.architecture import GPT2Spec, LlamaSpec, Spec
from rf8.compiler.ir import (
    Activate,
    Add,
    Attention,
    Builder,
    Embedding,
    Graph,
    Linear,
    Multiply,
    Norm,
    Rotary,
    Split,
)
from rf8.errors import DataError


def graph_of(spec: Spec, name: str) -> Graph:
    """The graph of a model, from token to logits; ``name`` names the model in errors.

    Raises
    ------
    DataError
        Where it has an operation that cannot be lowered; the message names module and operation.
    """
    made = _Maker(spec)
    if isinstance(spec, GPT2Spec):
        return made.gpt2(spec)
    if spec.rotary != "default":
        raise DataError(
            f"{name}: model.rotary_emb: rotary positions of type {spec.rotary!r} cannot be "
            "lowered, only 'default'"
        )
    return made.llama(spec)


class _Maker:
    def __init__(self, spec: Spec) -> None:
        self._spec, self._b = spec, Builder()
        self._tensors = set(spec.shapes())

    def _bias(self, module: str) -> str | None:
        name = f"{module}.bias"
        return name if name in self._tensors else None

    def _linear(self, module: str, x: int, width: int) -> int:
        part = (f"{module}.weight", self._bias(module), width)
        return self._b.add(Linear(module, width, x, (part,)))

    def _norm(self, module: str, x: int) -> int:
        spec = self._spec
        norm = Norm(module, spec.width, x, f"{module}.weight", self._bias(module), spec.epsilon)
        return self._b.add(norm)

    def _head(self, x: int) -> Graph:
        spec = self._spec
        weight = f"{spec.embeddings()[0]}.weight" if spec.tied else "lm_head.weight"
        self._b.add(Linear("lm_head", spec.vocab, x, ((weight, None, spec.vocab),)))
        return self._b.graph("building")

    def gpt2(self, spec: GPT2Spec) -> Graph:
        b, width = self._b, spec.width
        tokens = b.add(Embedding("wte", width, "wte.weight", "token"))
        places = b.add(Embedding("wpe", width, "wpe.weight", "position"))
        x = b.add(Add("embeddings", width, tokens, places))
        for layer in range(spec.layers):
            at = f"h.{layer}."
            qkv = self._linear(f"{at}attn.c_attn", self._norm(f"{at}ln_1", x), 3 * width)
            cut = (width,) * 3
            q, k, v = (b.add(Split(f"{at}attn", width, qkv, n, cut)) for n in range(3))
            context = b.add(Attention(f"{at}attn", width, q, k, v, spec.heads, spec.heads, None))
            y = self._linear(f"{at}attn.c_proj", context, width)
            x = b.add(Add(f"h.{layer}", width, x, y))
            inner = self._linear(f"{at}mlp.c_fc", self._norm(f"{at}ln_2", x), spec.inner)
            active = b.add(Activate(f"{at}mlp.act", spec.inner, inner, spec.activation))
            y = self._linear(f"{at}mlp.c_proj", active, width)
            x = b.add(Add(f"h.{layer}", width, x, y))
        return self._head(self._norm("ln_f", x))

    def llama(self, spec: LlamaSpec) -> Graph:
        b, width = self._b, spec.width
        rotary = Rotary(spec.theta, "neighbours" if spec.interleaved else "halves")
        queries, keys = spec.heads * spec.head_width, spec.kv_heads * spec.head_width
        x = b.add(Embedding("embed_tokens", width, "embed_tokens.weight", "token"))
        for layer in range(spec.layers):
            at = f"layers.{layer}."
            normal = self._norm(f"{at}input_layernorm", x)
            q, k, v = (
                self._linear(f"{at}self_attn.{part}_proj", normal, n)
                for part, n in zip("qkv", (queries, keys, keys), strict=True)
            )
            context = b.add(
                Attention(f"{at}self_attn", queries, q, k, v, spec.heads, spec.kv_heads, rotary)
            )
            y = self._linear(f"{at}self_attn.o_proj", context, width)
            x = b.add(Add(f"layers.{layer}", width, x, y))
            normal = self._norm(f"{at}post_attention_layernorm", x)
            gate, up = (
                self._linear(f"{at}mlp.{part}_proj", normal, spec.inner) for part in ("gate", "up")
            )
            gate = b.add(Activate(f"{at}mlp.act_fn", spec.inner, gate, "silu"))
            inner = b.add(Multiply(f"{at}mlp", spec.inner, up, gate))
            y = self._linear(f"{at}mlp.down_proj", inner, width)
            x = b.add(Add(f"layers.{layer}", width, x, y))
        return self._head(self._norm("norm", x))
