"""The commands ``rf8 experiment ...``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rf8.cli.common import Bar, JsonOption, ModelArgument, app
from rf8.cli.quantize import read_tokens
from rf8.errors import UsageError
from rf8.model import load_model

experiment = typer.Typer(no_args_is_help=True, help="Test formats and methods on real models.")
app.add_typer(experiment, name="experiment")


@experiment.callback()
def group() -> None:
    """Test formats and methods on real models."""


@experiment.command(
    epilog=(
        "Example: [bold]rf8 experiment formats smollm2-135m --text wiki.txt "
        "--calibration other.txt -o docs/experiments[/bold]. Run it again to go on after a break."
    )
)
def formats(
    model: ModelArgument,
    text: Annotated[Path, typer.Option(help="Plain text to measure perplexity on")],
    calibration: Annotated[Path, typer.Option(help="Other plain text, for compensated rounding")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory for JSON, PNG, page")],
    windows: Annotated[int, typer.Option(help="Windows of 1,024 tokens to measure on")] = 8,
    as_json: JsonOption = False,
) -> None:
    """Perplexity of RF8 beside INT8, INT4, FP8 and powers of two, weights alone (minutes)."""
    from rf8.experiments.formats import run

    if windows < 1:
        raise UsageError(f"--windows is {windows}, must be 1 or more")
    source = load_model(model)
    measured, seen = read_tokens(source, text), read_tokens(source, calibration)
    with Bar("measuring") as step:
        results = run(source, measured, seen, output, windows=windows, progress=step)
    page = output / f"formats-{source.name}.md"
    print(json.dumps(results) if as_json else f"{page.read_text()}\nwrote {page}")
