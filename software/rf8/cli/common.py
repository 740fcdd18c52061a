"""What the commands share: the application, option types, progress."""

from __future__ import annotations

from glob import escape
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from golden.config import CONFIGS
from golden.format import SPANS
from rf8.checkpoint.load import FETCHED, PACKAGED, load_model
from rf8.checkpoint.model import Model
from rf8.console import notes
from rf8.errors import UsageError
from rf8.program.image import Program

M = TypeVar("M", Model, Program)

app = typer.Typer(
    name="rf8",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Run language models in the RF8 number format, on simulated hardware.",
    epilog="Models: a directory in Hugging Face layout, a GGUF file, a hub name, "
    "[bold]default[/bold] or [bold]smollm2-135m[/bold]. [bold]rf8 doctor[/bold] says what works "
    "here.",
)


def _models(incomplete: str) -> list[str]:
    """What can stand for MODEL, for a shell that completes it: names, model directories, GGUF files
    and images, and directories on the way to them."""
    names = [path.name for path in PACKAGED.iterdir() if path.is_dir()]
    found = [name for name in sorted([*names, *FETCHED]) if name.startswith(incomplete)]
    folder, slash, start = incomplete.rpartition("/")
    for path in sorted(Path(f"{folder}/" if slash else ".").expanduser().glob(f"{escape(start)}*")):
        text = f"{folder}{slash}{path.name}"
        if path.suffix in (".gguf", ".rf8") or (path / "config.json").exists():
            found.append(text)
        elif path.is_dir() and not path.name.startswith("."):
            found.append(f"{text}/")
    return found


ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Directory, GGUF file, hub name, default", autocompletion=_models
    ),
]
ModelOrFileArgument = Annotated[
    str,
    typer.Argument(metavar="MODEL_OR_FILE", help="Model or image", autocompletion=_models),
]
SpanOption = Annotated[int, typer.Option(help=f"Exponents to keep: {', '.join(map(str, SPANS))}")]
ConfigOption = Annotated[str, typer.Option(help=f"Accelerator: {', '.join(CONFIGS)}")]
ArgmaxOption = Annotated[
    bool, typer.Option("--argmax", help="The machine finds the likeliest token; no logits")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output")]


def loaded(model: str) -> Model:
    """A model, once what a user should know of how it was read is said on standard error."""
    return noted(load_model(model))


def noted(found: M) -> M:
    """A model or a program, once what a user should know of it is said on standard error."""
    for note in found.notes:
        notes.print(note, soft_wrap=True)
    return found


def is_image(model_or_file: str) -> bool:
    """Whether a file is meant as a program image; the other files are models, in GGUF."""
    path = Path(model_or_file)
    return path.suffix != ".gguf" and path.is_file()


def saturation(count: int) -> str:
    """What to say of values that saturated; nothing of none."""
    if not count:
        return ""
    return (
        f"{count:,} values saturated at +-32,768 (the model's numbers are larger than the machine "
        "holds: what follows from them is wrong by as much)"
    )


def check_span(span: int) -> int:
    """The span, if it is one; else a UsageError."""
    if span not in SPANS:
        raise UsageError(f"--span is {span}, must be one of {', '.join(map(str, SPANS))}")
    return span
