"""The command ``rf8 quantize``."""

from __future__ import annotations

import json
import math
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
from rf8.quantize.levels import Coded, coded_mean, quantize_nearest, rounded_to_levels

if TYPE_CHECKING:
    from torch import Tensor

    from rf8.quantize.state import LayerReport


class Method(StrEnum):
    """How weights are rounded."""

    nearest = "nearest"
    paper = "paper"
    compensated = "compensated"


@app.command(
    epilog=(
        "Examples: [bold]rf8 quantize openai-community/gpt2 -o gpt2-rf8[/bold]; "
        "[bold]rf8 quantize smollm2-135m --calibration text.txt -o smol[/bold]; "
        "[bold]rf8 quantize smollm2-135m --bits 4.5 --calibration text.txt -o smol[/bold]. "
        "An interrupted run with calibration goes on where it stopped when it is started again."
    ),
)
def quantize(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory to write")],
    method: Annotated[
        Method | None,
        typer.Option(
            help="nearest: to the nearest code. paper: in the log domain (arXiv 2506.00486). "
            "compensated: so that outputs on calibration text change least (minutes). Without "
            "the option: compensated if there is text, else nearest"
        ),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Plain text, some 10,000 words, for compensated")
    ] = None,
    bits: Annotated[
        float | None,
        typer.Option(
            help="Bits a weight that linear layers shall have in the mean, once entropy-coded; "
            "images hold a byte a weight so far"
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            help="... or what a bit may cost: nats of a token's loss. Needs a calibration"
        ),
    ] = None,
    span: SpanOption = 16,
    as_json: JsonOption = False,
) -> None:
    """Quantise a model to RF8 and write it in Hugging Face layout."""
    check_span(span)
    if method is None:
        method = Method.nearest if calibration is None else Method.compensated
    if (method is Method.compensated) != (calibration is not None):
        raise UsageError("--method compensated and --calibration FILE go together: give both")
    if bits is not None and rate is not None:
        raise UsageError("--bits and --rate say the same: give one of them")
    if bits is not None and (method is Method.paper or not 0 < bits <= 8):
        raise UsageError(f"--bits is {bits:g}, must be above 0 and at most 8, not with paper")
    if rate is not None and (calibration is None or not 0 < rate < math.inf):
        raise UsageError(
            f"--rate is {rate:g}, must be positive and finite, and needs --calibration FILE"
        )
    source = loaded(model)
    reports: list[LayerReport] = []
    if calibration is not None:
        state = output.absolute().parent / f"{output.absolute().name}.partial"
        ids = read_tokens(source, calibration)
        if state.exists():
            notes.print(f"[dim]going on from {state}[/dim]")
        from rf8.quantize.calibrated import quantize_compensated

        with Bar("quantising") as step:
            result, reports = quantize_compensated(
                source, ids, span=span, bits=bits, price=rate, state=state, progress=step
            )
        result.save(output)
        shutil.rmtree(state, ignore_errors=True)
    elif bits is not None:
        with Bar("quantising") as step:
            result = quantize_nearest(source, bits, span=span, progress=step)
        result.save(output)
    else:
        rounding: Rounding = "paper" if method is Method.paper else "nearest_even"
        with Bar("quantising") as step:
            result = rf8.quantize.rounding.quantize(
                source, rounding=rounding, span=span, progress=step
            )
        result.save(output)
    linear = rounded_to_levels(result)
    rows = _rows(source, result, reports, linear)
    mean = coded_mean(linear.values()) if linear else None
    if as_json:
        found = {"output": str(output), "method": result.method, "bits": mean, "tensors": rows}
        print(json.dumps(found))
        return
    Console(highlight=False).print(_table(rows))
    print(f"wrote {output}")
    if mean is not None:
        print(f"{mean:.3f} bits a weight of the linear layers, coded, with tables and row biases")


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


def _rows(
    source: Model, result: Model, reports: list[LayerReport], linear: dict[str, Coded]
) -> list[dict[str, Any]]:
    from rf8.quantize import sqnr_db

    errors = {r.name: r for r in reports}
    rows = []
    for name, tensor in result.tensors.items():
        if isinstance(tensor, RF8Tensor):
            row: dict[str, Any] = {
                "name": name,
                "shape": list(tensor.codes.shape),
                # With a rate, the matrix that was rounded has other columns than the source's.
                "sqnr_db": None
                if linear and reports
                else min(sqnr_db(source, result, name), 999.0),
                "zeros": float((tensor.codes == 0).mean()),
            }
            if name in linear:
                row["bits"], row["entropy"] = linear[name].bits, linear[name].entropy
            if name in errors:
                row["output_error"] = errors[name].output_error
                row["nearest_output_error"] = errors[name].nearest_error
            rows.append(row)
    return rows


def _table(rows: list[dict[str, Any]]) -> Table:
    columns = {
        "sqnr_db": ("SQNR dB", 1, ".2f"),
        "zeros": ("zeros %", 100, ".2f"),
        "bits": ("bits", 1, ".3f"),
        "entropy": ("entropy", 1, ".3f"),
        "output_error": ("output error %", 100, ".4f"),
        "nearest_output_error": ("if nearest %", 100, ".4f"),
    }
    shown = {k: c for k, c in columns.items() if any(row.get(k) is not None for row in rows)}
    table = Table("tensor", "shape", *(title for title, _, _ in shown.values()), box=None)
    for row in rows:
        cells = [row["name"], " x ".join(map(str, row["shape"]))]
        for key, (_, factor, form) in shown.items():
            value = row.get(key)
            cells.append("" if value is None else format(value * factor, form))
        table.add_row(*cells)
    return table
