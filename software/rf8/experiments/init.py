"""Does GG initialisation converge faster? ``rf8 experiment init``.

Small GPT-2 and Llama models are trained from several initialisations of their linear layers, with
the same batches and learning rate. Every GG initialisation has a Gaussian of the same
variances beside it, so that what the two differ by is the shape alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rf8 import gg
from rf8.evaluation.study import Study, crc32
from rf8.experiments.study import SEEDS, Spread, figure, save_figure, spread
from rf8.progress import Progress
from rf8.train.loop import evenly_spread, new_model, perplexity, tune
from rf8.train.recipe import Recipe

RECIPE = Recipe(
    steps=300, context=128, n_embd=128, n_layer=4, n_head=4, batch=8, lr=3e-3, warmup=30,
    precision="float32", optimizer="adamw",
)  # fmt: skip
POINTS = (50, 100, 200, 300)  # steps after which the held-out loss is measured
WINDOWS = 200  # of held-out text
KINDS = ("gpt2", "llama")
SHAPES = (0.5, 1.0, 1.5, 2.0)


def _fan_in(weight: Tensor) -> int:
    return weight.shape[1]


def _gaussian(variance: Callable[[Tensor], float]) -> Callable[[Tensor, float], None]:
    def fill(weight: Tensor, depth: float) -> None:
        nn.init.normal_(weight, std=math.sqrt(variance(weight)))

    return fill


def _uniform(weight: Tensor, depth: float) -> None:
    bound = 1 / math.sqrt(_fan_in(weight))
    nn.init.uniform_(weight, -bound, bound)


def _small(shape: float) -> Callable[[Tensor, float], None]:
    def fill(weight: Tensor, depth: float) -> None:
        gg.gg_(weight, shape, gain=_fan_in(weight) * (0.02 * depth) ** 2)

    return fill


def _gpt2(weight: Tensor, depth: float) -> None:
    nn.init.normal_(weight, std=0.02 * depth)


# Fill a weight [out, in]; depth is 1 / sqrt(2 layers) for what writes to the residual stream.
BASELINES: dict[str, tuple[str, Callable[[Tensor, float], None]]] = {
    "torch": ("PyTorch's nn.Linear, U(1/sqrt(fan in))", _uniform),
    "xavier": ("Xavier, normal", _gaussian(lambda w: 2 / (w.shape[0] + w.shape[1]))),
    "kaiming": ("Kaiming, normal, ReLU", _gaussian(lambda w: 2 / _fan_in(w))),
    "gpt2": ("GPT-2's normal(0.02)", _gpt2),
    "small-0.5": ("GG, shape 0.5, with GPT-2's variances", _small(0.5)),
    "small-1": ("GG, shape 1, with GPT-2's variances", _small(1.0)),
}
METHODS = {name: title for name, (title, _) in BASELINES.items()} | {
    f"gg-{shape:g}": f"GG, shape {shape:g}" + (" (a Gaussian)" if shape == 2 else "")
    for shape in SHAPES
}
GAUSSIAN = {m: "gg-2" if m.startswith("gg") else "gpt2" for m in METHODS if m[:2] in ("gg", "sm")}
"""GG initialisation -> the Gaussian one with the same variances."""


def small_llama(recipe: Recipe) -> Any:
    """A Llama of the recipe's sizes, with two query heads to a key head and a tied output head."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=recipe.vocab_size,
            hidden_size=recipe.n_embd,
            intermediate_size=recipe.n_embd * 8 // 3,
            num_hidden_layers=recipe.n_layer,
            num_attention_heads=recipe.n_head,
            num_key_value_heads=recipe.n_head // 2,
            max_position_embeddings=recipe.context,
            bos_token_id=0,
            eos_token_id=0,
            tie_word_embeddings=True,
        )
    )


def initialise_(model: Any, method: str, seed: int) -> None:
    """Initialise a GPT-2 or Llama in place by one of `METHODS`."""
    from transformers.pytorch_utils import Conv1D

    is_gg = method not in BASELINES
    generator = torch.Generator().manual_seed(seed)
    gg.init_model_(model, shape=float(method[3:]) if is_gg else 2.0, generator=generator)
    if is_gg:
        return
    fill = BASELINES[method][1]
    torch.manual_seed(seed)
    depth = (2 * model.config.num_hidden_layers) ** -0.5
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, Conv1D | nn.Linear) and module is not model.lm_head:
                turned = module.weight.T if isinstance(module, Conv1D) else module.weight
                fill(turned, depth if name.endswith(gg.WRITERS) else 1.0)


