"""The commands ``rf8 experiment ...``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rf8.checkpoint.load import load_model
from rf8.checkpoint.model import Model
from rf8.cli.common import JsonOption, ModelArgument, app, loaded
from rf8.cli.quantize import read_tokens
from rf8.console import Bar
from rf8.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from rf8.evaluation.study import Study

experiment = typer.Typer(no_args_is_help=True, help="Test formats and methods on real models.")
app.add_typer(experiment, name="experiment")


@experiment.callback()
def group() -> None:
    """Test formats and methods on real models."""


OutputOption = Annotated[
    Path, typer.Option("-o", "--output", help="Directory for JSON, PNG and page")
]
DataOption = Annotated[
    Path, typer.Option(help="Where the default model's text is kept, fetched on first use")
]
DATA = Path("build/data")


@experiment.command(
    epilog="Example: [bold]rf8 experiment init -o docs/experiments[/bold] (some 40 minutes)."
)
def init(output: OutputOption, data: DataOption = DATA, as_json: JsonOption = False) -> None:
    """Convergence of small models from GG, PyTorch, Xavier, Kaiming and GPT-2 initialisation."""
    from rf8.experiments.init import run
    from rf8.experiments.study import default_text

    train, held_out = default_text(load_model("default"), data)
    with Bar("training") as step:
        _show(run(train, held_out, output, progress=step), as_json)


TextOption = Annotated[
    Path | None, typer.Option(help="Plain text to measure on; default: the held-out books")
]
TuningOption = Annotated[
    Path | None, typer.Option(help="Plain text to train on; default: the training books")
]
WindowsOption = Annotated[int, typer.Option(help="Windows of the context or 1,024 tokens")]


def _texts(
    source: Model, text: Path | None, other: Path | None, data: Path, needs_other: bool
) -> tuple[Tensor, Tensor]:
    """Token ids of two files, or of the default model's held-out and training books."""
    from rf8.experiments.study import default_text

    if text is not None and (other is not None or not needs_other):
        measured = read_tokens(source, text)
        return measured, measured[:0] if other is None else read_tokens(source, other)
    if text is not None or other is not None:
        raise UsageError(
            "two texts go together, one to measure on and one to learn from: give both"
        )
    train, held_out = default_text(source, data)
    return held_out, train


def _window(source: Model, windows: int) -> int:
    """Tokens in a window; UsageError for no windows."""
    if windows < 1:
        raise UsageError(f"--windows is {windows}, must be 1 or more")
    from rf8.quantize.calibrated import WINDOW

    return min(WINDOW, source.context)


@experiment.command(
    epilog=(
        "Examples: [bold]rf8 experiment deepshape build/train/default -o docs/experiments[/bold]; "
        "[bold]rf8 experiment deepshape smollm2-135m --text wiki.txt "
        "--no-recovery --windows 8 -o DIR[/bold]"
    )
)
def deepshape(
    model: ModelArgument,
    output: OutputOption,
    text: TextOption = None,
    tuning: TuningOption = None,
    windows: WindowsOption = 100,
    recovery: Annotated[bool, typer.Option(help="Fine-tune too, with three seeds")] = True,
    data: DataOption = DATA,
    as_json: JsonOption = False,
) -> None:
    """Bits a weight against perplexity: DeepShape beside plain rounding (half an hour)."""
    from rf8.experiments.deepshape import run

    source = loaded(model)
    window = _window(source, windows)
    measured, other = _texts(source, text, tuning, data, recovery)
    with Bar("measuring") as step:
        study = run(
            source, measured, other, output,
            window=window, windows=windows, recovery=recovery, progress=step,
        )  # fmt: skip
    _show(study, as_json)


@experiment.command(
    epilog="Example: [bold]rf8 experiment backslash -o docs/experiments[/bold] (half an hour)."
)
def backslash(output: OutputOption, data: DataOption = DATA, as_json: JsonOption = False) -> None:
    """Bits a weight against perplexity: small models trained with a rate term."""
    from rf8.experiments.backslash import run
    from rf8.experiments.study import default_text

    train, held_out = default_text(load_model("default"), data)
    with Bar("training") as step:
        _show(run(train, held_out, output, progress=step), as_json)


def _show(study: Study, as_json: bool) -> None:
    page = study.path.with_suffix(".md")
    print(study.path.read_text() if as_json else f"{page.read_text()}\nwrote {page}")


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

    source = loaded(model)
    _window(source, windows)
    measured, seen = read_tokens(source, text), read_tokens(source, calibration)
    with Bar("measuring") as step:
        _show(run(source, measured, seen, output, windows=windows, progress=step), as_json)
