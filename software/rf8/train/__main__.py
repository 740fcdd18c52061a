"""Command line of the training recipe."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from rf8.train.recipe import Recipe


def main(options: list[str] | None = None) -> int:
    """Train as the options say (default: the command line's); the exit status.

    0 on success, 1 with one line of reason; bad usage exits with 2 as argparse does.
    """
    parser = argparse.ArgumentParser(
        prog="python -m rf8.train",
        description="Train the default model: a GPT-2 of 3.5 M parameters on English that "
        "installs by name. Run it again with the same options to resume.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--steps", type=_positive, default=4200, help="default: %(default)s")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=_positive, help="CPU threads; default: torch's choice")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--start", default="", metavar="MODEL", help="go on from this model, tokenizer included"
    )
    parser.add_argument("--lr", type=float, default=Recipe.lr, help="peak; default: %(default)s")
    parser.add_argument("--optimizer", choices=["muon", "adamw"], default=Recipe.optimizer)
    parser.add_argument(
        "--precision",
        choices=["bfloat16", "float32"],
        default=Recipe.precision,
        help="of the forward pass; on CPUs without bfloat16 instructions, float32 and adamw are "
        "many times faster; default: %(default)s",
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("build/data"),
        metavar="DIR",
        help="where the text is kept, fetched on first use; default: %(default)s",
    )
    args = parser.parse_args(options)
    if args.threads:
        # Before the imports below, which start their thread pools with these.
        os.environ["OMP_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = str(args.threads)

    import torch
    from transformers.utils.logging import disable_progress_bar

    from rf8.errors import DataError
    from rf8.train.data import corpus
    from rf8.train.loop import train

    disable_progress_bar()  # of saving; the only one here is of training
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.device == "cuda" and not torch.cuda.is_available():
        return _fail("no CUDA device is visible to torch; use --device cpu")
    recipe = Recipe(
        steps=args.steps,
        seed=args.seed,
        start=args.start,
        lr=args.lr,
        optimizer=args.optimizer,
        precision=args.precision,
    )
    try:
        documents = corpus(args.data)
        with _Progress(recipe.steps) as progress:
            summary = train(recipe, documents, args.out, device=args.device, report=progress.report)
    except (DataError, OSError) as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted; the same command resumes from the last checkpoint")
    held_out = summary["held_out"]["all"]
    print(
        f"held-out perplexity {held_out['perplexity']:.3f} a token, "
        f"{held_out['bits_per_byte']:.3f} bits a byte; wrote {args.out}"
    )
    return 0


class _Progress:
    """A bar on a terminal; a line for each report elsewhere, as a log wants it."""

    def __init__(self, steps: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console()
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        self.steps = steps
        self.bar = Progress(*columns, console=console) if console.is_terminal else None

    def __enter__(self) -> _Progress:
        if self.bar:
            self.bar.start()
            self.task = self.bar.add_task("training", total=self.steps)
        return self

    def __exit__(self, *exc: object) -> None:
        if self.bar:
            self.bar.stop()

    def report(self, row: dict[str, Any]) -> None:
        line = f"step {row['step']}/{self.steps}  loss {row['train_loss']:.3f}"
        if "val_loss" in row:
            line += f"  held out {row['val_loss']:.3f}"
        if self.bar:
            self.bar.update(self.task, completed=row["step"], description=line)
        else:
            print(f"{line}  {row['tokens']} tokens  {row['seconds']:.0f} s", flush=True)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value


def _fail(reason: str) -> int:
    print(f"rf8.train: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
