"""The command ``rf8 profile``, and the table of ``rf8 compile --explain``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from rf8.cli.common import JsonOption, app
from rf8.console import notes
from rf8.errors import UsageError
from rf8.program.image import Program
from rf8.runtime.profile import Layer, Profile, plot, profile
from sim.stages import Stages

PICTURES = (".png", ".svg", ".pdf")
WAITS = ("fetch", "memory", "weights", "drain")
"""`rf8.program.cycles.Cost.waits`."""
STALLS = {
    "vector": "vector", "load": "load", "store": "store", "stall_weights": "weights",
    "stall_drain": "drain",
}  # fmt: skip
"""Counters of the machine, and what the table calls them."""


@app.command(
    "profile",
    epilog="Example: [bold]rf8 profile gpt2.rf8 --position 128 --plot roofline.png[/bold]. "
    "Exit codes: 0 done, 1 bad data, 2 bad usage.",
)
def profile_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Program image")],
    columns: Annotated[int, typer.Option(help="Tokens at once: 1, or all columns")] = 1,
    position: Annotated[
        int | None, typer.Option(help="Of the first token; 128 by default, or the last that fits")
    ] = None,
    head: Annotated[bool, typer.Option(help="With the logits, or without")] = True,
    latency: Annotated[int, typer.Option(help="Memory latency, cycles")] = 60,
    picture: Annotated[
        Path | None, typer.Option("--plot", help="Write a roofline plot to this PNG file")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run tokens on the simulated RTL, and show predicted beside measured cycles, by layer."""
    if picture is not None and picture.suffix.lower() not in PICTURES:
        raise UsageError(f"--plot is {picture}, must end in one of: {', '.join(PICTURES)}")
    with Stages(notes) as stages:
        found = profile(Program.load(file), columns, head, position, latency, progress=stages)
    if as_json:
        print(json.dumps(found.as_dict()))
    else:
        show(found)
    if picture is not None:
        plot(found, picture)


def show(found: Profile) -> None:
    """The table: a line for each layer, and the sum."""
    measured = found.total.measured is not None
    numbers = ["instr.", "tiles", "MB read", "predicted"]
    numbers += ["measured", "off"] if measured else []
    numbers += ["MACs", "bus", *(STALLS.values() if measured else WAITS)]
    table = Table(
        "layer",
        *(Column(name, justify="right") for name in numbers),
        caption="cycles; of all MACs and of the bus; then cycles in units, or lost to"
        if measured
        else "cycles; of all MACs and of the bus; then cycles in which nothing was done, by cause",
        title=f"{found.program.model}, config {found.program.config.name}, "
        f"{found.entry.columns} column(s), position {found.position}, latency {found.latency}"
        + ("" if found.entry.head else ", without logits"),
    )
    for layer in found.layers:
        table.add_row(*_row(found, layer, measured))
    table.add_section()
    table.add_row(*_row(found, found.total, measured))
    Console(highlight=False).print(table)


def _row(found: Profile, layer: Layer, measured: bool) -> list[str]:
    cells = [layer.name, f"{layer.instructions:,}", f"{layer.tiles:,}", f"{layer.read / 1e6:.2f}"]
    cells.append(f"{layer.predicted:,}")
    if measured:
        off = layer.predicted / (layer.measured or 1) - 1
        cells += [f"{layer.measured:,}", f"{off:+.1%}"]
    cells += [f"{found.mac_use(layer):.1%}", f"{found.bus_use(layer):.1%}"]
    lost, names = (layer.counters, tuple(STALLS)) if measured else (layer.waits, WAITS)
    return [*cells, *(f"{lost[name]:,}" for name in names)]
