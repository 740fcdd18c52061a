"""The command ``rf8 deepshape``."""

from __future__ import annotations

import json
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Column, Table

from rf8.cli.common import JsonOption, ModelArgument, app, loaded
from rf8.console import Bar
from rf8.errors import UsageError


class Group(StrEnum):
    """What shares one target."""

    tensor = "tensor"
    kind = "kind"
    model = "model"


@app.command(
    epilog=(
        "Examples: [bold]rf8 deepshape smollm2-135m --shape-factor 0.8 -o shaped[/bold]; "
        "[bold]rf8 deepshape shaped --undo -o back[/bold]"
    )
)
def deepshape(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory to write")],
    shape: Annotated[float | None, typer.Option(help="Shape of the targets")] = None,
    shape_factor: Annotated[float, typer.Option(help="... or this times the fitted one")] = 1.0,
    std: Annotated[float | None, typer.Option(help="Standard deviation of the targets")] = None,
    std_factor: Annotated[float, typer.Option(help="... or this times the fitted one")] = 1.0,
    step: Annotated[
        float | None, typer.Option(help="Weights become multiples of it; 2^-13 by default")
    ] = None,
    min_count: Annotated[
        float, typer.Option(help="Tails end where fewer weights are expected beyond")
    ] = 1.0,
    group: Annotated[
        Group, typer.Option(help="What shares a target: a tensor, its kind in all blocks, or all")
    ] = Group.tensor,
    undo: Annotated[bool, typer.Option(help="Undo it, as far as the kept means can")] = False,
    as_json: JsonOption = False,
) -> None:
    """Reshape a float model's weights to generalized Gaussians, ranks kept."""
    for name, value in (
        ("--shape", shape), ("--shape-factor", shape_factor), ("--std", std),
        ("--std-factor", std_factor), ("--step", step), ("--min-count", min_count),
    ):  # fmt: skip
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"{name} is {value}, must be positive and finite")
    if undo and any((shape, std, shape_factor != 1, std_factor != 1, step)):
        raise UsageError("--undo takes no target: leave the other options out")
    # They import torch, which takes seconds.
    from rf8.gg.rate import STEP, entropy_of
    from rf8.gg.reshape import REPORT, pack_changes, read_changes, reshape_model, undo_model

    step = STEP if step is None else step
    source = loaded(model)
    if undo:
        changes = read_changes(Path(model) / REPORT)
        undo_model(source, changes).save(output)
        worst = max(done.rms_undone / done.std for done in changes)
        if as_json:
            print(json.dumps({"output": str(output), "rms_over_std": worst}))
            return
        print(f"wrote {output}; within {worst:.2%} of the standard deviation of each group (RMS)")
        return
    with Bar("reshaping") as progress:
        result, changes = reshape_model(
            source,
            shape=shape,
            shape_factor=shape_factor,
            std=std,
            std_factor=std_factor,
            step=step,
            min_count=min_count,
            group=group.value,
            progress=progress,
        )
    replace(result, files=result.files | {REPORT: pack_changes(changes)}).save(output)
    rows: list[dict[str, Any]] = [
        {
            "group": done.names[0] if len(done.names) == 1 else f"{done.names[0]}, ...",
            "weights": done.n,
            "shape": done.shape,
            "new_shape": done.new_shape,
            "std": done.std,
            "new_std": done.new_std,
            "levels": int(np.count_nonzero(done.goal.counts)),
            "bits": entropy_of(done.goal.counts),
            "rms_change": done.rms_change,
        }
        for done in changes
    ]
    if as_json:
        print(json.dumps({"output": str(output), "step": step, "groups": rows}))
        return
    table = Table(
        Column("group", overflow="fold"), "weights", "shape", "std", "levels", "bits", "change %",
        box=None,
    )  # fmt: skip
    for row in rows:
        moved = row["rms_change"] / row["std"] * 100
        table.add_row(
            row["group"], f"{row['weights']:,}", f"{row['shape']:.2f} -> {row['new_shape']:.2f}",
            f"{row['std']:.4f} -> {row['new_std']:.4f}", f"{row['levels']:,}",
            f"{row['bits']:.2f}", f"{moved:.2f}",
        )  # fmt: skip
    Console(highlight=False).print(table)
    print(f"bits: entropy a weight. change: RMS, of the standard deviation. wrote {output}")
