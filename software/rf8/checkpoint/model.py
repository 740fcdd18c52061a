"""Models: what a checkpoint holds, checked against what its config promises."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.format import SPANS, decode
from rf8.checkpoint.families import computing_fields
from rf8.checkpoint.tokenizer import TOKENIZER_FILES, make_tokenizer
from rf8.errors import DataError
from rf8.files import replaced_folder
from rf8.graph.ir import Graph

Float = NDArray[np.float32]


BIAS_SUFFIX = ".rf8_bias"
"""A tensor NAME of RF8 codes has its row biases in NAME + this."""

FORMAT_VERSION = 1

FLOAT8_METHODS = ("fp8", "fbgemm_fp8", "compressed-tensors")
"""Of other quantisations, those whose weights may be float8 beside scales."""

GRAPH_FILE = "graph.json"
"""What an RF8 checkpoint computes (`Graph.to_json`), so that it runs without transformers."""


@dataclass(frozen=True)
class RF8Tensor:
    """A weight matrix in RF8: ``codes`` [out, in] uint8, ``bias`` [out] int8 row biases."""

    codes: NDArray[np.uint8]
    bias: NDArray[np.int8]

    def decode(self) -> Float:
        """The values, [out, in]."""
        values: Float = decode(self.codes, self.bias[:, None])
        return values


@dataclass
class Model:
    """A model in memory, float or RF8.

    ``graph``: what it computes. ``tensors``: those that the graph names, without the prefix of the
    base model (``transformer.``, ``model.``). Matrices are [out, in], also those that a checkpoint
    stores transposed; a float array, or `RF8Tensor`. ``span``, ``method`` (how it was quantised):
    of an RF8 model, else None. ``notes``: what a user should know of how it was read.
    """

    graph: Graph
    config: dict[str, Any]
    tensors: dict[str, Float | RF8Tensor]
    name: str
    span: int | None = None
    method: str | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    """Tokenizer files that travel with the model: name -> content."""
    notes: tuple[str, ...] = ()

    @property
    def context(self) -> int:
        """Positions that it is made for."""
        return self.graph.context

    @property
    def vocab(self) -> int:
        """Tokens that it knows."""
        return self.graph.vocab

    def matrices(self) -> list[str]:
        """Names of the tensors that RF8 quantises: linear layers, embeddings, head."""
        known = self.graph.matrices()
        return [name for name in self.tensors if name in known]

    def tokenizer(self) -> Any:
        """The tokenizer (`tokenizers.Tokenizer`), or None if the model has none."""
        return make_tokenizer(self.files)

    def float_tensor(self, name: str) -> Float:
        """A tensor's values, decoded if need be; matrices [out, in]."""
        tensor = self.tensors[name]
        return tensor.decode() if isinstance(tensor, RF8Tensor) else tensor

    def checksum(self) -> int:
        """CRC-32 of all tensors and their names: what a run must share with one it goes on from."""
        found = 0
        for name in sorted(self.tensors):
            values = self.float_tensor(name)
            flat = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
            found = zlib.crc32(flat, zlib.crc32(name.encode(), found))
        return found

    def save(self, folder: str | Path) -> None:
        """Write a directory in Hugging Face layout; it appears whole or not at all.

        A directory that is there is replaced only if it is empty or an RF8 checkpoint.
        Codes keep the checkpoint's own orientation; ``NAME.rf8_bias`` holds the row biases.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        tensors: dict[str, NDArray[Any]] = {}
        turned = self.graph.turned()
        for name, tensor in self.tensors.items():
            values = tensor.codes if isinstance(tensor, RF8Tensor) else tensor
            tensors[name] = np.ascontiguousarray(values.T if name in turned else values)
            if isinstance(tensor, RF8Tensor):
                tensors[name + BIAS_SUFFIX] = tensor.bias
        config = dict(self.config)
        config.pop("quantization_config", None)
        if self.span is not None:
            config["quantization_config"] = {
                "quant_method": "rf8",
                "version": FORMAT_VERSION,
                "method": self.method,
                "span": self.span,
            }
        with replaced_folder(Path(folder), _is_rf8_checkpoint) as target:
            try:
                save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
            except SafetensorError as error:
                raise DataError(f"cannot write {folder}: {error}") from error
            (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
            if self.span is not None:
                (target / GRAPH_FILE).write_text(graph_text(self.graph, config))
            for name, content in self.files.items():
                (target / name).write_bytes(content)


def _is_rf8_checkpoint(folder: Path) -> bool:
    """Whether a directory holds what `Model.save` writes for an RF8 model, and nothing else."""
    ours = {"config.json", "model.safetensors", GRAPH_FILE, *TOKENIZER_FILES}
    if not {entry.name for entry in folder.iterdir()} <= ours:
        return False
    try:
        return quantization(read_json(folder / "config.json"), folder)[0] is not None
    except DataError:
        return False


def graph_text(graph: Graph, config: dict[str, Any]) -> str:
    """Content of `GRAPH_FILE`: the graph, and a checksum of what it was made from."""
    return json.dumps({"config": _computing(config), "graph": json.loads(graph.to_json())})


def read_graph(folder: Path, config: dict[str, Any]) -> Graph | None:
    """The graph in a folder; None where there is none, or its config has changed since."""
    path = folder / GRAPH_FILE
    if not path.exists():
        return None
    found = read_json(path)
    if found.get("config") != _computing(config):
        return None
    try:
        return Graph.from_json(json.dumps(found.get("graph")))
    except ValueError as error:
        raise DataError(f"{path} is broken ({error}): delete it") from error


def _computing(config: dict[str, Any]) -> int:
    """CRC-32 of the fields of a config that may change what is computed."""
    return zlib.crc32(json.dumps(computing_fields(config), sort_keys=True).encode())


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{path} is missing: not a model in Hugging Face layout") from None
    except (ValueError, OSError) as error:
        raise DataError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no JSON object")
    return content


def quantization(config: dict[str, Any], folder: Path) -> tuple[int | None, str | None]:
    info = config.get("quantization_config")
    if info is None:
        return None, None
    if isinstance(info, dict) and info.get("quant_method") in FLOAT8_METHODS:
        return None, None  # the weights are read with their scales
    if not isinstance(info, dict) or info.get("quant_method") != "rf8":
        method = info.get("quant_method") if isinstance(info, dict) else info
        raise DataError(f"{folder}: quantised as {method!r}; give a float or an RF8 checkpoint")
    if info.get("version") != FORMAT_VERSION:
        raise DataError(
            f"{folder}: RF8 checkpoint of version {info.get('version')}, this rf8 reads "
            f"{FORMAT_VERSION}: quantise the float checkpoint again"
        )
    span = info.get("span")
    if span not in SPANS:
        raise DataError(f"{folder}: span is {span!r}, must be one of {', '.join(map(str, SPANS))}")
    return span, str(info.get("method"))
