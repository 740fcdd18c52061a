"""The command ``rf8 eval``."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from golden.config import get_config
from rf8.cli.common import ConfigOption, JsonOption, ModelArgument, app, loaded, saturation
from rf8.cli.quantize import read_tokens, text_window
from rf8.console import Bar
from rf8.errors import UsageError
from rf8.quantize.rounding import quantize

if TYPE_CHECKING:
    from rf8.evaluation.perplexity import Perplexity


@app.command(
    name="eval",
    epilog=(
        "Examples: [bold]rf8 eval smollm2-135m --text wiki.txt --tokens 4096 --out eval.json"
        "[/bold]; [bold]rf8 eval default --float build/train/default --text book.txt[/bold]. "
        "With --out, a run that was broken off goes on when it is started again."
    ),
)
def evaluate(
    model: ModelArgument,
    text: Annotated[Path, typer.Option(help="Plain text to measure perplexity on")],
    tokens: Annotated[int, typer.Option(help="Tokens of the text to use at most")] = 8192,
    original: Annotated[
        str | None, typer.Option("--float", help="The float model, where MODEL is in RF8")
    ] = None,
    config: ConfigOption = "sim",
    out: Annotated[Path | None, typer.Option(help="JSON file that keeps what is done")] = None,
    as_json: JsonOption = False,
) -> None:
    """Perplexity of float, RF8 weights and the integer pipeline, and what each part of it costs.

    A float model is quantised on the way. Windows have the model's context, 1,024 tokens at most.
    """
    from rf8.evaluation.integer_cost import measure

    source, target = loaded(model), get_config(config)
    window = text_window(source.context, tokens)
    ids = read_tokens(source, text)
    reference = None if original is None else loaded(original)
    if source.span is None:
        if reference is not None:
            raise UsageError(f"--float goes with a model in RF8; {model} is a float model itself")
        reference = source
        with Bar("quantising") as step:
            source = quantize(source, span=target.span, progress=step)
    with tempfile.TemporaryDirectory() as folder, Bar("measuring") as step:
        found = measure(
            source, reference, ids, out or Path(folder) / "eval.json",
            window=window, windows=tokens // window, config=target, progress=step,
        )  # fmt: skip
    if as_json:
        print(json.dumps({"model": source.name, "window": window, "rows": _records(found)}))
    else:
        _show(source.name, found)


def _records(found: dict[str, Perplexity]) -> list[dict[str, object]]:
    """Rows with the change over RF8 weights in float, and its standard error over the windows."""
    from rf8.evaluation.integer_cost import WEIGHTS

    records: list[dict[str, object]] = []
    for name, perplexity in found.items():
        ratio, error = perplexity.ratio(found[WEIGHTS])
        records.append(
            {
                "name": name,
                "perplexity": perplexity.value,
                "tokens": perplexity.tokens,
                "change_percent": 100 * (ratio - 1),
                "standard_error_percent": 100 * error if len(perplexity.losses) > 1 else None,
                "saturated": perplexity.saturated,
            }
        )
    return records


def _show(model: str, found: dict[str, Perplexity]) -> None:
    from rf8.evaluation.integer_cost import WEIGHTS

    table = Table("what is computed", "perplexity", "over RF8 weights", box=None)
    for record in _records(found):
        error = record["standard_error_percent"]
        spread = "" if error is None else f" ± {error:.2f}"
        change = "" if record["name"] == WEIGHTS else f"{record['change_percent']:+.2f}{spread} %"
        table.add_row(str(record["name"]), f"{record['perplexity']:.3f}", change)
    console = Console(highlight=False)
    console.print(table)
    for name, row in found.items():
        if row.saturated:
            console.print(f"{name}: {saturation(row.saturated)}", soft_wrap=True)
    some = found[WEIGHTS]
    console.print(
        f"\n{model}: {some.tokens:,} tokens predicted in {len(some.losses)} windows of "
        f"{some.window}; ± is the standard error over windows"
    )
