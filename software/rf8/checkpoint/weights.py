"""Reads the weight files of a folder in Hugging Face layout: every tensor, none by half.

Float16, bfloat16 and float8 become float32; float8 takes the scales that lie beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rf8.checkpoint.model import read_json
from rf8.errors import DataError

if TYPE_CHECKING:  # importing it takes seconds; to say that a file is missing needs none
    from torch import Tensor

_SCALES = ("_scale", "_scale_inv")
"""What follows the name of a float8 weight in that of its scales; both are factors."""
_UNUSED_SCALES = (".input_scale", ".output_scale", ".activation_scale", ".k_scale", ".v_scale")
"""Scales of activations, which stay as wide as they are here."""
_LFS = b"version https://git-lfs"


def read_weights(folder: Path, config: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """All tensors of a checkpoint by the names in its files; floats as float32.

    ``config``: its config.json, of which ``quantization_config`` is looked at for float8.

    Raises
    ------
    DataError
        Where a file is missing, broken, or not what its index says; where float8 weights have no
        scales though the config says that they are quantised.
    """
    tensors: dict[str, Tensor] = {}
    for path, wanted in _files(folder):
        found = _read(path)
        missing = sorted((wanted or found.keys()) - found.keys())
        if missing:
            raise DataError(f"{path}: tensor {missing[0]} is missing, which the index promises")
        for name, tensor in found.items():
            if wanted is not None and name not in wanted:
                raise DataError(f"{path}: tensor {name} is not in the index")
            if name in tensors:
                raise DataError(f"{path}: tensor {name} is in another file, too")
            tensors[name] = tensor
    quantised = config.get("quantization_config") or {}
    scaled = _without_scales(tensors, quantised, folder)
    return {name: _array(tensor) for name, tensor in scaled.items()}


def _array(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return array


def _files(folder: Path) -> Iterator[tuple[Path, set[str] | None]]:
    """The weight files of a folder, each with the names its index promises, if there is one."""
    if (folder / "adapter_config.json").exists():
        raise DataError(f"{folder} holds a PEFT adapter: merge it into the model, and save that")
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        index, single = folder / f"{stem}.{suffix}.index.json", folder / f"{stem}.{suffix}"
        if index.exists() and single.exists():
            raise DataError(f"{folder} has {single.name} and {index.name}: take one of them away")
        if index.exists():
            places = read_json(index).get("weight_map")
            if not isinstance(places, dict):
                raise DataError(f"{index} has no weight_map")
            for shard in sorted(set(map(str, places.values()))):
                names = {name for name, place in places.items() if place == shard}
                if not (folder / shard).exists():
                    raise DataError(f"{folder / shard} is missing, which {index.name} promises")
                yield folder / shard, names
            return
        if single.exists():
            yield single, None
            return
    shards = sorted(folder.glob("*-of-*.safetensors")) + sorted(folder.glob("*-of-*.bin"))
    if shards:
        raise DataError(
            f"{folder} has {shards[0].name} but no index (model.safetensors.index.json)"
        )
    raise DataError(f"{folder / 'model.safetensors'} is missing: there are no weights")


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    with path.open("rb") as file:
        if file.read(len(_LFS)) == _LFS:
            raise DataError(f"{path} is a Git LFS pointer, not the file: run `git lfs pull` there")
    if path.suffix == ".bin":
        return _read_bin(path)
    try:
        # Through torch: NumPy has no bfloat16.
        with safe_open(path, framework="pt") as handle:
            return {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is broken or truncated: {error}") from error


def _read_bin(path: Path) -> dict[str, Tensor]:
    try:
        import torch

        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of pickle, zipfile and torch, of many kinds
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"{path} cannot be read as weights alone ({reason[0]}): save it with safetensors"
        ) from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds a {type(found).__name__}, no tensors by name")
    for name, value in found.items():
        if not isinstance(value, torch.Tensor):
            raise DataError(f"{path}: {name} is no tensor but a {type(value).__name__}")
    return found


def _without_scales(
    tensors: dict[str, Tensor], quantised: dict[str, Any], folder: Path
) -> dict[str, Tensor]:
    """Float8 weights times their scales, which are left out."""
    left = {n: t for n, t in tensors.items() if not n.endswith(_UNUSED_SCALES)}
    said = quantised.get("weight_block_size")
    blocks = [said] if said else [[n, n] for n in (128, 64, 32, 16)]
    for name, tensor in tensors.items():
        if "float8" not in str(tensor.dtype):
            continue
        scales = [name + suffix for suffix in _SCALES if name + suffix in tensors]
        if len(scales) > 1 or (quantised and not scales):
            found = " and ".join(scales) or f"no {name}{_SCALES[0]}"
            raise DataError(f"{folder}: {name} is {tensor.dtype} with {found}: one is needed")
        for scale in scales:
            values, factor = tensor.float(), left.pop(scale).float()
            left[name] = _scaled(values, factor, blocks, f"{folder}: {scale}")
    return left


def _scaled(values: Tensor, scale: Tensor, blocks: list[list[int]], where: str) -> Tensor:
    """``values`` [out, in] times one scale for all, for each row, or for each block of one of the
    sizes ``blocks``."""
    if scale.numel() == 1:
        return values * scale.reshape(())
    rows = values.shape[0]
    if values.dim() == 2 and scale.numel() == rows and scale.shape[0] == rows:
        return values * scale.reshape(rows, 1)
    if values.dim() == 2 and scale.dim() == 2:
        # Blocks of equal size, the last ones cut off.
        for block in blocks:
            if scale.shape == tuple(-(-n // b) for n, b in zip(values.shape, block, strict=True)):
                wide = scale.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
                return values * wide[:rows, : values.shape[1]]
    raise DataError(f"{where} has shape {tuple(scale.shape)}, which fits no {tuple(values.shape)}")


def known_buffer(name: str, array: NDArray[Any]) -> bool:
    """Whether a tensor is one that old checkpoints hold though it follows from the config:
    rotary frequencies, and masks of causal attention."""
    if name.endswith(("rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached")):
        return True
    if name.endswith((".masked_bias", ".rotary_emb.original_inv_freq")):
        return array.size == 1 or name.endswith("inv_freq")
    mask = array.ndim == 4 and array.shape[:2] == (1, 1) and array.shape[2] == array.shape[3]
    if name.endswith((".attn.bias", ".attention.bias")) and mask:
        return bool(np.array_equal(array[0, 0] != 0, np.tri(len(array[0, 0]), dtype=bool)))
    return False
