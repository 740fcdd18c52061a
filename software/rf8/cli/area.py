"""The command ``rf8 area``."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from rf8.cli.common import JsonOption, app
from rf8.console import Bar
from rf8.errors import UsageError
from rf8.report.schema import FORMATS, TARGETS

TITLES = {
    "target": "target",
    "act_bits": "bits",
    "format": "format",
    "style": "style",
    "align": "f",
    "lut_equiv": "LUT-eq",
    "lut": "LUT",
    "carry": "carry",
    "lutram": "RAM",
    "ff": "FF",
    "dsp": "DSP",
    "um2": "um2",
}


@app.command(
    epilog="Examples: [bold]rf8 area --target ecp5 --act-bits 8[/bold]; "
    "[bold]rf8 area --target sky130 --format rf8 --rows 4 --cols 1 --json[/bold].",
)
def area(
    target: Annotated[str | None, typer.Option(help=f"One of {', '.join(TARGETS)}")] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help=f"One of {', '.join(FORMATS)}")
    ] = None,
    act_bits: Annotated[int | None, typer.Option(help="Of an activation: 8 or 16")] = None,
    rows: Annotated[int, typer.Option(help="Of the array: a power of two, 2 to 128")] = 16,
    cols: Annotated[int, typer.Option(help="Of the array: 1 to 16")] = 4,
    as_json: JsonOption = False,
) -> None:
    """Area of one lane of each number format, by synthesis: minutes for all, kept for next time."""
    _one_of("target", target, TARGETS)
    _one_of("format", format_, FORMATS)
    _one_of("act-bits", act_bits, (8, 16))
    # Amaranth is imported there, and takes its time.
    from rf8.report.area import MAX_K, measure_lanes, variants

    try:
        jobs = variants(rows, cols)
    except ValueError as error:
        # "config 'array': rows is 3, must be ..."
        raise UsageError(f"--{str(error).partition(': ')[2]}") from error
    jobs = [
        job
        for job in jobs
        if target in (None, job.target)
        and format_ in (None, job.format)
        and act_bits in (None, job.act_bits)
    ]
    if not jobs:
        raise UsageError(f"--format {format_} is not measured on --target {target}: no DSP block")
    with Bar("area") as progress:
        lanes = measure_lanes(jobs, progress)
    if as_json:
        print(json.dumps(lanes))
        return
    console = Console(highlight=False)
    console.print(f"one lane of an array of {rows} x {cols}, dot products up to {MAX_K}")
    console.print(_table(lanes))


def _table(lanes: list[dict[str, Any]]) -> Table:
    titles = {k: t for k, t in TITLES.items() if any(lane[k] is not None for lane in lanes)}
    table = Table(*titles.values(), box=None)
    for lane in lanes:
        table.add_row(*("-" if lane[key] is None else f"{lane[key]}" for key in titles))
    return table


def _one_of(option: str, value: Any, allowed: Collection[Any]) -> None:
    if value is not None and value not in allowed:
        raise UsageError(f"--{option} is {value}, must be one of {', '.join(map(str, allowed))}")
