"""What the integer pipeline costs: perplexity beside float, each approximation also alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from torch import Tensor

from golden.config import AccelConfig
from rf8.checkpoint.huggingface import to_transformers
from rf8.checkpoint.model import Model
from rf8.evaluation.approximate import Part, approximated
from rf8.evaluation.perplexity import Integers, Perplexity, collected, cut, loss, measured
from rf8.evaluation.study import Study, crc32
from rf8.progress import Progress

FLOAT, WEIGHTS = "float32", "RF8 weights, all else float"
INTEGERS = "integer pipeline, {bits}-bit activations"
PARTS: dict[str, tuple[Part, int]] = {
    "only activations of 16 bits": ("activations", 16),
    "only activations of 8 bits": ("activations", 8),
    "only the RF8 KV cache": ("kv", 16),
    "only softmax": ("softmax", 16),
    "only norms and tables": ("norms", 16),
}
"""Name of a row -> the part that is switched on in float, and the bits of activations."""


def measure(
    model: Model,
    original: Model | None,
    ids: Tensor,
    path: Path,
    *,
    window: int,
    windows: int,
    config: AccelConfig,
    progress: Progress = lambda *_: None,
) -> dict[str, Perplexity]:
    """Perplexity by row, on the same windows of ``ids`` [n].

    Parameters
    ----------
    model: in RF8
    original: the same in float32, if there is one
    path: JSON file that keeps each window's loss; a run that was broken off goes on from it
    window, windows: tokens of a window, and how many to use at most
    config: the accelerator; its ``act_bits`` are not looked at, both are measured

    Raises
    ------
    DataError
        Where the text is shorter than a window, the model cannot be compiled, or ``path`` holds
        results of something else.
    """
    parts = cut(ids, window, windows)
    setup = {
        "model": model.name,
        "checksum": model.checksum(),
        "float": None if original is None else original.checksum(),
        "text": crc32(ids),
        "window": window,
        "config": config.as_dict(),
    }

    # Models are made when they are first needed: a run that goes on may not need them.
    weights = cache(lambda: to_transformers(model))

    @cache
    def integers(bits: int) -> Integers:
        return Integers(model, config.replace(act_bits=bits))

    def whole(bits: int, tokens: Tensor) -> dict[str, Any]:
        return measured(integers(bits), tokens)

    def part_alone(part: Part, bits: int, tokens: Tensor) -> dict[str, Any]:
        with approximated(weights(), model.graph, {part}, bits, config.span):
            return {"loss": loss(weights(), tokens)}

    rows: dict[str, Callable[[Tensor], dict[str, Any]]] = {}
    if original is not None:
        reference = cache(partial(to_transformers, original))
        rows[FLOAT] = lambda tokens: {"loss": loss(reference(), tokens)}
    rows[WEIGHTS] = lambda tokens: {"loss": loss(weights(), tokens)}
    for bits in (16, 8):
        rows[INTEGERS.format(bits=bits)] = partial(whole, bits)
    for name, (part, bits) in PARTS.items():
        rows[name] = partial(part_alone, part, bits)

    study = Study(path, setup)
    keys = {name: [f"{name}, window {n}" for n in range(len(parts))] for name in rows}
    study.measure(
        {
            key: partial(rows[name], tokens)
            for name in rows
            for key, tokens in zip(keys[name], parts, strict=True)
        },
        progress,
    )
    return {name: collected([study.runs[key] for key in keys[name]], window) for name in rows}
