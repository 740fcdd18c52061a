"""Models as transformers modules."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rf8.checkpoint.families import check_config, computing_fields, family_of
from rf8.checkpoint.model import Float, Model
from rf8.errors import DataError
from rf8.files import replaced_file
from rf8.graph.ir import Graph
from rf8.graph.passes import lift_embeddings, scale_stream
from rf8.graph.trace import export_graph
from sim.cache import cache_dir


def skeleton(config: dict[str, Any], where: str) -> nn.Module:
    """The transformers module of a config, in eval mode, whose weights take no memory: each is a
    single number, shown in its shape. Buffers are as they should be.

    Raises
    ------
    DataError
        For a config that is not understood in full, or that transformers refuses.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils.logging import set_verbosity_error

    set_verbosity_error()  # what it warns of is checked here, or an error
    check_config(config, where)
    left = ("quantization_config", "dtype", "torch_dtype", "model_type", "_attn_implementation")
    plain = {k: v for k, v in config.items() if k not in left}
    try:
        with torch.device("meta"):
            made = AutoConfig.for_model(config["model_type"], **plain)
            module: nn.Module = AutoModelForCausalLM.from_config(made)
    except Exception as error:  # transformers checks its configs in many ways
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{where}: transformers refuses it: {reason}") from error
    one = {name: torch.zeros(()).expand(p.shape) for name, p in module.named_parameters()}
    module.load_state_dict(one, strict=False, assign=True)
    module.tie_weights()  # type: ignore[operator]
    _fill_buffers(module)
    return module.eval()


def graph_of(config: dict[str, Any], where: str) -> Graph:
    """What a model of a config computes, kept in the cache; errors as of `skeleton` and
    `export_graph`."""
    from transformers import __version__

    digest = hashlib.sha256(f"{__version__} {torch.__version__}".encode())
    digest.update(json.dumps(computing_fields(config), sort_keys=True).encode())
    here = Path(__file__).parent
    for source in sorted([*(here.parent / "graph").glob("*.py"), *here.glob("*.py")]):
        digest.update(source.read_bytes())
    kept = cache_dir() / "graphs" / f"{digest.hexdigest()[:32]}.json"
    with suppress(OSError, ValueError):
        return Graph.from_json(kept.read_text())
    graph = model_graph(skeleton(config, where), config, where)
    with suppress(DataError), replaced_file(kept) as temporary:  # a cache may be read-only
        temporary.write_text(graph.to_json())
    return graph


def model_graph(module: nn.Module, config: dict[str, Any], where: str) -> Graph:
    """The graph of a transformers module, its residual stream in the range of its family."""
    graph = lift_embeddings(export_graph(module, where))
    return scale_stream(graph, family_of(config, where).drop, where)


def to_transformers(model: Model, *, copy: bool = False) -> nn.Module:
    """The same model in transformers, in eval mode; RF8 codes become their values.

    Float tensors share their memory with ``model``, so that a large model is held once; copy: a
    module of its own, to be trained.
    """
    module = skeleton(model.config, model.name)
    prefix, turned = f"{module.base_model_prefix}.", model.graph.turned()
    names = {name.removeprefix(prefix): name for name in module.state_dict()}
    state = {}
    for name in model.tensors:
        values = torch.from_numpy(model.float_tensor(name))
        values = values.T if name in turned else values
        state[names.get(name, name)] = values.clone() if copy else values
    missing, unexpected = module.load_state_dict(state, strict=False, assign=True)
    module.tie_weights()  # type: ignore[operator]
    tied = {id(p): name for name, p in module.named_parameters()}
    held = {name: id(p) for name, p in module.named_parameters(remove_duplicate=False)}
    lost = [name for name in missing if name in held and tied[held[name]] not in state]
    if unexpected or lost:
        raise DataError(f"{model.name}: transformers has other tensors: {lost} {unexpected}")
    return module.eval()


def from_transformers(module: nn.Module, name: str) -> Model:
    """A causal language model of transformers as a float model, without a tokenizer.

    Float32 weights share their memory with the module where their layout is the same.
    Raises DataError for another architecture.
    """
    config = plain_config(module.config.to_dict())  # type: ignore[operator,union-attr]
    check_config(config, name)
    graph = model_graph(module, config, name)
    prefix, turned = f"{module.base_model_prefix}.", graph.turned()
    state = {k.removeprefix(prefix): v for k, v in module.state_dict().items()}
    tensors: dict[str, Float] = {}
    for key in [*graph.matrices(), *graph.vectors()]:
        values = state[key].detach().float().cpu().numpy()
        tensors[key] = np.ascontiguousarray(values.T if key in turned else values)
    return Model(graph, config, dict(tensors), name)


def plain_config(config: dict[str, Any]) -> dict[str, Any]:
    """A transformers config as JSON holds it."""
    kept = {k: v for k, v in config.items() if k not in ("quantization_config", "dtype")}
    plain: dict[str, Any] = json.loads(json.dumps(kept, default=str))
    return plain


def _fill_buffers(module: nn.Module) -> None:
    """Make the buffers that no checkpoint holds: rotary frequencies, factors of embeddings."""
    for part in module.modules():
        lost = [name for name, b in part.named_buffers(recurse=False) if b.is_meta]
        if not lost:
            continue
        if hasattr(part, "scalar_embed_scale"):
            part.register_buffer("embed_scale", torch.tensor(part.scalar_embed_scale), False)
            continue
        fresh = type(part)(config=part.config)
        for name in lost:
            part.register_buffer(name, getattr(fresh, name), persistent=False)
