"""``python -m rf8.train.held_out MODEL ...``: held-out perplexity of models, float or RF8.

The text and the split are those of the recipe; an RF8 model is evaluated in float with the values
of its codes, so the figures differ by the weights alone.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from transformers import PreTrainedTokenizerFast

from rf8.checkpoint.huggingface import to_transformers
from rf8.checkpoint.load import load_model
from rf8.errors import DataError
from rf8.train.data import corpus
from rf8.train.loop import evaluate


def main() -> int:
    """Print a table of perplexities; 1 where a model or the text is not to be had."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="directory, or `default`")
    parser.add_argument("--data", type=Path, default=Path("build/data"), help="where the text is")
    options = parser.parse_args()
    console = Console(highlight=False)
    table = Table("model", "weights", "text", "tokens", "perplexity", "bits per byte", box=None)
    try:
        _, held_out = corpus(options.data)
        for name in options.models:
            model = load_model(name)
            tokenizer = PreTrainedTokenizerFast(
                tokenizer_object=model.tokenizer(), eos_token="<|endoftext|>"
            )
            module = to_transformers(model)
            found = evaluate(module, tokenizer, held_out, model.context)
            found.pop("documents")
            kind = "float" if model.span is None else "RF8"
            for text, figures in found.items():
                row = (f"{figures[k]:,}" for k in ("tokens", "perplexity", "bits_per_byte"))
                table.add_row(name, kind, text, *row)
    except (DataError, RuntimeError) as error:
        print(f"rf8.train.held_out: {error}", file=sys.stderr)
        return 1
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
