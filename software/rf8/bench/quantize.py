"""Benchmark of compensated rounding."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch

import rf8
from rf8.bench.figure import Figure, peak_bytes
from rf8.quantize.calibrated import quantize_compensated
from rf8.train.data import shakespeare

TOKENS = 17 * 1024


def bench_compensated() -> Iterator[Figure]:
    """SmolLM2-135M, calibrated on 17 windows of 1,024 tokens. The text does not change the time."""
    model = rf8.load_model("smollm2-135m")
    text = "".join(document.text for document in shakespeare(Path("build/data")))
    tokens = model.tokenizer().encode(text[: 8 * TOKENS], add_special_tokens=False).ids
    started = time.perf_counter()
    quantize_compensated(model, torch.tensor(tokens[:TOKENS]))
    seconds = time.perf_counter() - started
    yield Figure("compensated rounding, SmolLM2-135M", seconds / 60, "min", 15, "lower")
    yield Figure("... peak memory", peak_bytes() / 1e9, "GB", 6, "lower")
