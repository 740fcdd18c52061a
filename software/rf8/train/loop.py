"""Trains a GPT-2 of a few million parameters, resumably, and measures its perplexity."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from rf8 import gg
from rf8.checkpoint.huggingface import to_transformers
from rf8.checkpoint.load import load_model
from rf8.errors import DataError
from rf8.train.data import Document, encode, train_tokenizer, wrap
from rf8.train.recipe import Recipe

LOG_EVERY = 20  # steps
VALIDATE_EVERY = 500  # steps, a multiple of LOG_EVERY
VALIDATION_WINDOWS = 64  # for the curve; the final figure uses every held-out token


def new_model(recipe: Recipe) -> GPT2LMHeadModel:
    """A GG-initialised GPT-2 with a tied head, in float32; the seed decides every weight.

    Or the model that the recipe starts from, which must have the recipe's sizes.
    """
    config = GPT2Config(
        vocab_size=recipe.vocab_size,
        n_positions=recipe.context,
        n_embd=recipe.n_embd,
        n_layer=recipe.n_layer,
        n_head=recipe.n_head,
        activation_function="gelu_new",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=True,
    )
    model = GPT2LMHeadModel(config)
    if recipe.start:
        source = load_model(recipe.start)
        for key in ("model_type", "vocab_size", "n_positions", "n_embd", "n_layer", "n_head"):
            wanted, found = getattr(config, key), source.config.get(key)
            if found != wanted:
                raise DataError(f"{recipe.start} has {key} {found}, the recipe {wanted}")
        model.load_state_dict(to_transformers(source).state_dict())
        return model
    generator = torch.Generator().manual_seed(recipe.seed)
    gg.init_model_(model, shape=recipe.gg_shape, generator=generator)
    return model


def new_optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon or AdamW for the matrices of the blocks, AdamW for embeddings, norms and biases."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and ".h." in name
        (matrices if is_matrix else others).append(parameter)
    blocks: torch.optim.Optimizer
    if recipe.optimizer == "muon":
        # Its update is scaled to the size of AdamW's, so that one learning rate serves both.
        blocks = torch.optim.Muon(
            matrices,
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
    else:
        decay = recipe.weight_decay
        blocks = torch.optim.AdamW(matrices, lr=recipe.lr, betas=(0.9, 0.95), weight_decay=decay)
    adamw = torch.optim.AdamW(others, lr=recipe.lr, betas=(0.9, 0.95), weight_decay=0.0)
    return [blocks, adamw]


def batch_at(ids: Tensor, step: int, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Inputs and targets of a step, each int64 [batch, context].

    An epoch visits the windows of `ids` in a random order, from a random first token. The batch
    depends on the step and the seed alone, so resuming needs no record of the order.
    """
    t = recipe.context
    windows = (len(ids) - 1) // t - 1  # one less than fit, which leaves room for the offset
    per_epoch = windows // recipe.batch
    if per_epoch < 1:
        raise DataError(
            f"{len(ids)} tokens of training text; a batch of {recipe.batch} windows of {t} needs "
            f"{(recipe.batch + 1) * t + 1} or more"
        )
    epoch, k = divmod(step, per_epoch)
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
    offset = int(torch.randint(t, (), generator=generator))
    order = torch.randperm(windows, generator=generator)
    start = order[k * recipe.batch : (k + 1) * recipe.batch] * t + offset
    x = ids[start[:, None] + torch.arange(t + 1)]
    return x[:, :-1], x[:, 1:]


