"""Tensors of a file by the names of a graph: each is used, known, or an error."""

from __future__ import annotations

import os
from collections.abc import Container
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.format import in_span, is_valid
from rf8.checkpoint.model import BIAS_SUFFIX, Float, RF8Tensor
from rf8.checkpoint.weights import known_buffer
from rf8.errors import DataError
from rf8.graph.ir import Graph


def check_memory(graph: Graph, where: str) -> None:
    """Raise DataError where a model does not fit this computer's memory as float32."""
    weights = sum(rows * columns for rows, columns in graph.matrices().values())
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 4 * weights > there:
        raise DataError(
            f"{where}: {weights / 1e9:.1f} G weights take {4 * weights / 1e9:.0f} GB in float32, "
            f"this computer has {there / 1e9:.0f} GB: quantise it on a larger one"
        )


HEADS = ("lm_head.weight", "embed_out.weight")
"""Names of the head's matrix in checkpoints; transformers' modules have the first."""
_PREFIXES = ("transformer.", "model.", "gpt_neox.")
"""What checkpoints of a whole model write before the names of its base model."""


def bare_name(name: str, wanted: Container[str]) -> str:
    """A tensor's name in the graph."""
    name = HEADS[0] if name in HEADS else name
    short = (name.removeprefix(prefix) for prefix in _PREFIXES)
    return next((found for found in (name, *short) if found in wanted), name)


def take_tensors(
    graph: Graph, raw: dict[str, NDArray[Any]], span: int | None, where: str
) -> dict[str, Float | RF8Tensor]:
    """The tensors that a graph names, from those of a file: each of them is used, or known to
    follow from the config.

    ``span``: of an RF8 checkpoint. ``where`` names the file in errors.

    Raises
    ------
    DataError
        Where one is missing, has another shape or type, or is not finite; where one is left.
    """
    matrices, turned = graph.matrices(), graph.turned()
    shapes: dict[str, tuple[int, ...]] = {
        **{name: s[::-1] if name in turned else s for name, s in matrices.items()},
        **{name: (n,) for name, n in graph.vectors().items()},
    }
    coded = {name + BIAS_SUFFIX for name in matrices} if span is not None else set()
    found: dict[str, NDArray[Any]] = {}
    left: list[str] = []
    for key, array in raw.items():
        name = bare_name(key, shapes.keys() | coded)
        if name in found:
            raise DataError(f"{where}: {name} is there twice, once as {key}")
        if name in shapes or name in coded:
            found[name] = array
        elif not known_buffer(key, array):
            left.append(key)
    tensors: dict[str, Float | RF8Tensor] = {}
    for name, shape in shapes.items():
        if name not in found:
            raise DataError(f"{where}: tensor {name} is missing, config.json promises {shape}")
        array = found[name]
        if array.shape != shape:
            raise DataError(f"{where}: {name} has shape {array.shape}, config.json says {shape}")
        array = array.T if name in turned else array
        if span is not None and name in matrices:
            tensors[name] = _rf8_tensor(name, array, found.get(name + BIAS_SUFFIX), span, where)
        else:
            tensors[name] = _float_tensor(name, array, where)
    if left:
        more = f" and {len(left) - 1} more" if left[1:] else ""
        raise DataError(
            f"{where}: tensor {left[0]}{more} is used by nothing that config.json describes: the "
            "config lacks a field, or the file is of another model"
        )
    return tensors


def _float_tensor(name: str, array: NDArray[Any], where: str) -> Float:
    if array.dtype.kind != "f":
        raise DataError(f"{where}: {name} has dtype {array.dtype}, a float is needed")
    broken = int(array.size - np.isfinite(array).sum())
    if broken:
        first = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        raise DataError(f"{where}: {name} has {broken} NaN or Inf of {array.size}, first {first}")
    values = array.astype(np.float32, copy=False)
    return np.ascontiguousarray(values)


def _rf8_tensor(
    name: str, codes: NDArray[Any], bias: NDArray[Any] | None, span: int, where: str
) -> RF8Tensor:
    if bias is None:
        raise DataError(f"{where}: {name}{BIAS_SUFFIX} is missing")
    if codes.dtype != np.uint8:
        raise DataError(f"{where}: {name} has dtype {codes.dtype}, RF8 codes are uint8")
    if bias.dtype != np.int8:
        raise DataError(f"{where}: {name}{BIAS_SUFFIX} has dtype {bias.dtype}, must be int8")
    codes = np.ascontiguousarray(codes)
    if bias.shape != codes.shape[:1]:
        raise DataError(f"{where}: {name}{BIAS_SUFFIX} has shape {bias.shape}")
    invalid = int(codes.size - is_valid(codes).sum())
    if invalid:
        raise DataError(f"{where}: {name} has {invalid} bytes that are no RF8 codes")
    below = int(codes.size - in_span(codes, span).sum())
    if below:
        raise DataError(f"{where}: {name} has {below} codes below its span of {span}")
    return RF8Tensor(codes, bias)
