"""What the commands share: the application, option types, progress."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

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
notes = Console(stderr=True, highlight=False)


ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Directory, hub name, default")]
SpanOption = Annotated[int, typer.Option(help=f"Exponents to keep: {', '.join(map(str, SPANS))}")]
ConfigOption = Annotated[str, typer.Option(help=f"Accelerator: {', '.join(CONFIGS)}")]
ArgmaxOption = Annotated[
    bool, typer.Option("--argmax", help="The machine finds the likeliest token; no logits")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output")]


class Bar:
    """A progress bar for work that names its steps."""

    def __init__(self, title: str) -> None:
        self._bar = Progress(
            TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"),
            console=notes, transient=True, disable=not notes.is_terminal,
        )  # fmt: skip

    def __enter__(self) -> Any:
        self._bar.__enter__()
        task = self._bar.add_task("", total=None)

        def step(name: str, number: int, total: int) -> None:
            self._bar.update(task, description=name, completed=number, total=total)

        return step

    def __exit__(self, *failure: Any) -> None:
        self._bar.__exit__(*failure)


def check_span(span: int) -> int:
    """The span, if it is one; else a UsageError."""
    if span not in SPANS:
        raise UsageError(f"--span is {span}, must be one of {', '.join(map(str, SPANS))}")
    return span
