"""The command ``rf8 verilog``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from golden.config import CONFIGS, AccelConfig, get_config
from golden.format import SPANS
from rf8.cli.common import JsonOption, app
from rf8.console import notes
from rf8.errors import UsageError
from rf8.export import BOARDS, write_verilog

NAMES = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

SHAPE = "Shape (each overrides the config)"


def _shape(text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(help=text, rich_help_panel=SHAPE)
    return option


@app.command(
    epilog="Examples: [bold]rf8 verilog --config ecp5 --board ulx3s -o build/ecp5[/bold]; "
    "[bold]rf8 verilog --rows 16 --cols 4 --act-bits 8 --bus-bits 128 -o build/mine[/bold]; "
    "then [bold]make icarus[/bold] in that directory.",
)
def verilog(
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory to write into")],
    config: Annotated[str, typer.Option(help=f"Start from: {', '.join(CONFIGS)}")] = "sim",
    name: Annotated[
        str | None, typer.Option(help="Of the module, after rf8_ (custom, if the shape is yours)")
    ] = None,
    board: Annotated[
        str | None, typer.Option(help=f"Top and pins for a board: {', '.join(BOARDS)}")
    ] = None,
    rows: Annotated[int | None, _shape("Output channels side by side: 2 to 128")] = None,
    cols: Annotated[int | None, _shape("Tokens side by side: 1 to 16")] = None,
    act_bits: Annotated[int | None, _shape("Activation mantissa: 8 or 16")] = None,
    bus_bits: Annotated[int | None, _shape("Memory bus: 8, 16 or 32 times the rows")] = None,
    align: Annotated[int | None, _shape("Exponent bits a lane shifts by: 0 to 4")] = None,
    span: Annotated[int | None, _shape(f"Exponents: {', '.join(map(str, SPANS))}")] = None,
    max_k: Annotated[int | None, _shape("Longest dot product: up to 32768")] = None,
    scratch_words: Annotated[int | None, _shape("Depth of a scratchpad bank")] = None,
    fifo_beats: Annotated[int | None, _shape("Depth of the weight FIFO")] = None,
    burst_beats: Annotated[int | None, _shape("Longest burst on the bus")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the accelerator as Verilog, with testbench, register map, C driver and Makefile."""
    changes = {
        "rows": rows,
        "cols": cols,
        "act_bits": act_bits,
        "align": align,
        "span": span,
        "max_k": max_k,
        "scratch_words": scratch_words,
        "fifo_beats": fifo_beats,
        "burst_beats": burst_beats,
    }
    given = {field: value for field, value in changes.items() if value is not None}
    target = _derived(get_config(config), given, bus_bits, name)
    files = write_verilog(target, output, board=board)
    if as_json:
        print(json.dumps([str(path) for path in files]))
        return
    if board is not None and output / f"top_{board}.v" not in files:
        notes.print(f"no files for {board}: the machine does not fit it, see README.md")
    print(f"wrote {len(files)} files to {output}: make -C {output} icarus")


def _derived(
    base: AccelConfig, changes: dict[str, int], bus_bits: int | None, name: str | None
) -> AccelConfig:
    """The config with the user's changes.

    Raises
    ------
    UsageError
        Where there is no such machine; the message names option, value and choices.
    """
    own = bool(changes) or bus_bits is not None
    name = name if name is not None else "custom" if own else base.name
    if not NAMES.fullmatch(name):
        raise UsageError(f"--name is {name!r}, must be letters, digits and _, a letter first")
    rows = changes.get("rows", base.rows)
    bits = base.bus_bytes * 8 if bus_bits is None else bus_bits
    try:
        # A bus of no whole bytes is as wrong as one of none.
        bus_bytes = bits // 8 if bits % 8 == 0 else 0
        return base.replace(name=name, bus_bytes=bus_bytes, **changes)
    except ValueError as error:
        message = str(error).removeprefix(f"config {name!r}: ")
        field, _, rest = message.partition(" ")
        if field == "bus_bytes":
            rest = f"is {bits}, must be 8, 16 or 32 times the rows ({rows}), and 32 to 1024"
            field = "bus_bits"
        raise UsageError(f"--{field.replace('_', '-')} {rest}") from error
