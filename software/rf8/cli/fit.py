"""The command ``rf8 fit``."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from rf8.cli.common import JsonOption, ModelArgument, app, loaded
from rf8.console import Bar
from rf8.errors import DataError


class FitMethod(StrEnum):
    """How the parameters are found."""

    moments = "moments"
    mle = "mle"


@app.command(
    epilog="Example: [bold]rf8 fit smollm2-135m -o build/fit[/bold], then open fit.html there",
)
def fit(
    model: ModelArgument,
    method: Annotated[FitMethod, typer.Option(help="Moments, or maximum likelihood")]
    = FitMethod.mle,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Directory for pictures and fit.html")
    ] = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Fit a generalized Gaussian to each matrix: is it the better description of the weights?"""
    from rf8 import gg
    from rf8.gg.report import as_row, write_report

    source = loaded(model)
    names = source.matrices()
    fits: dict[str, gg.GGFit] = {}
    with Bar("fitting") as step:
        for number, name in enumerate(names):
            step(name, number, len(names))
            try:
                fits[name] = gg.fit(source.float_tensor(name), method.value, name=name)
            except ValueError as error:
                raise DataError(str(error)) from error
    if output is not None:
        with Bar("drawing") as step:
            write_report(output, source.name, fits, source.float_tensor, progress=step)
    rows = {name: as_row(found) for name, found in fits.items()}
    if as_json:
        print(json.dumps({"model": source.name, "tensors": rows}))
        return
    table = Table(
        Column("tensor", overflow="fold"),
        "n",
        "shape",
        "±",
        "scale",
        "over Gaussian",
        "over Laplace",
        "",
        box=None,
    )
    for name, row in rows.items():
        table.add_row(
            name, f"{row['n']:,}", f"{row['shape']:.3f}", f"{row['shape_se']:.3f}",
            f"{row['scale']:.4g}", f"{row['gain_over_gaussian']:+.4f}",
            f"{row['gain_over_laplace']:+.4f}",
            "" if row["beats_gaussian"] else "no better than a Gaussian",
        )  # fmt: skip
    Console(highlight=False).print(table)
    print("gains: nats a weight by Akaike's criterion; above 0 the fit is the better description")
    if output is not None:
        print(f"wrote {output}")
