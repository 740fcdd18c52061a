"""Run testbenches: ``python -m sim.benches [--only NAME ...] [--seed N] [--jobs N] [--json]``."""

from __future__ import annotations

import argparse
import json
import sys
import time

from rich.console import Console
from rich.table import Table

from sim.benches.runner import BENCHES, Result, run_benches


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sim.benches", description=__doc__)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=BENCHES,
        metavar="NAME",
        default=BENCHES,
        help="benches to run: " + ", ".join(BENCHES),
    )
    parser.add_argument("--seed", type=int, default=1, help="of all random numbers (default 1)")
    parser.add_argument("--jobs", type=int, default=2, help="benches at a time (default 2)")
    parser.add_argument("--json", action="store_true", help="print results as JSON")
    options = parser.parse_args()

    console = Console(stderr=options.json)
    started = time.monotonic()
    console.print(f"{len(options.only)} testbenches, seed {options.seed}", highlight=False)

    def progress(result: Result) -> None:
        state = "passed" if result.passed else "FAILED"
        times = f"{result.seconds:.1f} s after {result.build_seconds:.1f} s of building"
        console.print(f"  {result.name}: {state}, {times}", highlight=False)

    results = run_benches(list(options.only), options.seed, options.jobs, progress)
    if options.json:
        print(json.dumps({"seed": options.seed, "benches": [r.as_dict() for r in results]}))
    else:
        console.print(_table(results, time.monotonic() - started))
    for result in results:
        if not result.passed:
            console.print(f"[red]{result.name}[/red]:", result.failure, highlight=False)
            console.print("  log:", result.log, highlight=False)
    return 0 if all(result.passed for result in results) else 1


def _table(results: list[Result], seconds: float) -> Table:
    table = Table(show_footer=True)
    passed = sum(result.passed for result in results)
    table.add_column("testbench", "total")
    table.add_column("configurations")
    table.add_column("checks", f"{sum(r.checks for r in results):,}", justify="right")
    table.add_column("cycles", f"{sum(r.cycles for r in results):,}", justify="right")
    table.add_column("seconds", f"{seconds:.1f}", justify="right")
    table.add_column("result", f"{passed} of {len(results)}")
    for r in results:
        state = "[green]passed[/green]" if r.passed else "[red]FAILED[/red]"
        row = [r.name, r.configurations, f"{r.checks:,}", f"{r.cycles:,}", f"{r.seconds:.1f}"]
        table.add_row(*row, state)
    return table


if __name__ == "__main__":
    sys.exit(main())
