"""The command ``rf8 rate``."""

from __future__ import annotations

import json
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Column, Table

from rf8.checkpoint.model import RF8Tensor
from rf8.cli.common import JsonOption, ModelArgument, app, loaded
from rf8.console import Bar
from rf8.errors import DataError, UsageError


@app.command(epilog="Example: [bold]rf8 rate default[/bold]")
def rate(
    model: ModelArgument,
    step: Annotated[
        float | None, typer.Option(help="Of uniform quantisation, 2^-13; RF8 codes need none")
    ] = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Bits a weight, each matrix coded on its own: entropy, Huffman, zstd, exponential-Golomb."""
    from rf8.gg import rate as measures  # it imports torch, which takes seconds

    step = measures.STEP if step is None else step
    if not 0 < step < float("inf"):
        raise UsageError(f"--step is {step}, must be positive and finite")
    source = loaded(model)
    names = source.matrices()
    found: dict[str, dict[str, float]] = {}
    sizes = []
    with Bar("coding") as progress:
        for number, name in enumerate(names):
            progress(name, number, len(names))
            tensor = source.tensors[name]
            try:
                symbols = (
                    tensor.codes.astype(np.int64).ravel()
                    if isinstance(tensor, RF8Tensor)
                    else measures.quantize_uniform(tensor, step, name=name)
                )
                found[name] = measures.rates(symbols)
            except ValueError as error:
                raise DataError(f"{name}: {error}") from error
            sizes.append(symbols.size)
    columns = list(next(iter(found.values())))
    total = {
        c: float(np.average([rates[c] for rates in found.values()], weights=sizes)) for c in columns
    }
    if as_json:
        kind = {"step": step} if source.span is None else {"span": source.span}
        print(json.dumps({"model": source.name, **kind, "total": total, "tensors": found}))
        return
    shown = ("entropy", "huffman", "zstd")
    table = Table(
        Column("tensor", overflow="fold"), *shown, "golomb (k)", "golomb, ranked (k)", box=None
    )
    for name, rates in [*found.items(), ("all", total)]:
        cells = [f"{rates[column]:.2f}" for column in shown]
        for ranked in ("", "-ranked"):
            best, k = min((rates[f"golomb-{k}{ranked}"], k) for k in range(4))
            cells.append(f"{best:.2f} ({k})")
        table.add_row(name, *cells)
    Console(highlight=False).print(table)
    what = f"multiples of {step:g}" if source.span is None else "RF8 codes"
    print(f"bits a weight, of {what}; all but the entropy are lengths of streams with their tables")
