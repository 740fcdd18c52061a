"""Architectures: which tensors a config promises, and how checkpoints name them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from golden.layers import ACTIVATIONS
from rf8.errors import DataError

_ACTIVATIONS = {config: name for name, known in ACTIVATIONS.items() for config in known.configs}
"""Names of activation functions in GPT-2 configs of transformers -> in golden.layers."""


@dataclass(frozen=True)
class GPT2Spec:
    """The shape of a GPT-2 model: everything that a program needs to know of its config."""

    layers: int
    width: int
    heads: int
    inner: int
    context: int
    vocab: int
    epsilon: float
    activation: str
    tied: bool

    @property
    def head_width(self) -> int:
        """Elements of one attention head."""
        return self.width // self.heads

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.heads

    def matrices(self) -> list[str]:
        """Names of the linear layers of a token's way, in order, the head not among them."""
        parts = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
        return [f"h.{layer}.{part}" for layer in range(self.layers) for part in parts]

    def norms(self) -> list[str]:
        """Names of the norms."""
        names = [f"h.{layer}.{norm}" for layer in range(self.layers) for norm in ("ln_1", "ln_2")]
        return [*names, "ln_f"]

    def embeddings(self) -> list[str]:
        """Names of the embeddings, that of tokens first."""
        return ["wte", "wpe"]

    @classmethod
    def from_config(cls, config: dict[str, Any], where: str) -> GPT2Spec:
        """Read a transformers config; ``where`` names it in errors.

        Raises
        ------
        DataError
            For a missing or impossible field, or an option that is not supported.
        """
        number = partial(_number, config, where)
        width = number("n_embd", 768)
        spec = cls(
            layers=number("n_layer", 12),
            width=width,
            heads=number("n_head", 12),
            inner=number("n_inner", 4 * width),
            context=number("n_positions", 1024),
            vocab=number("vocab_size", 50257),
            epsilon=_epsilon(config, "layer_norm_epsilon", where),
            activation=_activation(config, where),
            tied=bool(config.get("tie_word_embeddings", True)),
        )
        if spec.width % spec.heads:
            raise DataError(f"{where}: n_embd {spec.width} is no multiple of n_head {spec.heads}")
        for key, usual in (
            ("scale_attn_weights", True),
            ("scale_attn_by_inverse_layer_idx", False),
            ("add_cross_attention", False),
        ):
            if config.get(key, usual) != usual:
                raise DataError(f"{where}: {key}={config[key]} is not supported, only {usual}")
        return spec

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every tensor of such a model, in transformers' naming."""
        d, inner = self.width, self.inner
        result: dict[str, tuple[int, ...]] = {"wte.weight": (self.vocab, d)}
        result["wpe.weight"] = (self.context, d)
        for layer in range(self.layers):
            at = f"h.{layer}."
            for norm in ("ln_1", "ln_2"):
                result |= {f"{at}{norm}.weight": (d,), f"{at}{norm}.bias": (d,)}
            for name, (rows, columns) in {
                "attn.c_attn": (d, 3 * d),
                "attn.c_proj": (d, d),
                "mlp.c_fc": (d, inner),
                "mlp.c_proj": (inner, d),
            }.items():
                # Conv1D: [in, out]
                result |= {f"{at}{name}.weight": (rows, columns), f"{at}{name}.bias": (columns,)}
        result |= {"ln_f.weight": (d,), "ln_f.bias": (d,)}
        if not self.tied:
            result["lm_head.weight"] = (self.vocab, d)
        return result


