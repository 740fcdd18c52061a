"""What number formats cost a model: perplexity, weights alone, everything else in float32."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import rf8
from rf8.checkpoint.huggingface import to_transformers
from rf8.checkpoint.model import Float, Model, RF8Tensor
from rf8.errors import DataError
from rf8.evaluation.perplexity import Perplexity, perplexity
from rf8.evaluation.study import Study, crc32
from rf8.experiments.study import SEEDS, figure, save_figure, spread
from rf8.progress import Progress
from rf8.quantize.calibrated import WINDOW, quantize_compensated
from rf8.quantize.formats import FORMATS
from rf8.quantize.rounding import quantize

RF8_TITLES = {
    "rf8-nearest": "RF8, nearest",
    "rf8-paper": "RF8, rounding of the paper",
    "rf8-compensated": "RF8, compensated",
}
NAMES = ("float32", *FORMATS, *RF8_TITLES)
RUNS = {n: [f"{n}/{s}" for s in SEEDS] if n == "rf8-compensated" else [n] for n in NAMES}
"""Runs of a format: three where something is random."""


def run(
    model: Model,
    text: Tensor,
    calibration: Tensor,
    folder: Path,
    *,
    windows: int = 8,
    progress: Progress = lambda *_: None,
) -> Study:
    """Measure every format and write ``formats-NAME.json``, ``.png`` and ``.md`` into ``folder``.

    Parameters
    ----------
    model
        A float model.
    text, calibration
        Token ids, int64 [n]: what perplexity is measured on, and what compensated rounding sees. It
        has three seeds, each of which cuts the calibration text into windows at another place.
    windows
        Windows of 1,024 tokens, or the model's context where that is shorter, to measure on at
        most; as many as the text has.

    A run that was cut off goes on with the formats that are not in the JSON file yet.

    Raises
    ------
    DataError
        For an RF8 model, too little text, or results of another run in ``folder``.
    """
    if model.span is not None:
        raise DataError(f"{model.name} is RF8: the comparison needs the float model")
    window = min(WINDOW, model.context)
    windows = min(windows, len(text) // window)
    setup = {
        "model": model.name,
        "window": window,
        "windows": windows,
        "weights_crc32": model.checksum(),
        "text_crc32": crc32(text),
        "calibration_crc32": crc32(calibration),
        "calibration_tokens": len(calibration) // window * window,
        "seeds": SEEDS,
    }
    study = Study(folder / f"formats-{model.name}.json", setup)

    def one(name: str, seed: int) -> dict[str, Any]:
        state = folder / f".{model.name}.partial"
        offset = seed * window // len(SEEDS)
        values, about = _values(model, name, torch.roll(calibration, -offset), state)
        found = perplexity(to_transformers(values), text, window, limit=windows)
        shutil.rmtree(state, ignore_errors=True)
        return about | {"losses": found.losses}

    study.measure(
        {key: partial(one, n, seed) for n in NAMES for seed, key in enumerate(RUNS[n])}, progress
    )
    study.publish(_page(study), lambda path: _plot(study, path))
    return study


def _values(
    model: Model, name: str, calibration: Tensor, state: Path
) -> tuple[Model, dict[str, Any]]:
    """The model with the values its weights take in a format, and bits and SQNR of it."""
    matrices = model.graph.matrices()
    weights = sum(rows * columns for rows, columns in matrices.values())
    rows = sum(rows for rows, _ in matrices.values())
    if name == "float32":
        return model, {"bits": 32.0, "sqnr_db": None}
    if name in FORMATS:
        kind = FORMATS[name]
        tensors: dict[str, Float | RF8Tensor] = {}
        for tensor, exact in _floats(model).items():
            coded = kind.values(torch.from_numpy(exact)).numpy() if tensor in matrices else exact
            tensors[tensor] = coded
        scales = rows if kind.group is None else weights / kind.group
        bits = kind.bits + kind.scale_bits * scales / weights
        result = replace(model, tensors=tensors)
    else:
        method = name.removeprefix("rf8-")
        if method == "compensated":
            result, _ = quantize_compensated(model, calibration, state=state)
        else:
            result = quantize(model, rounding="paper" if method == "paper" else "nearest_even")
        bits = 8 + 8 * rows / weights
    return result, {"bits": bits, "sqnr_db": _sqnr(model, result)}


def _floats(model: Model) -> dict[str, Float]:
    return {name: model.float_tensor(name) for name in model.tensors}


def _sqnr(model: Model, coded: Model) -> float:
    """Mean over the matrices of signal to quantisation noise, in dB."""
    return float(np.mean([rf8.sqnr_db(model, coded, n) for n in model.matrices()]))


def summary(study: Study) -> dict[str, dict[str, Any]]:
    """Figures of each format, best first: ``bits``, ``sqnr_db``, ``perplexity``, its ``ratio`` to
    float32 with the standard error over windows ``ratio_se``, and ``seed_sd``, the standard
    deviation of the ratio over ``seeds`` runs, or None. Seeds are averaged in every window."""
    window = study.setup["window"]
    base = Perplexity(tuple(study.runs["float32"]["losses"]), window)
    found: dict[str, dict[str, Any]] = {}
    for name, keys in RUNS.items():
        entries = [study.runs[key] for key in keys if key in study.runs]
        losses = np.mean([entry["losses"] for entry in entries], axis=0)
        mean = Perplexity(tuple(map(float, losses)), window)
        ratio, error = mean.ratio(base)
        alone = [Perplexity(tuple(e["losses"]), window).ratio(base)[0] for e in entries]
        found[name] = {
            "bits": entries[0]["bits"],
            "sqnr_db": entries[0]["sqnr_db"],
            "perplexity": mean.value,
            "ratio": ratio,
            "ratio_se": error,
            "seeds": len(alone),
            "seed_sd": spread(alone).deviation if len(alone) > 1 else None,
        }
    return dict(sorted(found.items(), key=lambda item: item[1]["perplexity"]))


def _title(name: str) -> str:
    return FORMATS[name].title if name in FORMATS else RF8_TITLES.get(name, name)


def _page(study: Study) -> str:
    setup, found = study.setup, summary(study)
    tokens = setup["windows"] * (setup["window"] - 1)
    cuts, deviation = (found["rf8-compensated"][k] for k in ("seeds", "seed_sd"))
    random = (
        "one cut of it here"
        if deviation is None
        else (f"{cuts} cuts, averaged; their ratios have a standard deviation of {deviation:.2%}")
    )
    lines = [
        f"# What number formats cost {setup['model']}",
        "",
        "Weights alone: every matrix (linear layers, embeddings, head) takes the values of a format, all else stays float32. Scales are one a row unless said otherwise; compensated rounding saw "
        f"{setup['calibration_tokens']:,} tokens of other text. Perplexity over {tokens:,} tokens in {setup['windows']} windows of {setup['window']}; ± is the standard error, over the windows, of the difference to float32.",
        "",
        f"Only compensated rounding has something random to it, how its text is cut into windows: {random}. Only RF8 is compensated: the other formats are rounded to nearest, and compensation would help them too.",
        "",
        f"![Increase of perplexity by format](formats-{setup['model']}.png)",
        "",
        "| format | bits a weight | SQNR, dB | perplexity | over float32 |",
        "|---|---|---|---|---|",
    ]
    for name, entry in found.items():
        noise = "" if entry["sqnr_db"] is None else f"{entry['sqnr_db']:.1f}"
        change = f"{(entry['ratio'] - 1) * 100:+.2f} ± {entry['ratio_se'] * 100:.2f} %"
        lines.append(
            f"| {_title(name)} | {entry['bits']:.2f} | {noise} | {entry['perplexity']:.2f} | "
            f"{change if name != 'float32' else ''} |"
        )
    return "\n".join(lines) + "\n"


def _plot(study: Study, path: Path) -> None:
    shown = [(n, e) for n, e in reversed(summary(study).items()) if n != "float32"]
    made, axes = figure(height=0.4 * len(shown) + 1.2, width=7)
    change = [(e["ratio"] - 1) * 100 for _, e in shown]
    colours = ["#c2410c" if n.startswith("rf8") else "#64748b" for n, _ in shown]
    axes.barh([_title(n) for n, _ in shown], np.maximum(change, 1e-2), color=colours)
    for row, (value, (_, entry)) in enumerate(zip(change, shown, strict=True)):
        label = f" {value:+.2f} ± {entry['ratio_se'] * 100:.2f} %"
        axes.text(max(value, 1e-2), row, label, va="center", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(1e-2, max(change) * 20)
    axes.set_xlabel(f"perplexity over float32, per cent ({study.setup['model']})")
    save_figure(made, path)
