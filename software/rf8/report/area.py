"""Area of lanes: arrays of every number format, by one flow. ``python -m rf8.report.area``.

An array is synthesised whole, its lanes and combiners as modules of their own, and its area divided
by its lanes: so decoders, columns and the way out of the results are counted in.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from golden.config import get_config
from rf8.cli.common import Bar, notes
from rf8.report.synthesis import synthesize
from sim.build import BuildFailed
from sim.toolchain import ToolMissing

Progress = Callable[[str, int, int], None]

ROWS, COLS, MAX_K, SPAN = 16, 4, 4096, 8
KEPT = r"lane\d+_\d+|combiner\d+"
BOOTH = ("int8", "booth", None)

VARIANTS: dict[str, list[tuple[str, str, int | None]]] = {
    # Where memories are made of look-up tables, bins are; elsewhere lanes shift all the way.
    "ecp5": [("rf8", "bins", 1), BOOTH, ("int8", "rows", None), ("e4m3", "bins", 2)],
    "sky130": [("rf8", "shifter", 3), BOOTH, ("int8", "multiply", None), ("e4m3", "shifter", 5)],
}
"""Target -> lanes that are measured: format, style, align."""


def measure(progress: Progress = lambda *_: None) -> dict[str, Any]:
    """The lists ``lanes``, ``components`` and ``targets`` of a report (`rf8.report.schema`).

    The last two are empty so far.

    Raises
    ------
    ToolMissing, BuildFailed
        Where a tool is not there or fails.
    """
    jobs = [(t, bits, *v) for t, found in VARIANTS.items() for bits in (8, 16) for v in found]
    lanes = []
    for number, (target, bits, name, style, align) in enumerate(jobs):
        progress(f"{name} {style}, {bits} bit, {target}", number, len(jobs))
        cells = synthesize(_array(name, style, bits, align), "array", target, KEPT)[""]
        columns = cells.columns(target)
        each = {k: v if v is None else round(v / (ROWS * COLS), 1) for k, v in columns.items()}
        record = {"format": name, "act_bits": bits, "align": align, "style": style}
        record |= {"span": SPAN if name == "rf8" else None, "target": target}
        lanes.append(record | each | {"amortised_over": f"{ROWS}x{COLS}"})
    progress("done", len(jobs), len(jobs))
    return {"lanes": lanes, "components": [], "targets": []}


def _array(name: str, style: str, bits: int, align: int | None) -> str:
    """Verilog of an array."""
    from hw.array import Array
    from hw.baselines import kind_of
    from hw.verilog import convert, merge_modules

    if name == "rf8":
        config = get_config("ecp5").replace(act_bits=bits, align=align, span=SPAN, max_k=MAX_K)
        array = Array(config.replace(rows=ROWS, cols=COLS))
    else:
        sizes = {"rows": ROWS, "cols": COLS, "act_bits": bits, "max_k": MAX_K}
        array = Array(kind=kind_of(name, **sizes, style=style, align=align))
    text: str = merge_modules(convert(array, name="array"))
    return text


def main() -> int:
    """Print the table; 0, or 1 and one line on standard error."""
    parser = argparse.ArgumentParser(prog="python -m rf8.report.area", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the records as JSON")
    options = parser.parse_args()
    try:
        with Bar("area") as progress:
            records = measure(progress)["lanes"]
    except (ToolMissing, BuildFailed) as error:
        notes.print(f"rf8.report.area: {error}", markup=False, soft_wrap=True)
        return 1
    if options.json:
        print(json.dumps(records))
        return 0
    titles = {"target": "target", "act_bits": "bits", "format": "format", "style": "style"}
    titles |= {"align": "f", "lut_equiv": "LUT-eq", "lut": "LUT", "carry": "carry"}
    titles |= {"lutram": "RAM", "ff": "FF", "um2": "um2"}
    table = Table(*titles.values(), box=None)
    for record in records:
        table.add_row(*("-" if record[key] is None else f"{record[key]}" for key in titles))
    console = Console(highlight=False)
    console.print(f"one lane of an array of {ROWS} x {COLS}, dot products up to {MAX_K}")
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
