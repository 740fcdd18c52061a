"""The model families that rf8 takes, and the one rule for their configs.

A config is read by transformers' own class, and what that class computes is what runs
(`rf8.graph.trace`). So a field counts as known where the class declares it; any other is an error
that names it, unless it is off or known to change nothing.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from rf8.errors import DataError


@dataclass(frozen=True)
class Family:
    """Models of one kind.

    ``title``: as people call it. ``gguf``: its name in GGUF files, None where they have none.
    ``drop``: the residual stream is computed times ``2**-drop``, where its values are known to be
    too large for 16 whole bits otherwise.
    """

    title: str
    gguf: str | None = None
    drop: int = 0


FAMILIES = {
    "gpt2": Family("GPT-2", "gpt2"),
    "llama": Family("Llama 2, 3, 3.1, 3.2, SmolLM2", "llama"),
    "mistral": Family("Mistral", "llama"),
    "qwen2": Family("Qwen2, Qwen2.5", "qwen2"),
    "qwen3": Family("Qwen3", "qwen3"),
    "gemma": Family("Gemma", "gemma", drop=4),
    "gemma2": Family("Gemma 2", "gemma2", drop=4),
    "gemma3_text": Family("Gemma 3, text", "gemma3", drop=6),
    "phi3": Family("Phi-3", "phi3"),
    "gpt_neox": Family("GPT-NeoX, Pythia", "gptneox"),
    "smollm3": Family("SmolLM3", "smollm3"),
    "olmo2": Family("OLMo 2", "olmo2"),
    "stablelm": Family("StableLM", "stablelm"),
}
"""model_type of a transformers config -> family. Another one is added in docs/how-to/add-a-model.md
's way: mostly a line here."""

HARMLESS = {
    *("architectures", "auto_map", "bos_token_id", "decoder_start_token_id", "dtype"),
    *("eos_token_id", "finetuning_task", "gradient_checkpointing", "hidden_dropout", "id2label"),
    *("initializer_range", "label2id", "mask_token_id", "n_ctx", "name_or_path"),
    *("num_labels", "pad_token_id", "prefix", "problem_type", "quantization_config", "return_dict"),
    *("sep_token_id", "task_specific_params", "tokenizer_class", "torch_dtype", "torchscript"),
    *("transformers_version", "unk_token_id", "use_bfloat16", "use_cache", "_name_or_path"),
    *("_attn_implementation_autoset", "_attn_implementation", "attn_implementation"),
    *("chunk_size_feed_forward", "output_attentions", "output_hidden_states", "_commit_hash"),
    *("summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type"),
    *(
        "summary_use_proj",
        "pretraining_tp",
        "unsloth_fixed",
        "unsloth_version",
        "cache_implementation",
    ),
    *("max_length", "top_k"),
    *("top_p", "temperature", "do_sample", "num_beams", "repetition_penalty", "min_length"),
}
"""Fields that change no logit: who made the model, training, tokens, how to generate."""

_ROTARY = {
    *("rope_type", "type", "rope_theta", "factor", "low_freq_factor", "high_freq_factor"),
    *("original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow"),
    *("short_factor", "long_factor", "short_mscale", "long_mscale", "partial_rotary_factor"),
    *("mscale", "mscale_all_dim", "truncate"),
}
PARTIAL = ("gpt_neox", "phi3", "stablelm")
"""Families in which part of a head may turn."""
_ROTARY_TYPES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


def computing_fields(config: dict[str, Any]) -> dict[str, Any]:
    """The fields of a config that may change what is computed."""
    return {name: value for name, value in config.items() if name not in HARMLESS}


def family_of(config: dict[str, Any], where: str) -> Family:
    """The family of a transformers config; ``where`` names the config in errors.

    Raises
    ------
    DataError
        For another one; the message names it, what is nearest, and what is missing.
    """
    kind = config.get("model_type")
    if kind in FAMILIES:
        return FAMILIES[kind]
    experts = [name for name in _EXPERTS if config.get(name)]
    if experts:
        raise DataError(
            f"{where}: model_type {kind!r} is a mixture of experts ({experts[0]} "
            f"{config[experts[0]]}), which this rf8 does not run: take a dense model"
        )
    known = ", ".join(map(repr, FAMILIES))
    if not isinstance(kind, str):
        raise DataError(f"{where}: model_type is {kind!r}; this rf8 knows {known}")
    hint = ""
    near = difflib.get_close_matches(kind, FAMILIES, n=1)
    if isinstance(config.get("text_config"), dict):
        inner = config["text_config"].get("model_type")
        hint = f"; it is a model of more than text, whose text part is {inner!r}: save that part"
        hint += " alone, with transformers' class for it"
    elif near:
        hint = f"; the nearest is {near[0]!r}"
    raise DataError(
        f"{where}: model_type {kind!r} is not supported{hint}; this rf8 knows {known} "
        "(`rf8 models`; docs/how-to/add-a-model.md)"
    )


def check_config(config: dict[str, Any], where: str) -> None:
    """See that every field of a config is known; ``where`` names it in errors.

    Raises
    ------
    DataError
        For a family or a field that is not.
    """
    from transformers import AutoConfig, PreTrainedConfig

    family_of(config, where)
    experts = [name for name in _EXPERTS if config.get(name)]
    if experts:
        raise DataError(
            f"{where}: {experts[0]} is {config[experts[0]]}: mixtures of experts are not supported"
        )
    kind = type(AutoConfig.for_model(config["model_type"]))
    declared = set(kind().to_dict()) - set(PreTrainedConfig().to_dict())
    declared |= {*kind.attribute_map, "tie_word_embeddings", "head_dim"}
    if "rope_parameters" in declared:
        declared |= {"rope_theta", "rope_scaling", "partial_rotary_factor"}
    for name, value in config.items():
        off = value is None or value is False or value in ([], {}, "")
        if name not in {*HARMLESS, *declared, "model_type"} and not off:
            raise DataError(
                f"{where}: {name} is {value!r}, which transformers' {kind.__name__} does not know: "
                "what is not understood in full is not run; take the field away if it changes "
                "nothing"
            )
    for name in ("rope_parameters", "rope_scaling"):
        _check_rotary(config.get(name), f"{where}: {name}")
    shares = [config, config.get("rope_parameters") or {}, config.get("rope_scaling") or {}]
    share = next((s["partial_rotary_factor"] for s in shares if s.get("partial_rotary_factor")), 1)
    if share != 1 and config["model_type"] not in PARTIAL:
        raise DataError(
            f"{where}: partial_rotary_factor is {share}, which transformers' {kind.__name__} takes "
            f"and does not use; only {', '.join(PARTIAL)} do"
        )


def _check_rotary(found: Any, where: str) -> None:
    if found is None:
        return
    if not isinstance(found, dict):
        raise DataError(f"{where} is {found!r}, must be an object")
    if any(isinstance(value, dict) for value in found.values()):  # one for each kind of layer
        for name, value in found.items():
            _check_rotary(value, f"{where}.{name}")
        return
    kind = found.get("rope_type", found.get("type", "default"))
    if kind not in _ROTARY_TYPES:
        raise DataError(
            f"{where}: rotary positions of type {kind!r} are not supported, only "
            f"{', '.join(_ROTARY_TYPES)}"
        )
    odd = sorted(set(found) - _ROTARY)
    if odd:
        raise DataError(f"{where}.{odd[0]} is {found[odd[0]]!r}, which is not known")
