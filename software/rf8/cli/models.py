"""Commands on models and images: compile, info, disasm."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import rf8
from golden.config import get_config
from rf8.checkpoint.model import Model
from rf8.cli.common import (
    ArgmaxOption,
    ConfigOption,
    JsonOption,
    ModelArgument,
    ModelOrFileArgument,
    app,
    is_image,
    loaded,
    noted,
)
from rf8.cli.profile import show
from rf8.console import Bar
from rf8.errors import UsageError
from rf8.export.flat import save_flat
from rf8.graph.ir import Graph
from rf8.program.disassembler import listing
from rf8.program.image import Program
from rf8.quantize.rounding import quantize
from rf8.runtime.profile import explain


@app.command(
    name="compile",
    epilog="Examples: [bold]rf8 compile gpt2-rf8 -o gpt2.rf8 --config sim[/bold]; "
    "[bold]rf8 compile gpt2-rf8 -o gpt2.rf8 --config ecp5 --flat gpt2.bin[/bold]",
)
def compile_command(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="Image file to write")],
    config: ConfigOption = "sim",
    context: Annotated[
        int | None, typer.Option(help="Most tokens of a sequence; the model's own by default")
    ] = None,
    argmax: ArgmaxOption = False,
    explained: Annotated[
        bool, typer.Option("--explain", help="Show layers, tiles, bytes and predicted cycles")
    ] = False,
    flat: Annotated[
        Path | None, typer.Option(help="Also write a flat image, for the C driver (docs/driver.md)")
    ] = None,
) -> None:
    """Compile a model to a program image. A float model is quantised on the way."""
    if argmax and flat is not None:
        raise UsageError("--argmax leaves no logits for the C driver: use --flat without it")
    program = compiled(loaded(model), config, context, argmax=argmax)
    program.save(output)
    if flat is not None:
        save_flat(program, flat)
    print(f"wrote {output}: {program.memory_bytes / 1e6:.1f} MB of memory, config {config}")
    if explained:
        show(explain(program))
        if 1 < program.config.cols <= program.context:
            show(explain(program, program.config.cols, head=False))


def compiled(
    model: Model,
    config: str,
    context: int | None = None,
    *,
    argmax: bool = False,
) -> Program:
    target = get_config(config)
    if model.span is None:
        with Bar("quantising") as step:
            model = quantize(model, span=target.span, progress=step)
    with Bar("compiling") as step:
        found = rf8.compile(model, config=target, context=context, argmax=argmax, progress=step)
    return noted(found)


@app.command(epilog="Example: [bold]rf8 info gpt2.rf8[/bold]")
def info(
    model_or_file: ModelOrFileArgument,
    as_json: JsonOption = False,
) -> None:
    """Show what a model or a program image holds."""
    if is_image(model_or_file):
        about = _about_program(noted(Program.load(model_or_file)))
    else:
        about = _about_model(loaded(model_or_file))
    if as_json:
        print(json.dumps(about))
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for key, value in about.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        table.add_row(key, str(value))
    Console(highlight=False).print(table)


def _about_model(model: Model) -> dict[str, Any]:
    weights = sum(math.prod(shape) for shape in model.graph.matrices().values())
    return {
        "model": model.name,
        "format": "float" if model.span is None else "RF8",
        "span": model.span,
        "method": model.method,
        "weights": weights,
        "shape": _shape(model.graph),
        "tokenizer": "tokenizer.json" in model.files,
    }


def _shape(graph: Graph) -> dict[str, Any]:
    """The numbers that people know a model by."""
    attentions = [op for _, op in graph.attentions()]
    return {
        "layers": len(attentions),
        "width": graph.ops[0].width,
        "heads": attentions[0].heads,
        "kv_heads": attentions[0].kv_heads,
        "head_width": attentions[0].width // attentions[0].heads,
        "context": graph.context,
        "vocab": graph.vocab,
        "tied": graph.tied,
    }


def _about_program(program: Program) -> dict[str, Any]:
    return {
        "image": program.model,
        "config": program.config.as_dict(),
        "architecture": program.architecture,
        "vocab": program.vocab,
        "memory_bytes": program.memory_bytes,
        "sections": {
            n: f"{data.size} bytes at {at:#x}" for n, (at, data) in program.sections.items()
        },
        "context": program.context,
        "programs": [
            f"{e.columns} columns, {'with' if e.head else 'no'} logits" for e in program.entries
        ],
        "tokenizer": "tokenizer.json" in program.files,
    }


@app.command(
    epilog="Examples: [bold]rf8 disasm gpt2.rf8[/bold]; "
    "[bold]rf8 disasm gpt2.rf8 --part h.0.attn --columns 1 --json[/bold]"
)
def disasm(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Program image")],
    part: Annotated[
        str | None, typer.Option(help="Parts of the model whose name begins so only")
    ] = None,
    columns: Annotated[int | None, typer.Option(help="One number of columns only")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the instructions of a program image, part by part (docs/isa.md)."""
    lines = list(listing(Program.load(file), part, columns))
    if as_json:
        print(json.dumps([asdict(line) for line in lines]))
        return
    before = None
    for line in lines:
        if (line.columns, line.head, line.part) != before:
            before = line.columns, line.head, line.part
            ends = "with logits" if line.head else "without logits"
            print(f"{line.part} ({line.columns} columns, {ends}):")
        print(f"  {line.address:08x}  {line.text}")
