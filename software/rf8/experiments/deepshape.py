"""What does DeepShape gain? ``rf8 experiment deepshape``.

A model's weights go to multiples of a step, plainly or through DeepShape to generalized Gaussians
of a smaller shape, and bits a weight stand beside perplexity, before and after a short recovery.
The plain grid at a larger step is what DeepShape has to beat.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from rf8.checkpoint.huggingface import from_transformers, to_transformers
from rf8.checkpoint.model import Model
from rf8.errors import DataError
from rf8.evaluation.study import Study, crc32
from rf8.experiments.coding import bits, losses, on_grid, over
from rf8.experiments.study import SEEDS, Spread, figure, save_figure, spread
from rf8.gg.reshape import reshape_model
from rf8.progress import Progress
from rf8.quantize.ste import finish_, prepare_
from rf8.train.loop import evenly_spread, tune
from rf8.train.recipe import Recipe

STEPS = (2.0**-13, 2.0**-6, 2.0**-5, 2.0**-4)
RECOVERED = (2.0**-13, 2.0**-4)
FACTORS = (None, 1.0, 0.8, 0.6)  # of the shape; None: rounded plainly
RECIPE = Recipe(
    steps=60, batch=4, lr=3e-4, warmup=6, weight_decay=0.0, precision="float32", optimizer="adamw"
)


def run(
    model: Model,
    text: Tensor,
    tuning: Tensor,
    folder: Path,
    *,
    window: int,
    windows: int,
    recovery: bool = True,
    progress: Progress = lambda *_: None,
) -> Study:
    """Make all runs and write ``deepshape-NAME.json``, ``.png`` and ``.md`` into ``folder``.

    Parameters
    ----------
    model
        A float model.
    text, tuning
        Token ids, int64 [n]: what perplexity is measured on, and what recovery trains on, if any.
    window, windows
        Tokens in a window, and windows to measure on, spread over the text.
    recovery
        Whether to fine-tune, with three seeds; without it nothing is random.

    A run that was cut off goes on with what is missing. Raises DataError for an RF8 model, too
    little text, or the results of another setup.
    """
    if model.span is not None:
        raise DataError(f"{model.name} is RF8 already: DeepShape needs the float model")
    measured = evenly_spread(text, windows, window)[: windows * window]
    windows = len(measured) // window
    recipe = replace(RECIPE, context=window)
    setup = {
        "model": model.name,
        "weights_crc32": model.checksum(),
        "window": window,
        "windows": windows,
        "text_crc32": crc32(measured),
        "tuning_crc32": crc32(tuning) if recovery else None,
        "recipe": asdict(recipe) if recovery else None,
        "seeds": SEEDS if recovery else (),
    }
    study = Study(folder / f"deepshape-{model.name}.json", setup)

    def shaped(factor: float | None, step: float) -> Model:
        if factor is None:
            return on_grid(model, step)
        return reshape_model(model, shape_factor=factor, step=step)[0]

    def before(factor: float | None, step: float) -> dict[str, Any]:
        found = shaped(factor, step)
        return bits(found, step) | {"losses": losses(found, measured, window, windows)}

    def after(factor: float | None, step: float, seed: int) -> dict[str, Any]:
        start = shaped(factor, step)
        module = prepare_(to_transformers(start, copy=True), step=step)
        tune(module, tuning, replace(recipe, seed=seed))
        found = from_transformers(finish_(module), model.name)
        return bits(found, step) | {"losses": losses(found, measured, window, windows)}

    runs = {"float32": lambda: {"losses": losses(model, measured, window, windows)}}
    runs |= {_key(f, s): partial(before, f, s) for s in STEPS for f in FACTORS}
    if recovery:
        runs |= {
            f"{_key(f, s)}/{seed}": partial(after, f, s, seed)
            for seed in SEEDS
            for s in RECOVERED
            for f in FACTORS
        }
    study.measure(runs, progress)
    study.publish(_page(study), lambda path: _plot(study, path))
    return study


def _key(factor: float | None, step: float) -> str:
    return f"{'plain' if factor is None else f'shape-x{factor:g}'}/2^{math.log2(step):g}"


def _title(factor: float | None) -> str:
    if factor is None:
        return "rounded plainly"
    return "DeepShape, fitted shape" if factor == 1 else f"DeepShape, shape x {factor:g}"


def _rises(study: Study, key: str) -> list[float]:
    """Perplexity over float32, minus one, of the recovered runs of a key."""
    base, window = study.runs["float32"], study.setup["window"]
    return [over(study.runs[f"{key}/{s}"], base, window)[0] for s in study.setup["seeds"]]


def _bits_after(study: Study, key: str) -> Spread:
    return spread(study.runs[f"{key}/{s}"]["entropy"] for s in study.setup["seeds"])


def _page(study: Study) -> str:
    setup, base = study.setup, study.runs["float32"]
    tokens = setup["windows"] * (setup["window"] - 1)
    recipe = setup["recipe"]
    lines = [
        f"# DeepShape on {setup['model']}",
        "",
        "Every matrix becomes multiples of a step: rounded plainly, or by DeepShape to the "
        "histogram of a generalized Gaussian with the fitted standard deviation and the fitted shape times a "
        "factor. Bits a weight are of all matrices coded with one table: entropy, and a real "
        f"Huffman stream with its table. Perplexity over {tokens:,} tokens, against float32 "
        f"({math.exp(sum(base['losses']) / len(base['losses'])):.2f}); ± is the standard "
        "error of the difference over windows.",
    ]
    if recipe:
        lines.append(
            f"Recovery is {recipe['steps']} steps of {recipe['batch']} windows with the "
            f"weights rounded in the forward pass (learning rate {recipe['lr']:g}), on other text, with "
            f"{len(setup['seeds'])} seeds of the order of that text; ± after it is the half-width of "
            "the 95 % interval (Student's t). The rows rounded plainly get the same recovery."
        )
    head = ["step", "weights", "entropy", "Huffman", "zeros", "perplexity over float32"]
    head += ["after recovery", "entropy after"] if recipe else []
    lines += ["", f"![Bits against perplexity](deepshape-{setup['model']}.png)", ""]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for step in STEPS:
        for factor in FACTORS:
            key = _key(factor, step)
            entry = study.runs[key]
            rise, error = over(entry, base, setup["window"])
            cells = [
                f"2^{math.log2(step):g}",
                _title(factor),
                f"{entry['entropy']:.2f}",
                f"{entry['huffman']:.2f}",
                f"{entry['zeros']:.1%}",
                f"{rise:+,.2%} ± {error:,.2%}",
            ]
            if recipe:
                if step in RECOVERED:
                    found = spread(_rises(study, key))
                    cells.append(f"{found.mean:+.2%} ± {found.half_width:.2%}")
                    cells.append(f"{_bits_after(study, key).mean:.2f}")
                else:
                    cells += ["", ""]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _plot(study: Study, path: Path) -> None:
    base, window = study.runs["float32"], study.setup["window"]
    made, axis = figure(height=4.0)
    for number, factor in enumerate(FACTORS):
        keys = [_key(factor, step) for step in STEPS]
        axis.plot(
            [study.runs[k]["entropy"] for k in keys],
            [max(over(study.runs[k], base, window)[0], 1e-4) * 100 for k in keys],
            marker="o",
            color=f"C{number}",
            label=_title(factor),
        )
        if study.setup["recipe"]:
            keys = [_key(factor, step) for step in RECOVERED]
            axis.plot(
                [_bits_after(study, k).mean for k in keys],
                [max(spread(_rises(study, k)).mean, 1e-4) * 100 for k in keys],
                marker="s",
                linestyle="--",
                color=f"C{number}",
                label=f"{_title(factor)}, recovered",
            )
    axis.set_yscale("log")
    axis.set_xlabel("entropy, bits a weight")
    axis.set_ylabel("perplexity over float32, % (floor: 0.01)")
    axis.legend(fontsize=7, frameon=False)
    save_figure(made, path)