def take_step(
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    ids: Tensor,
    step: int,
    recipe: Recipe,
    device: str = "cpu",
) -> Tensor:
    """One step of training on the batch and at the learning rate of `step`; the loss before it."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * recipe.lr_factor(step)
    x, y = (part.to(device) for part in batch_at(ids, step, recipe))
    with torch.autocast(device, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        logits = model(input_ids=x, use_cache=False).logits
    loss = F.cross_entropy(logits.float().flatten(0, 1), y.flatten())
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return loss.detach()


def tune(
    model: nn.Module,
    ids: Tensor,
    recipe: Recipe,
    *,
    prepare: Callable[[torch.optim.Optimizer], object] = lambda optimizer: None,
    watch: Callable[[int], None] = lambda step: None,
) -> None:
    """Train a model in place for the recipe's steps, without checkpoints: short runs, recovery.

    AdamW on all parameters, those of two or more dimensions decayed. The recipe gives the schedule,
    the batches and the seed; its sizes are not used. `prepare` sees the optimizer first (BackSlash
    hooks in there); `watch` is called after each step with the number of steps done.
    """
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.95))
    prepare(optimizer)
    device = next(model.parameters()).device.type
    model.train()
    for step in range(recipe.steps):
        take_step(model, [optimizer], ids, step, recipe, device)
        watch(step + 1)
    model.train(False)


@torch.no_grad()
def perplexity(model: nn.Module, ids: Tensor, context: int, *, batch: int = 16) -> float:
    """exp of the mean cross entropy, per token, of int64 token ids [n].

    The ids are cut into windows of `context` inputs that do not overlap, the last one padded on
    the right. Each input predicts the next token from those before it in its window, so all
    n - 1 predictions count. The model is causal and maps `input_ids` [b, t] to an output with
    `logits` [b, t, vocab]; it runs where its parameters are and in the mode it is in. Loss in
    float32. Raises ValueError for fewer than two ids.
    """
    if len(ids) < 2:
        raise ValueError(f"perplexity needs two or more token ids, got {len(ids)}")
    device = next(model.parameters()).device
    padding = -(len(ids) - 1) % context  # on the right, where a causal model cannot see it
    inputs = F.pad(ids[:-1], (0, padding)).view(-1, context)
    targets = F.pad(ids[1:], (0, padding), value=-100).view(-1, context)  # -100 is not counted
    total = 0.0
    for i in range(0, len(inputs), batch):
        x, y = inputs[i : i + batch].to(device), targets[i : i + batch].to(device)
        logits = model(input_ids=x).logits.float()
        total += F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum").item()
    return math.exp(total / (len(ids) - 1))


def train(
    recipe: Recipe,
    documents: tuple[Iterable[Document], Iterable[Document]],
    out: Path,
    *,
    device: str = "cpu",
    checkpoint_minutes: float = 3.0,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
    stop_at: int | None = None,
) -> dict[str, Any]:
    """Train on the first documents, measure on the second; write a Hugging Face folder at `out`.

    Resumes from ``out/checkpoint.pt`` if there is one: the weights that come out are bit for bit
    those of a run without a break (on one kind of machine). Returns what ``out/training.json``
    holds. `report` gets each row of ``out/metrics.jsonl``; `stop_at` ends the run early after
    that step, with a checkpoint, as an interruption would.

    Raises DataError where the text is too short, or the checkpoint is of another recipe or text.
    """
    out.mkdir(parents=True, exist_ok=True)
    train_docs, held_out_docs = (list(part) for part in documents)
    if recipe.start:
        own = load_model(recipe.start).tokenizer()
        if own is None:
            raise DataError(f"{recipe.start} has no tokenizer.json, which a start needs")
        tokenizer = wrap(own, recipe.context)
    else:
        texts = (d.text for d in train_docs)
        tokenizer = train_tokenizer(texts, recipe.vocab_size, recipe.context)
    train_ids, held_out_ids = encode(tokenizer, train_docs), encode(tokenizer, held_out_docs)
    digest = hashlib.sha256(train_ids.numpy().tobytes()).hexdigest()
    identity = asdict(recipe) | {"train_ids": digest}

    model = new_model(recipe)
    for block in model.transformer.h:
        # gelu_new in one kernel
        block.mlp.act = nn.GELU(approximate="tanh")
    model.to(device)
    optimizers = new_optimizers(model, recipe)
    step, seconds = _resume(out, identity, model, optimizers, device)
    rows = _kept_rows(out / "metrics.jsonl", step)
    curve_ids = evenly_spread(held_out_ids, VALIDATION_WINDOWS, recipe.context)

    started = checkpointed = time.monotonic()
    done_before = seconds
    end = recipe.steps if stop_at is None else min(stop_at, recipe.steps)
    model.train()
    while step < end:
        loss = take_step(model, optimizers, train_ids, step, recipe, device)
        step += 1

        now = time.monotonic()
        seconds = done_before + now - started
        if step % LOG_EVERY == 0 or step == end:
            row: dict[str, Any] = {
                "step": step,
                "tokens": step * recipe.batch * recipe.context,
                "seconds": round(seconds, 1),
                "train_loss": round(float(loss), 4),
            }
            if step % VALIDATE_EVERY == 0 or step == end:
                model.train(False)
                row["val_loss"] = round(math.log(perplexity(model, curve_ids, recipe.context)), 4)
                model.train()
            rows.append(row)
            _append(out / "metrics.jsonl", row)
            report(row)
        if now - checkpointed > 60 * checkpoint_minutes or step == end:
            _save_checkpoint(out, identity, model, optimizers, step, seconds)
            checkpointed = now

    summary = {
        "recipe": asdict(recipe),
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": step * recipe.batch * recipe.context,
        "device": device,
        "torch": torch.__version__,
        "hours": round(seconds / 3600, 3),
        "tokens_per_second": round(step * recipe.batch * recipe.context / seconds),
        "train": {"tokens": len(train_ids), "documents": [d.name for d in train_docs]},
        "held_out": evaluate(model, tokenizer, held_out_docs, recipe.context),
        "curve": rows,
    }
    if step == recipe.steps:
        _save_pretrained(out, model, tokenizer, summary)
    return summary


def evaluate(
    model: nn.Module, tokenizer: PreTrainedTokenizerFast, documents: list[Document], context: int
) -> dict[str, Any]:
    """Perplexity per token and bits per byte of all documents, joined, and of each kind of them.

    The kind is the part of a document's name before the colon.
    """
    model.train(False)
    kinds = sorted({d.name.partition(":")[0] for d in documents})
    result: dict[str, Any] = {"documents": [d.name for d in documents]}
    for kind in ["all", *kinds]:
        chosen = [d for d in documents if kind in ("all", d.name.partition(":")[0])]
        ids = encode(tokenizer, chosen)
        ppl = perplexity(model, ids, context)
        n_bytes = sum(len(d.text.encode()) for d in chosen)
        result[kind] = {
            "tokens": len(ids),
            "bytes": n_bytes,
            "perplexity": round(ppl, 4),
            # The vocabulary is small, so perplexity compares only with models that share it.
            "bits_per_byte": round(math.log2(ppl) * (len(ids) - 1) / n_bytes, 4),
        }
    return result


def evenly_spread(ids: Tensor, windows: int, context: int) -> Tensor:
    """Some `windows` runs of `context` ids, evenly spread, joined; one more where they fit."""
    starts = range(0, len(ids), max(context, len(ids) // windows))
    return torch.cat([ids[s : s + context] for s in starts])


def _save_checkpoint(
    out: Path,
    identity: dict[str, Any],
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    step: int,
    seconds: float,
) -> None:
    temporary = out / "checkpoint.tmp"
    state = {
        "identity": identity,
        "model": model.state_dict(),
        "optimizers": [o.state_dict() for o in optimizers],
        "rng": torch.get_rng_state(),
        "step": step,
        "seconds": seconds,
    }
    torch.save(state, temporary)
    os.replace(temporary, out / "checkpoint.pt")  # a crash leaves the old one or the new one


def _resume(
    out: Path,
    identity: dict[str, Any],
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    device: str,
) -> tuple[int, float]:
    """Load the checkpoint, if any, into model and optimizers; return its step and seconds."""
    path = out / "checkpoint.pt"
    if not path.exists():
        return 0, 0.0
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise DataError(f"cannot read {path}; delete it to start again") from error
    changed = [k for k, v in identity.items() if state["identity"].get(k) != v]
    if changed:
        raise DataError(
            f"{path} is of a run that differs in {', '.join(changed)}; "
            "give the same options or another --out"
        )
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    torch.set_rng_state(state["rng"].cpu())
    return state["step"], state["seconds"]


def _kept_rows(path: Path, step: int) -> list[dict[str, Any]]:
    """Rows of the metrics up to `step`; later ones, of steps to be done again, are dropped."""
    lines = path.read_text().splitlines() if path.exists() else []
    whole = [line for line in lines if line.endswith("}")]  # a crash can cut the last one
    rows = [row for row in map(json.loads, whole) if row["step"] <= step]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def _append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def _save_pretrained(
    out: Path,
    model: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    summary: dict[str, Any],
) -> None:
    model.save_pretrained(out)  # float32, as trained
    tokenizer.save_pretrained(out)
    (out / "training.json").write_text(json.dumps(summary, indent=1) + "\n")
