"""What does BackSlash gain? ``rf8 experiment backslash``.

Small GPT-2 models are trained with a rate term of several weights lambda; then their weights go to
multiples of a step, or to RF8, and bits a weight stand beside perplexity.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from rf8.checkpoint.huggingface import from_transformers
from rf8.evaluation.study import Study, crc32
from rf8.experiments.coding import bits, losses, on_grid
from rf8.experiments.init import RECIPE as SMALL
from rf8.experiments.study import SEEDS, figure, save_figure, spread
from rf8.gg.backslash import BackSlash
from rf8.progress import Progress
from rf8.quantize.rounding import quantize
from rf8.train.loop import evenly_spread, new_model, tune
from rf8.train.recipe import Recipe

LAMBDAS = (0.0, 0.03, 0.1, 0.3, 1.0)  # nats of loss for a bit a weight
GRIDS = (2.0**-13, 2.0**-6, 2.0**-5, 2.0**-4)
WINDOWS = 200  # of held-out text
RECIPE = replace(SMALL, steps=500)


def run(
    train: Tensor,
    held_out: Tensor,
    folder: Path,
    *,
    recipe: Recipe = RECIPE,
    progress: Progress = lambda *_: None,
) -> Study:
    """Make all runs and write ``backslash.json``, ``.png`` and ``.md`` into ``folder``.

    train, held_out: token ids, int64 [n]. A run that was cut off goes on with what is missing.
    Raises DataError for too little text or the results of another setup.
    """
    measured = evenly_spread(held_out, WINDOWS, recipe.context)
    windows = len(measured) // recipe.context
    setup = {
        "recipe": asdict(recipe),
        "seeds": SEEDS,
        "windows": windows,
        "grids": GRIDS,
        "text_crc32": crc32(measured),
        "training_crc32": crc32(train),
    }
    study = Study(folder / "backslash.json", setup)

    def one(strength: float, seed: int) -> dict[str, Any]:
        seeded = replace(recipe, seed=seed)
        module = new_model(seeded)
        tune(module, train, seeded, prepare=lambda optimizer: BackSlash(optimizer, strength))
        tuned = from_transformers(module, "small")
        coded = {_grid(step): (on_grid(tuned, step), step) for step in GRIDS}
        coded |= {"RF8": (quantize(tuned), None)}  # type: ignore[dict-item]
        found: dict[str, Any] = {
            "float32": {"loss": _mean(losses(tuned, measured, recipe.context, windows))}
        }
        for name, (model, step) in coded.items():
            loss = _mean(losses(model, measured, recipe.context, windows))
            found[name] = bits(model, step) | {"loss": loss}
        return found

    study.measure(
        {f"{s:g}/{seed}": partial(one, s, seed) for seed in SEEDS for s in LAMBDAS}, progress
    )
    study.publish(_page(study), lambda path: _plot(study, path))
    return study


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _grid(step: float) -> str:
    return f"2^{math.log2(step):g}"


def _column(study: Study, strength: float, grid: str, field: str) -> list[float]:
    """A figure of all seeds; ``rise``: perplexity over float32 at lambda 0, same seed, minus 1."""
    entries = [study.runs[f"{strength:g}/{seed}"][grid] for seed in SEEDS]
    if field != "rise":
        return [entry[field] for entry in entries]
    bases = [study.runs[f"0/{seed}"]["float32"]["loss"] for seed in SEEDS]
    return [math.expm1(e["loss"] - base) for e, base in zip(entries, bases, strict=True)]


def _page(study: Study) -> str:
    recipe = study.setup["recipe"]
    tokens = recipe["steps"] * recipe["batch"] * recipe["context"]
    base = spread(math.exp(study.runs[f"0/{seed}"]["float32"]["loss"]) for seed in SEEDS)
    lines = [
        "# Does BackSlash make weights cheaper?",
        "",
        f"GPT-2 models of {recipe['n_layer']} layers and width {recipe['n_embd']}, trained on the default model's text: {recipe['steps']} steps of {recipe['batch']} windows of {recipe['context']} tokens ({tokens:,} tokens), AdamW, peak learning rate {recipe['lr']:g}, weight decay {recipe['weight_decay']:g}. Lambda times the rate in bits a weight is added to the loss (equation 1 of `rf8.gg.backslash`), after the loss's gradient is clipped to a norm of 1. Then every matrix goes to multiples of a step, or to RF8 by rounding to nearest. Bits a weight are of all matrices coded with one table: entropy, and a real Huffman stream with its table; for RF8 of the codes alone, to which row exponents add 8 bits a row.",
        "",
        f"Perplexity is held out, against the same seed at lambda 0 in float32 ({base.mean:.2f}). {len(SEEDS)} seeds; ± is the half-width of the 95 % interval (Student's t).",
        "",
        "![Bits against perplexity](backslash.png)",
        "",
        "| weights | lambda | entropy | Huffman | zeros | perplexity over float32 at lambda 0 |",
        "|---|---|---|---|---|---|",
    ]
    for grid in ["float32", *map(_grid, GRIDS), "RF8"]:
        for strength in LAMBDAS:
            of = partial(_column, study, strength, grid)
            rise = spread(of("rise"))
            cells = ["", "", ""]
            if grid != "float32":
                coded, stream, zeros = (spread(of(f)) for f in ("entropy", "huffman", "zeros"))
                cells = [
                    f"{coded.mean:.2f} ± {coded.half_width:.2f}",
                    f"{stream.mean:.2f}",
                    f"{zeros.mean:.1%}",
                ]
            lines.append(
                f"| {grid} | {strength:g} | "
                + " | ".join(cells)
                + f" | {rise.mean:+.1%} ± {rise.half_width:.1%} |"
            )
    return "\n".join(lines) + "\n"


def _plot(study: Study, path: Path) -> None:
    made, axis = figure(height=4.0)
    for number, strength in enumerate(LAMBDAS):
        grids = [*map(_grid, GRIDS)]
        coded = [spread(_column(study, strength, g, "entropy")) for g in grids]
        rises = [spread(_column(study, strength, g, "rise")) for g in grids]
        axis.errorbar(
            [c.mean for c in coded],
            [r.mean * 100 for r in rises],
            xerr=[c.half_width for c in coded],
            yerr=[r.half_width * 100 for r in rises],
            marker="o", markersize=4, capsize=2, color=f"C{number}", label=f"lambda {strength:g}",
        )  # fmt: skip
    axis.set_xlabel("entropy, bits a weight (steps " + ", ".join(map(_grid, GRIDS)) + ")")
    axis.set_ylabel("perplexity over lambda 0, % (bars: 95 %)")
    axis.legend(fontsize=7, frameon=False)
    save_figure(made, path)