@dataclass(frozen=True)
class LlamaSpec:
    """The shape of a Llama model: RMSNorm, rotary positions, gated MLP, grouped-query attention.

    ``theta``, ``rotary``: base and type of the rotary positions. ``interleaved``: whether they
    turn elements 2i and 2i + 1 (the config's ``rope_interleaved``), not i and i + half a head.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    inner: int
    context: int
    vocab: int
    epsilon: float
    attention_bias: bool
    mlp_bias: bool
    tied: bool
    theta: float
    rotary: str
    interleaved: bool

    def matrices(self) -> list[str]:
        """Names of the linear layers of a token's way, in order, the head not among them."""
        parts = [f"self_attn.{part}_proj" for part in "qkvo"]
        parts += [f"mlp.{part}_proj" for part in ("gate", "up", "down")]
        return [f"layers.{layer}.{part}" for layer in range(self.layers) for part in parts]

    def norms(self) -> list[str]:
        """Names of the norms."""
        parts = ("input_layernorm", "post_attention_layernorm")
        names = [f"layers.{layer}.{norm}" for layer in range(self.layers) for norm in parts]
        return [*names, "norm"]

    def embeddings(self) -> list[str]:
        """Names of the embeddings: that of tokens."""
        return ["embed_tokens"]

    @classmethod
    def from_config(cls, config: dict[str, Any], where: str) -> LlamaSpec:
        """Read a transformers config; ``where`` names it in errors.

        Raises
        ------
        DataError
            For a missing or impossible field, or an option that is not supported.
        """
        number = partial(_number, config, where)
        width, heads = number("hidden_size", 4096), number("num_attention_heads", 32)
        theta, rotary = _rotary(config, where)
        spec = cls(
            layers=number("num_hidden_layers", 32),
            width=width,
            heads=heads,
            kv_heads=number("num_key_value_heads", heads),
            head_width=number("head_dim", max(1, width // heads)),
            inner=number("intermediate_size", 11008),
            context=number("max_position_embeddings", 2048),
            vocab=number("vocab_size", 32000),
            epsilon=_epsilon(config, "rms_norm_eps", where),
            attention_bias=bool(config.get("attention_bias", False)),
            mlp_bias=bool(config.get("mlp_bias", False)),
            tied=bool(config.get("tie_word_embeddings", False)),
            theta=theta,
            rotary=rotary,
            interleaved=bool(config.get("rope_interleaved", False)),
        )
        if spec.head_width % 2:
            raise DataError(f"{where}: head_dim is {spec.head_width}: rotary positions need pairs")
        if spec.heads % spec.kv_heads:
            raise DataError(
                f"{where}: num_attention_heads {heads} is no multiple of num_key_value_heads "
                f"{spec.kv_heads}"
            )
        if config.get("hidden_act", "silu") != "silu":
            raise DataError(f"{where}: hidden_act={config['hidden_act']!r} is not supported: silu")
        return spec

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every tensor of such a model, in transformers' naming."""
        d, queries, keys = self.width, self.heads * self.head_width, self.kv_heads * self.head_width
        result: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (self.vocab, d)}
        for layer in range(self.layers):
            at = f"layers.{layer}."
            for name, (rows, columns), bias in (
                ("self_attn.q_proj", (queries, d), self.attention_bias),
                ("self_attn.k_proj", (keys, d), self.attention_bias),
                ("self_attn.v_proj", (keys, d), self.attention_bias),
                ("self_attn.o_proj", (d, queries), self.attention_bias),
                ("mlp.gate_proj", (self.inner, d), self.mlp_bias),
                ("mlp.up_proj", (self.inner, d), self.mlp_bias),
                ("mlp.down_proj", (d, self.inner), self.mlp_bias),
            ):
                result[f"{at}{name}.weight"] = (rows, columns)
                if bias:
                    result[f"{at}{name}.bias"] = (rows,)
            result[f"{at}input_layernorm.weight"] = (d,)
            result[f"{at}post_attention_layernorm.weight"] = (d,)
        result["norm.weight"] = (d,)
        if not self.tied:
            result["lm_head.weight"] = (self.vocab, d)
        return result


Spec = GPT2Spec | LlamaSpec

SPECS: dict[str, type[Spec]] = {"gpt2": GPT2Spec, "llama": LlamaSpec}
"""model_type of a transformers config -> its spec."""


def read_spec(config: dict[str, Any], where: str) -> Spec:
    """The spec of a transformers config; ``where`` names it in errors.

    Raises
    ------
    DataError
        For another architecture, and as ``from_config`` of the specs.
    """
    kind = config.get("model_type")
    if kind not in SPECS:
        known = ", ".join(map(repr, SPECS))
        raise DataError(f"{where}: model_type is {kind!r}; this version knows {known}")
    return SPECS[kind].from_config(config, where)


def _number(config: dict[str, Any], where: str, key: str, default: int) -> int:
    value = config.get(key, default)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DataError(f"{where}: {key} is {value!r}, must be a positive integer")
    return value


def _epsilon(config: dict[str, Any], key: str, where: str) -> float:
    epsilon = config.get(key, 1e-5)
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise DataError(f"{where}: {key} is {epsilon!r}, must be in (0, 1)")
    return epsilon


def _rotary(config: dict[str, Any], where: str) -> tuple[float, str]:
    """Base and type of rotary positions; configs older than transformers 5 have two keys for it."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(found, dict):
        raise DataError(f"{where}: rope_parameters is {found!r}, must be an object")
    theta = found.get("rope_theta", config.get("rope_theta", 10000.0))
    if not isinstance(theta, int | float) or not theta > 1:
        raise DataError(f"{where}: rope_theta is {theta!r}, must be above 1")
    return float(theta), str(found.get("rope_type", found.get("type", "default")))


def _activation(config: dict[str, Any], where: str) -> str:
    name = config.get("activation_function", "gelu_new")
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise DataError(f"{where}: activation_function {name!r} is not supported, only {known}")
    return _ACTIVATIONS[name]


def is_matrix(name: str) -> bool:
    """Whether RF8 quantises a tensor: the weights of linear layers, embeddings and head."""
    module = name.rsplit(".", 2)[-2]
    return name.endswith(".weight") and not (module.startswith("ln_") or module.endswith("norm"))


def is_conv1d(name: str) -> bool:
    """Whether a matrix is stored as transformers' Conv1D does, [in, out]."""
    return name.startswith("h.")
