"""The command ``rf8 quantize``."""

from __future__ import annotations

import json
import shutil
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import rf8.quantize.rounding
from golden.format import Rounding
from rf8.checkpoint.model import Model, RF8Tensor
from rf8.cli.common import JsonOption, ModelArgument, SpanOption, app, check_span, loaded
from rf8.console import Bar, notes
from rf8.errors import DataError, UsageError
from rf8.program.image import Program

if TYPE_CHECKING:
    from torch import Tensor

    from rf8.quantize.calibrated import LayerReport


class Method(StrEnum):
    """How weights are rounded."""

    nearest = "nearest"
    paper = "paper"
    compensated = "compensated"


@app.command(
    epilog=(
        "Examples: [bold]rf8 quantize openai-community/gpt2 -o gpt2-rf8[/bold]; "
        "[bold]rf8 quantize smollm2-135m --method compensated --calibration text.txt -o smol[/bold]"
        ". An interrupted compensated run goes on where it stopped when it is started again."
    ),
)
def quantize(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory to write")],
    method: Annotated[
        Method,
        typer.Option(
            help="nearest: to the nearest code. paper: in the log domain (arXiv 2506.00486). "
            "compensated: so that outputs on calibration text change least (minutes)"
        ),
    ] = Method.nearest,
    calibration: Annotated[
        Path | None, typer.Option(help="Plain text, some 10,000 words, for compensated")
    ] = None,
    span: SpanOption = 16,
    as_json: JsonOption = False,
) -> None:
    """Quantise a model to RF8 and write it in Hugging Face layout."""
    check_span(span)
    if (method is Method.compensated) != (calibration is not None):
        raise UsageError("--method compensated and --calibration FILE go together: give both")
    source = loaded(model)
    reports: list[LayerReport] = []
    if calibration is not None:
        state = output.absolute().parent / f"{output.absolute().name}.partial"
        result, reports = _compensated(source, calibration, span, state)
        result.save(output)
        shutil.rmtree(state, ignore_errors=True)
    else:
        rounding: Rounding = "paper" if method is Method.paper else "nearest_even"
        with Bar("quantising") as step:
            result = rf8.quantize.rounding.quantize(
                source, rounding=rounding, span=span, progress=step
            )
        result.save(output)
    rows = _rows(source, result, reports)
    if as_json:
        print(json.dumps({"output": str(output), "method": result.method, "tensors": rows}))
        return
    Console(highlight=False).print(_table(rows))
    print(f"wrote {output}")


def _compensated(
    source: Model, calibration: Path, span: int, state: Path
) -> tuple[Model, list[LayerReport]]:
    from rf8.quantize.calibrated import quantize_compensated

    ids = read_tokens(source, calibration)
    if state.exists():
        notes.print(f"[dim]going on from {state}[/dim]")
    with Bar("quantising") as step:
        return quantize_compensated(source, ids, span=span, state=state, progress=step)


def text_window(context: int, tokens: int) -> int:
    """Tokens of a window in which text is measured, for ``--tokens`` at most.

    Raises
    ------
    UsageError
        Where that is less than a window.
    """
    from rf8.quantize.calibrated import WINDOW

    window = min(WINDOW, context)
    if tokens < window:
        raise UsageError(f"--tokens is {tokens}, must be at least a window: {window}")
    return window


def read_tokens(model: Model | Program, path: Path) -> Tensor:
    """Token ids, int64 [n], of a text file; special tokens are not added.

    Raises
    ------
    DataError
        For a file that is no text, or a model without a tokenizer.
    """
    import torch

    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text: {error}") from error
    tokenizer = model.tokenizer()
    if tokenizer is None:
        name = model.name if isinstance(model, Model) else model.model
        raise DataError(f"{name} has no tokenizer.json, and text needs one")
    return torch.tensor(tokenizer.encode(text, add_special_tokens=False).ids)


def _rows(source: Model, result: Model, reports: list[LayerReport]) -> list[dict[str, Any]]:
    from rf8.quantize import sqnr_db

    errors = {r.name: r for r in reports}
    rows = []
    for name, tensor in result.tensors.items():
        if isinstance(tensor, RF8Tensor):
            row: dict[str, Any] = {
                "name": name,
                "shape": list(tensor.codes.shape),
                "sqnr_db": min(sqnr_db(source, result, name), 999.0),
                "zeros": float((tensor.codes == 0).mean()),
            }
            if name in errors:
                row["output_error"] = errors[name].output_error
                row["nearest_output_error"] = errors[name].nearest_error
            rows.append(row)
    return rows


def _table(rows: list[dict[str, Any]]) -> Table:
    compensated = any("output_error" in row for row in rows)
    extra = ("output error %", "if nearest %") if compensated else ()
    table = Table("tensor", "shape", "SQNR dB", "zeros %", *extra, box=None)
    for row in rows:
        shape = " x ".join(map(str, row["shape"]))
        cells = [row["name"], shape, f"{row['sqnr_db']:.2f}", f"{row['zeros'] * 100:.2f}"]
        if compensated:
            for key in ("output_error", "nearest_output_error"):
                value = row.get(key)
                cells.append("" if value is None else f"{value * 100:.4f}")
        table.add_row(*cells)
    return table
