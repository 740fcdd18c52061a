"""A small model with random weights of each family, and GGUF files of them.

Their widths and numbers of heads are no multiple of anything, their options away from what would
hide a mistake.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rf8.checkpoint.families import FAMILIES

SMALL: dict[str, Any] = {
    "num_hidden_layers": 2,
    "hidden_size": 48,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 50,
    "max_position_embeddings": 24,
}
_NO_GROUPS = {name: value for name, value in SMALL.items() if name != "num_key_value_heads"}
SAMPLES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_layer": 2, "n_embd": 30, "n_head": 5, "n_inner": 50, "n_positions": 24},
    "mistral": SMALL | {"sliding_window": 5},
    "qwen3": SMALL | {"head_dim": 12},
    "gemma": SMALL | {"head_dim": 12},
    "gemma2": SMALL | {"head_dim": 12, "query_pre_attn_scalar": 9, "sliding_window": 5},
    "gemma3_text": SMALL
    | {
        "head_dim": 12,
        "query_pre_attn_scalar": 9,
        "sliding_window": 5,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "gpt_neox": _NO_GROUPS,
    "smollm3": SMALL | {"num_hidden_layers": 4},
}
"""model_type -> config, of those that differ from `SMALL`."""


def sample(kind: str, **changes: Any) -> nn.Module:
    """A small model of a family, as transformers has it; ``changes``: of its config."""
    from transformers import AutoConfig, AutoModelForCausalLM

    usual = {"vocab_size": 101, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    options = {**usual, **SAMPLES.get(kind, SMALL), **changes}
    torch.manual_seed(1)
    module: nn.Module = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **options))
    with torch.no_grad():
        for parameter in module.parameters():
            # Untrained norms and biases are ones and zeros, which would hide mistakes.
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            else:
                parameter.mul_(6)
    return module.eval()


def write_gguf(
    path: Path,
    module: nn.Module,
    kind: str,
    *,
    drop: Collection[str] = (),
    extra: Iterable[tuple[str, NDArray[Any]]] = (),
    metadata: Mapping[str, Any] | None = None,
    tokenizer: bool = True,
    types: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model of transformers as llama.cpp's conversion does, float32.

    ``drop``: names in the file to leave out. ``extra``: tensors to add. ``metadata``: keys behind
    the architecture to set, None to leave out. ``types``: name -> `gguf.GGMLQuantizationType`.
    """
    import gguf

    config: Any = module.config
    architecture = str(FAMILIES[kind].gguf)
    writer = gguf.GGUFWriter(path, architecture)
    adders = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
    }
    for key, value in {**_metadata(config, kind), **(metadata or {})}.items():
        if isinstance(value, list):
            writer.add_array(f"{architecture}.{key}", value)
        elif value is not None:
            adders[type(value)](f"{architecture}.{key}", value)
    if tokenizer:
        _add_tokenizer(writer, config.vocab_size)
    arch = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    known = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    tensors: list[tuple[str, NDArray[Any]]] = []
    for name, tensor in module.state_dict().items():
        base, _, suffix = name.rpartition(".")
        if name != "lm_head.weight" or not config.tie_word_embeddings:
            values = _converted(name, tensor.float().numpy(), kind, config)
            tensors.append((f"{known.get_name(base)}.{suffix}", values))
    for name, values in [*tensors, *extra]:
        plain = np.ascontiguousarray(values, np.float32)
        if types and name in types:
            coded = gguf.quants.quantize(plain, types[name])
            writer.add_tensor(name, coded, raw_dtype=types[name])
        elif name not in drop:
            writer.add_tensor(name, plain)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: Any, vocab: int) -> None:
    letters = [chr(code) for code in range(33, 127)]
    tokens = ([*letters, "ab"] + [f"<{i}>" for i in range(vocab)])[:vocab]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * len(tokens))
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(7)


def _metadata(c: Any, kind: str) -> dict[str, Any]:
    """What a file says of a config, by its keys behind the architecture."""
    head = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    inner = c.n_inner or 4 * c.n_embd if kind == "gpt2" else c.intermediate_size
    found: dict[str, Any] = {
        "context_length": c.max_position_embeddings,
        "embedding_length": c.hidden_size,
        "block_count": c.num_hidden_layers,
        "feed_forward_length": inner,
        "attention.head_count": c.num_attention_heads,
    }
    if kind not in ("gpt2", "gpt_neox"):
        found["attention.head_count_kv"] = c.num_key_value_heads
    if kind in ("gpt2", "gpt_neox", "stablelm"):
        epsilon = c.layer_norm_epsilon if kind == "gpt2" else c.layer_norm_eps
        found["attention.layer_norm_epsilon"] = epsilon
    else:
        found["attention.layer_norm_rms_epsilon"] = c.rms_norm_eps
    if kind != "gpt2":
        share = c.rope_parameters.get("partial_rotary_factor", 1.0)
        rope = c.rope_parameters.get("full_attention", c.rope_parameters)
        found["rope.dimension_count"] = int(head * share)
        found["rope.freq_base"] = float(rope["rope_theta"])
    if kind.startswith(("gemma", "qwen3")) or kind in ("llama", "mistral"):
        found |= {"attention.key_length": head, "attention.value_length": head}
    if kind in ("gemma2", "gemma3_text"):
        found["attention.sliding_window"] = c.sliding_window
    if kind == "gemma3_text":
        slides = [kind == "sliding_attention" for kind in c.layer_types]
        found["attention.sliding_window_pattern"] = slides
    if kind == "gemma2":
        found["attn_logit_softcapping"] = c.attn_logit_softcapping
        found["final_logit_softcapping"] = c.final_logit_softcapping
    if kind == "gpt_neox":
        found["use_parallel_residual"] = c.use_parallel_residual
    return found


def _converted(name: str, values: NDArray[Any], kind: str, config: Any) -> NDArray[Any]:
    """A tensor as a GGUF file holds it."""
    part, heads = name.rsplit(".", 2)[-2], config.num_attention_heads
    if kind in ("llama", "mistral", "smollm3") and part in ("q_proj", "k_proj"):
        many = heads if part == "q_proj" else config.num_key_value_heads
        # Rotary pairs become neighbours.
        return values.reshape(many, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
    if kind.startswith("gemma") and part.endswith("norm"):
        return values + 1
    if kind == "gpt2" and part in ("c_attn", "c_proj", "c_fc") and values.ndim == 2:
        return values.T
    if kind == "gpt_neox" and part == "query_key_value":
        return values.reshape(heads, 3, -1, *values.shape[1:]).swapaxes(0, 1).reshape(values.shape)
    return values
