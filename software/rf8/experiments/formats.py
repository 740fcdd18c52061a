"""What number formats cost a model: perplexity, weights alone, everything else in float32."""

from __future__ import annotations

import json
import platform
import shutil
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import rf8
from rf8.architecture import is_matrix
from rf8.errors import DataError
from rf8.evaluate import Perplexity, perplexity
from rf8.files import replaced_file
from rf8.hf import to_transformers
from rf8.model import Float, Model, RF8Tensor
from rf8.quantize.calibrated import WINDOW, quantize_compensated
from rf8.quantize.formats import FORMATS

Report = Callable[[str, int, int], None]

RF8_TITLES = {
    "rf8-compensated": "RF8, compensated",
    "rf8-nearest": "RF8, nearest",
    "rf8-paper": "RF8, rounding of the paper",
}
NAMES = ("float32", *FORMATS, "rf8-nearest", "rf8-paper", "rf8-compensated")


def run(
    model: Model,
    text: Tensor,
    calibration: Tensor,
    folder: Path,
    *,
    windows: int = 8,
    progress: Report = lambda *_: None,
) -> dict[str, Any]:
    """Measure every format and write ``formats-NAME.json``, ``.png`` and ``.md`` into ``folder``.

    Parameters
    ----------
    model
        A float model.
    text, calibration
        Token ids, int64 [n]: what perplexity is measured on, and what compensated rounding sees.
    windows
        Windows of 1,024 tokens, or the model's context where that is shorter, to measure on.

    A run that was cut off goes on with the formats that are not in the JSON file yet.

    Raises
    ------
    DataError
        For an RF8 model, too little text, or results of another run in ``folder``.
    """
    if model.span is not None:
        raise DataError(f"{model.name} is RF8: the comparison needs the float model")
    window = min(WINDOW, model.spec.context)
    path = folder / f"formats-{model.name}.json"
    setup: dict[str, Any] = {
        "model": model.name,
        "window": window,
        "windows": windows,
        "text_crc32": zlib.crc32(text.numpy().tobytes()),
        "calibration_crc32": zlib.crc32(calibration.numpy().tobytes()),
        "calibration_tokens": len(calibration) // window * window,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    results = _resumed(path, setup)
    for number, name in enumerate(NAMES):
        progress(name, number, len(NAMES))
        if name in results["formats"]:
            continue
        state = folder / f".{model.name}.partial"
        values, about = _values(model, name, calibration, state)
        found = perplexity(to_transformers(values), text, window, limit=windows)
        results["formats"][name] = about | {"losses": found.losses}
        with replaced_file(path) as temporary:
            temporary.write_text(json.dumps(results, indent=1) + "\n")
        shutil.rmtree(state, ignore_errors=True)
    _summarise(results)
    with replaced_file(path) as temporary:
        temporary.write_text(json.dumps(results, indent=1) + "\n")
    picture = folder / f"formats-{model.name}.png"
    with replaced_file(picture) as temporary:
        _plot(results, temporary)
    with replaced_file(picture.with_suffix(".md")) as temporary:
        temporary.write_text(_page(results, picture.name))
    return results


def _resumed(path: Path, setup: dict[str, Any]) -> dict[str, Any]:
    if not path.exists():
        return {"setup": setup, "formats": {}}
    try:
        results: dict[str, Any] = json.loads(path.read_text())
        changed = [k for k, v in setup.items() if results["setup"].get(k) != v]
    except (ValueError, KeyError) as error:
        raise DataError(f"{path} holds no results ({error}): delete it") from error
    if changed:
        raise DataError(f"{path} holds a run with another {', '.join(changed)}: delete it")
    return results


def _values(
    model: Model, name: str, calibration: Tensor, state: Path
) -> tuple[Model, dict[str, Any]]:
    """The model with the values its weights take in a format, and bits and SQNR of it."""
    weights = sum(t.size for n, t in _floats(model).items() if is_matrix(n))
    rows = sum(t.shape[0] for n, t in _floats(model).items() if is_matrix(n))
    if name == "float32":
        return model, {"bits": 32.0, "sqnr_db": None}
    if name in FORMATS:
        kind = FORMATS[name]
        tensors: dict[str, Float | RF8Tensor] = {}
        for tensor, exact in _floats(model).items():
            coded = kind.values(torch.from_numpy(exact)).numpy() if is_matrix(tensor) else exact
            tensors[tensor] = coded
        scales = rows if kind.group is None else weights / kind.group
        bits = kind.bits + kind.scale_bits * scales / weights
        result = replace(model, tensors=tensors)
    else:
        method = name.removeprefix("rf8-")
        if method == "compensated":
            result, _ = quantize_compensated(model, calibration, state=state)
        else:
            result = rf8.quantize(model, rounding="paper" if method == "paper" else "nearest_even")
        bits = 8 + 8 * rows / weights
    return result, {"bits": bits, "sqnr_db": _sqnr(model, result)}


def _floats(model: Model) -> dict[str, Float]:
    return {name: model.float_tensor(name) for name in model.tensors}


def _sqnr(model: Model, coded: Model) -> float:
    """Mean over the matrices of signal to quantisation noise, in dB."""
    return float(np.mean([rf8.sqnr_db(model, coded, n) for n in model.tensors if is_matrix(n)]))


def _summarise(results: dict[str, Any]) -> None:
    """Add perplexity and its ratio to float32, with the standard error over windows."""
    window = results["setup"]["window"]
    base = Perplexity(tuple(results["formats"]["float32"]["losses"]), window)
    for entry in results["formats"].values():
        found = Perplexity(tuple(entry["losses"]), window)
        ratio, error = found.ratio(base)
        entry |= {"perplexity": found.value, "ratio": ratio, "ratio_se": error}


def _title(name: str) -> str:
    return FORMATS[name].title if name in FORMATS else RF8_TITLES.get(name, name)


def _ordered(results: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return sorted(results["formats"].items(), key=lambda item: item[1]["perplexity"])


def _page(results: dict[str, Any], picture: str) -> str:
    setup = results["setup"]
    tokens = setup["windows"] * (setup["window"] - 1)
    lines = [
        f"# What number formats cost {setup['model']}",
        "",
        "Weights alone: every matrix (linear layers, embeddings, head) takes the values of a "
        "format, all else stays float32. Scales are one a row unless said otherwise; compensated "
        f"rounding saw {setup['calibration_tokens']:,} tokens of other text. Perplexity over "
        f"{tokens:,} tokens in {setup['windows']} windows of {setup['window']}. Nothing here is "
        "random; the error is the standard error, over the windows, of the difference to float32. "
        "Only RF8 is compensated: the other formats are rounded to nearest, and compensation would "
        "help them too.",
        "",
        f"![Increase of perplexity by format]({picture})",
        "",
        "| format | bits a weight | SQNR, dB | perplexity | over float32 |",
        "|---|---|---|---|---|",
    ]
    for name, entry in _ordered(results):
        noise = "" if entry["sqnr_db"] is None else f"{entry['sqnr_db']:.1f}"
        change = f"{(entry['ratio'] - 1) * 100:+.2f} ± {entry['ratio_se'] * 100:.2f} %"
        lines.append(
            f"| {_title(name)} | {entry['bits']:.2f} | {noise} | {entry['perplexity']:.2f} | "
            f"{change if name != 'float32' else ''} |"
        )
    return "\n".join(lines) + "\n"


def _plot(results: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [(n, e) for n, e in reversed(_ordered(results)) if n != "float32"]
    figure, axes = pyplot.subplots(figsize=(7, 0.4 * len(shown) + 1.2), layout="constrained")
    change = [(e["ratio"] - 1) * 100 for _, e in shown]
    colours = ["#c2410c" if n.startswith("rf8") else "#64748b" for n, _ in shown]
    axes.barh([_title(n) for n, _ in shown], np.maximum(change, 1e-2), color=colours)
    for row, (value, (_, entry)) in enumerate(zip(change, shown, strict=True)):
        label = f" {value:+.2f} ± {entry['ratio_se'] * 100:.2f} %"
        axes.text(max(value, 1e-2), row, label, va="center", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(1e-2, max(change) * 20)
    axes.set_xlabel(f"perplexity over float32, per cent ({results['setup']['model']})")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="png", dpi=150)
    pyplot.close(figure)
