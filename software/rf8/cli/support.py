"""The command `models`: what runs, and the page that shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from rf8.checkpoint.families import FAMILIES
from rf8.cli.common import JsonOption, app
from rf8.console import Bar
from rf8.errors import UsageError
from rf8.files import replaced_file


@app.command(
    epilog="Examples: [bold]rf8 models[/bold]; [bold]rf8 models --check --only qwen3[/bold]; "
    "[bold]rf8 models --check -o docs/support.md[/bold]"
)
def models(
    check: Annotated[
        bool, typer.Option("--check", help="Try each on a small model, RTL too (minutes)")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="This family only, by its model_type (repeat)")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Page to write, in Markdown")
    ] = None,
    rtl: Annotated[bool, typer.Option(help="Run the simulated hardware, too")] = True,
    as_json: JsonOption = False,
) -> None:
    """List the model families that run; with --check, try them."""
    kinds = only or list(FAMILIES)
    for kind in kinds:
        if kind not in FAMILIES:
            raise UsageError(f"--only is {kind!r}, must be one of {', '.join(FAMILIES)}")
    if not check:
        if output is not None or not rtl:
            raise UsageError("--output and --no-rtl are of --check: give it, too")
        _list(kinds, as_json)
        return
    from rf8.report import support

    checks, known = [], [k for k in support.KNOWN if k.kind in kinds]
    sizes = []
    with Bar("checking") as step:
        for number, kind in enumerate(kinds):
            step(kind, number, len(kinds) + len(known))
            checks.append(support.check_family(kind, rtl=rtl))
        for number, one in enumerate(known):
            step(one.name, len(kinds) + number, len(kinds) + len(known))
            sizes.append(support.sizes(one))
    text = support.page(checks, sizes)
    if output is not None:
        with replaced_file(output) as temporary:
            temporary.write_text(text)
    if as_json:
        print(json.dumps({"families": [c.as_dict() for c in checks],
                          "models": [s.as_dict() for s in sizes]}))  # fmt: skip
    elif output is None:
        print(text, end="")
    else:
        print(f"wrote {output}: {len(checks)} families, {len(sizes)} models")


def _list(kinds: list[str], as_json: bool) -> None:
    found = [
        {"model_type": kind, "family": FAMILIES[kind].title, "gguf": FAMILIES[kind].gguf}
        for kind in kinds
    ]
    if as_json:
        print(json.dumps(found))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("family", "model_type", "GGUF"):
        table.add_column(title)
    for one in found:
        table.add_row(one["family"], one["model_type"], one["gguf"] or "")
    Console(highlight=False).print(table)