def run(
    train: Tensor,
    held_out: Tensor,
    folder: Path,
    *,
    recipe: Recipe = RECIPE,
    progress: Progress = lambda *_: None,
) -> Study:
    """Make all runs and write ``init.json``, ``.png`` and ``.md`` into ``folder``.

    train, held_out: token ids, int64 [n]. A run that was cut off goes on with what is missing.
    Raises DataError for too little text or the results of another setup.
    """
    measured = evenly_spread(held_out, WINDOWS, recipe.context)
    setup = {
        "recipe": asdict(recipe),
        "points": POINTS,
        "seeds": SEEDS,
        "windows": len(measured) // recipe.context,
        "text_crc32": crc32(measured),
        "training_crc32": crc32(train),
    }
    study = Study(folder / "init.json", setup)

    def one(kind: str, method: str, seed: int) -> dict[str, Any]:
        seeded = replace(recipe, seed=seed)
        model: Any = new_model(seeded) if kind == "gpt2" else small_llama(seeded)
        initialise_(model, method, seed)
        losses: dict[str, float] = {}

        def watch(step: int) -> None:
            if step in POINTS or step == recipe.steps:
                model.train(False)
                losses[str(step)] = math.log(perplexity(model, measured, recipe.context))
                model.train()

        tune(model, train, seeded, watch=watch)
        return {"losses": losses}

    study.measure(
        {
            f"{kind}/{method}/{seed}": partial(one, kind, method, seed)
            for seed in SEEDS
            for kind in KINDS
            for method in METHODS
        },
        progress,
    )
    study.publish(_page(study), lambda path: _plot(study, path))
    return study


def _losses(study: Study, kind: str, method: str, step: int) -> list[float]:
    return [study.runs[f"{kind}/{method}/{s}"]["losses"][str(step)] for s in SEEDS]


def _against(study: Study, kind: str, method: str, other: str, step: int) -> Spread:
    pairs = zip(_losses(study, kind, method, step), _losses(study, kind, other, step), strict=True)
    return spread(a - b for a, b in pairs)


def _page(study: Study) -> str:
    recipe = study.setup["recipe"]
    points = [p for p in POINTS if p < recipe["steps"]] + [recipe["steps"]]
    tokens = recipe["steps"] * recipe["batch"] * recipe["context"]
    lines = [
        "# Does generalized-Gaussian initialisation converge faster?",
        "",
        f"GPT-2 and Llama models of {recipe['n_layer']} layers and width {recipe['n_embd']}, "
        f"trained on the default model's text: {recipe['steps']} steps of {recipe['batch']} "
        f"windows of {recipe['context']} tokens ({tokens:,} tokens), AdamW, peak learning rate "
        f"{recipe['lr']:g}, the same for all. Only the linear layers of the blocks differ: norms "
        "and biases start as ones and zeros, embeddings at a standard deviation of 0.02, and for "
        "GG and GPT-2's rule what writes to the residual stream is divided by sqrt(2 layers). GG "
        "layers have variance 1 / fan in unless said otherwise, and their embeddings have their "
        f"shape; all other embeddings, those of the rows with GPT-2's variances too, are Gaussian. {len(SEEDS)} seeds; a seed decides weights and batches, "
        "so that differences are taken pair by pair. ± is the half-width of the 95 % interval "
        "(Student's t).",
        "",
        "![Held-out loss by initialisation](init.png)",
    ]
    for kind in KINDS:
        lines += [
            "",
            f"## {'GPT-2' if kind == 'gpt2' else 'Llama'}",
            "",
            "| initialisation | "
            + " | ".join(f"loss, step {p}" for p in points)
            + " | minus GPT-2's | minus the Gaussian of the same variances |",
            "|---|" + "---|" * (len(points) + 2),
        ]
        ends = {m: spread(_losses(study, kind, m, points[-1])).mean for m in METHODS}
        for method in sorted(METHODS, key=lambda m: ends[m]):
            cells = [f"{spread(_losses(study, kind, method, p)).mean:.3f}" for p in points]
            for other in ("gpt2", GAUSSIAN.get(method, method)):
                gap = _against(study, kind, method, other, points[-1])
                same = other == method
                cells.append("" if same else f"{gap.mean:+.3f} ± {gap.half_width:.3f}")
            lines.append(f"| {METHODS[method]} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _plot(study: Study, path: Path) -> None:
    made, axes = figure(len(KINDS), 4.8)
    points = [int(p) for p in next(iter(study.runs.values()))["losses"]]
    for axis, kind in zip(axes, KINDS, strict=True):
        for number, method in enumerate(METHODS):
            gaps = [_against(study, kind, method, "gpt2", p) for p in points]
            is_gg = method in GAUSSIAN
            axis.errorbar(
                points,
                [g.mean for g in gaps],
                yerr=[g.half_width for g in gaps],
                label=METHODS[method],
                color=f"C{number}",
                linestyle="-" if is_gg else "--",
                marker="o",
                markersize=3,
                capsize=2,
            )
        axis.set_title("GPT-2" if kind == "gpt2" else "Llama", fontsize=10)
        axis.set_xlabel("steps (bars: 95 % interval)")
        axis.set_ylabel("held-out loss minus that of GPT-2's, nats")
    handles, labels = axes[0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=7, frameon=False)
    save_figure(made, path)
