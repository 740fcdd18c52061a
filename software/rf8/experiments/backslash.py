"""What does BackSlash gain? ``rf8 experiment backslash``.

A trained model is trained on with a rate term of several weights lambda; then its weights go to
multiples of a step, or to RF8, and bits a weight stand beside perplexity.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from rf8.errors import DataError
from rf8.experiments.coding import bits, losses, on_grid, over
from rf8.experiments.study import SEEDS, Report, Study, figure, save_figure, spread
from rf8.gg.backslash import BackSlash
from rf8.hf import from_transformers, to_transformers
from rf8.model import Model
from rf8.quantize.rounding import quantize
from rf8.train.loop import evenly_spread, tune
from rf8.train.recipe import Recipe

LAMBDAS = (0.0, 0.01, 0.03, 0.1, 0.3)  # nats of loss for a bit a weight
GRIDS = (2.0**-13, 2.0**-6, 2.0**-5)
RECIPE = Recipe(
    steps=150, batch=4, lr=1e-3, warmup=15, weight_decay=0.0, precision="float32", optimizer="adamw"
)


def run(
    model: Model,
    text: Tensor,
    tuning: Tensor,
    folder: Path,
    *,
    window: int,
    windows: int,
    progress: Report = lambda *_: None,
) -> Study:
    """Make all runs and write ``backslash-NAME.json``, ``.png`` and ``.md`` into ``folder``.

    Parameters as for `rf8.experiments.deepshape.run`; so is what it raises.
    """
    if model.span is not None:
        raise DataError(f"{model.name} is RF8 already: BackSlash needs the float model")
    measured = evenly_spread(text, windows, window)
    recipe = replace(RECIPE, context=window)
    setup = {
        "model": model.name,
        "window": window,
        "windows": len(measured) // window,
        "text_crc32": zlib.crc32(measured.numpy().tobytes()),
        "tuning_crc32": zlib.crc32(tuning.numpy().tobytes()),
        "recipe": asdict(recipe),
        "seeds": SEEDS,
    }
    study = Study(folder / f"backslash-{model.name}.json", setup)

    def one(strength: float, seed: int) -> dict[str, Any]:
        module = to_transformers(model)
        # The module shares its memory with the model, which the next run needs untouched.
        for parameter in module.parameters():
            parameter.data = parameter.data.clone()
        tune(
            module,
            tuning,
            replace(recipe, seed=seed),
            prepare=lambda optimizer: BackSlash(optimizer, strength),
        )
        tuned = from_transformers(module, model)
        found: dict[str, Any] = {}
        for step in GRIDS:
            coded = on_grid(tuned, step)
            found[_grid(step)] = bits(coded, step) | {
                "losses": losses(coded, measured, window, windows)
            }
        rounded = quantize(tuned)
        found["RF8"] = bits(rounded) | {"losses": losses(rounded, measured, window, windows)}
        return found

    runs = {"float32": lambda: {"losses": losses(model, measured, window, windows)}}
    runs |= {f"{s:g}/{seed}": partial(one, s, seed) for seed in SEEDS for s in LAMBDAS}
    study.measure(runs, progress)
    study.publish(_page(study), lambda path: _plot(study, path))
    return study


def _grid(step: float) -> str:
    return f"2^{math.log2(step):g}"


def _column(study: Study, strength: float, grid: str, field: str) -> list[float]:
    """A figure of all seeds; ``rise``: perplexity over the model's own in float32, minus one."""
    entries = [study.runs[f"{strength:g}/{seed}"][grid] for seed in study.setup["seeds"]]
    if field == "rise":
        base, window = study.runs["float32"], study.setup["window"]
        return [over(entry, base, window)[0] for entry in entries]
    return [entry[field] for entry in entries]


def _page(study: Study) -> str:
    setup, recipe = study.setup, study.setup["recipe"]
    base = study.runs["float32"]["losses"]
    lines = [
        f"# BackSlash on {setup['model']}",
        "",
        f"The trained model is trained on for {recipe['steps']} steps of {recipe['batch']} windows "
        f"of {setup['window']} tokens (AdamW, learning rate {recipe['lr']:g}) with lambda times "
        "its rate in bits a weight added to the loss (equation 1 of `rf8.gg.backslash`). Then every "
        "matrix goes to multiples of a step, or to RF8 by rounding to nearest. Bits a weight are "
        "of all matrices coded with one table: entropy, and a real Huffman stream with its table. "
        f"Perplexity over {setup['windows'] * (setup['window'] - 1):,} tokens against the "
        f"model before, in float32 ({math.exp(sum(base) / len(base)):.2f}). {len(setup['seeds'])} seeds "
        "of the order of the text; ± is the half-width of the 95 % interval (Student's t). Lambda 0 is "
        "the same training without the rate: compare with that.",
        "",
        f"![Bits against perplexity](backslash-{setup['model']}.png)",
        "",
        "| weights | lambda | entropy | Huffman | zeros | perplexity over float32 |",
        "|---|---|---|---|---|---|",
    ]
    for grid in [*map(_grid, GRIDS), "RF8"]:
        for strength in LAMBDAS:
            of = partial(_column, study, strength, grid)
            coded, stream, zeros, rise = (
                spread(of(f)) for f in ("entropy", "huffman", "zeros", "rise")
            )
            lines.append(
                f"| {grid} | {strength:g} | {coded.mean:.2f} ± {coded.half_width:.2f} | "
                f"{stream.mean:.2f} | {zeros.mean:.1%} | {rise.mean:+.2%} ± {rise.half_width:.2%} |"
            )
    return "\n".join(lines) + "\n"


def _plot(study: Study, path: Path) -> None:
    made, axis = figure(height=4.0)
    for number, grid in enumerate([*map(_grid, GRIDS), "RF8"]):
        coded = [spread(_column(study, s, grid, "entropy")) for s in LAMBDAS]
        rises = [spread(_column(study, s, grid, "rise")) for s in LAMBDAS]
        axis.errorbar(
            [c.mean for c in coded],
            [r.mean * 100 for r in rises],
            xerr=[c.deviation for c in coded],
            yerr=[r.deviation * 100 for r in rises],
            marker="o",
            markersize=4,
            capsize=2,
            color=f"C{number}",
            label=f"multiples of {grid}" if grid != "RF8" else grid,
        )
        for strength, c, r in zip(LAMBDAS, coded, rises, strict=True):
            axis.annotate(
                f"{strength:g}", (c.mean, r.mean * 100), fontsize=6, xytext=(3, 3),
                textcoords="offset points",
            )  # fmt: skip
    axis.set_xlabel("entropy, bits a weight")
    axis.set_ylabel("perplexity over float32, per cent")
    axis.legend(fontsize=7, frameon=False, title="labels: lambda", title_fontsize=7)
    save_figure(made, path)
