"""What the commands share: the application, option types, progress."""

from __future__ import annotations

from typing import Annotated

import typer

from golden.config import CONFIGS
from golden.format import SPANS
from rf8.errors import UsageError

app = typer.Typer(
    name="rf8",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Run language models in the RF8 number format, on simulated hardware.",
    epilog="Models: a directory in Hugging Face layout, a hub name, or [bold]default[/bold].",
)


ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Directory, hub name, default")]
SpanOption = Annotated[int, typer.Option(help=f"Exponents to keep: {', '.join(map(str, SPANS))}")]
ConfigOption = Annotated[str, typer.Option(help=f"Accelerator: {', '.join(CONFIGS)}")]
ArgmaxOption = Annotated[
    bool, typer.Option("--argmax", help="The machine finds the likeliest token; no logits")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output")]


def check_span(span: int) -> int:
    """The span, if it is one; else a UsageError."""
    if span not in SPANS:
        raise UsageError(f"--span is {span}, must be one of {', '.join(map(str, SPANS))}")
    return span
