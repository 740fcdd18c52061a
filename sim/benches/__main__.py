"""Run testbenches: ``python -m sim.benches``."""

from __future__ import annotations

import argparse
import json
import sys
import time

from rich.console import Console
from rich.table import Table

from sim.benches.runner import BENCHES, Result, run_benches, select

EPILOG = f"""benches:
  {", ".join(BENCHES)}

examples:
  python -m sim.benches                               all of them
  python -m sim.benches --only lane                   matrix/lane: the end of a name is enough
  python -m sim.benches --only lane decode --seed 7   two of them, with other random numbers
  python -m sim.benches --only lane --waves           and a waveform

Exit codes: 0 all passed, 1 one failed, 2 bad usage."""


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m sim.benches",
        description="Build the testbenches of hw with Verilator and run them with cocotb.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", default=BENCHES, help="some of them")
    parser.add_argument("--seed", type=int, default=1, help="of all random numbers (default 1)")
    parser.add_argument("--jobs", type=int, default=2, help="benches at a time (default 2)")
    parser.add_argument(
        "--waves", action="store_true", help="write a waveform of each into build/benches/runs"
    )
    parser.add_argument("--json", action="store_true", help="print results as JSON")
    options = parser.parse_args(arguments)
    try:
        names = select(options.only)
        if options.seed < 0 or options.jobs < 1:
            raise ValueError("--seed must be 0 or more, --jobs 1 or more")
    except ValueError as error:
        print(f"sim.benches: {error}", file=sys.stderr)
        return 2

    console = Console(stderr=options.json)
    started = time.monotonic()
    console.print(f"{len(names)} testbenches, seed {options.seed}", highlight=False)

    def progress(result: Result) -> None:
        state = "passed" if result.passed else "FAILED"
        times = f"{result.seconds:.1f} s after {result.build_seconds:.1f} s of building"
        console.print(f"  {result.name}: {state}, {times}", highlight=False)

    results = run_benches(names, options.seed, options.jobs, progress, options.waves)
    if options.json:
        print(json.dumps({"seed": options.seed, "benches": [r.as_dict() for r in results]}))
    else:
        console.print(_table(results, time.monotonic() - started))
    for result in results:
        if result.waveform is not None:
            console.print(f"{result.name}: {result.waveform}", highlight=False, soft_wrap=True)
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
