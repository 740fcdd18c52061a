"""Benchmarks: every figure beside its target, printed and written to build/bench.json.

``python -m rf8.bench [--only TEXT]``. Ratios are measured side by side in one process; "one core"
means processor time of one thread.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from golden.config import get_config
from rf8.bench import gg, machine, quantize
from rf8.bench.figure import Figure

console = Console(highlight=False)

BENCHES: dict[str, Callable[..., Iterator[Figure]]] = {
    "encode": machine.bench_encode,
    "sqnr": machine.bench_sqnr,
    "compile": machine.bench_compile,
    "token": machine.bench_token,
    "golden": machine.bench_golden,
    "smollm2": machine.bench_smollm2,
    "amaranth": machine.bench_amaranth,
    "default": machine.bench_default,
    "fit": gg.bench_fit,
    "init": gg.bench_init,
    "deepshape": gg.bench_deepshape,
    "compensated": quantize.bench_compensated,
}
NEEDS_IMAGE = ("compile", "token", "golden")


def main() -> int:
    """Run the benchmarks, each in a process of its own: its peak memory is then its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=BENCHES, action="append", help="run this one (repeat)")
    parser.add_argument("--output", type=Path, default=Path("build/bench.json"))
    parser.add_argument("--image", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.image is not None:
        needs = options.only[0] in NEEDS_IMAGE
        figures = BENCHES[options.only[0]](*([options.image] if needs else []))
        print(json.dumps([asdict(f) | {"met": f.met} for f in figures]))
        return 0
    wanted = options.only or list(BENCHES)
    if {"token", "golden"} & set(wanted) and "compile" not in wanted:
        wanted = ["compile", *wanted]
    if {"token", "amaranth", "default"} & set(wanted):
        from sim.build import build_library
        from sim.stages import Stages

        with Stages() as stages:
            build_library(get_config("sim"), progress=stages)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "gpt2-124m.rf8"
        for name in wanted:
            with console.status(f"measuring {name}"):
                command = [sys.executable, "-m", "rf8.bench", "--only", name, "--image", str(image)]
                run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode:
                console.print(f"benchmark {name} failed:\n{run.stderr}", style="red", markup=False)
                return 1
            results += json.loads(run.stdout)
    for entry in results:
        entry.pop("better")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n")
    table = Table("figure", "value", "unit", "target", "met", box=None)
    for entry in results:
        target = "" if entry["target"] is None else f"{entry['target']:g}"
        met = {True: "yes", False: "[red]no[/red]", None: ""}[entry["met"]]
        table.add_row(entry["name"], f"{entry['value']:,.4g}", entry["unit"], target, met)
    console.print(table)
    console.print(f"wrote {options.output}")
    return int(any(entry["met"] is False for entry in results))


if __name__ == "__main__":
    sys.exit(main())
