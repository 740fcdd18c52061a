"""``python -m rf8.report``: measure everything and write the report."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rf8.console import Bar, notes
from rf8.errors import DataError
from rf8.report.page import write_report
from rf8.report.provenance import commit, versions
from rf8.report.schema import perplexities
from rf8.report.throughput import measure
from sim.build import BuildFailed
from sim.toolchain import ToolMissing

EXAMPLES = """examples:
  python -m rf8.report                    all into build/report
  python -m rf8.report -o /tmp/r --json   print the data too
  python -m rf8.report.check build/report look at the page in Chromium

Results are kept by content: a second run takes seconds."""


def collect() -> dict[str, Any]:
    """Measure what a report is made from (`rf8.report.schema.LISTS`)."""
    # Part by part, so that no part needs another's tools at import.
    area = importlib.import_module("rf8.report.area")
    timing = importlib.import_module("rf8.report.timing")
    with Bar("area") as progress:
        report: dict[str, Any] = dict(area.measure(progress))
    report["timing"] = timing.stored()
    report["targets"] = report["targets"] + timing.targets(report["timing"])
    with Bar("throughput") as progress:
        report["throughput"] = measure(progress=progress)
    return report | {"perplexity": perplexities(), "tools": versions(), "commit": commit()}


def main(
    arguments: list[str] | None = None, collect: Callable[[], dict[str, Any]] = collect
) -> int:
    """The command: 0 if the report was written, else 1 and one line on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m rf8.report",
        description="Measure area and throughput, and write index.html, report.md, report.json.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=Path, default=Path("build/report"), help="%(default)s"
    )
    parser.add_argument("--json", action="store_true", help="print report.json on standard output")
    options = parser.parse_args(arguments)
    try:
        written = write_report(collect(), options.output)
    except (DataError, ToolMissing, BuildFailed) as error:
        print(f"rf8.report: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(
            f"rf8.report: {error.name} is missing: pip install 'rf8[sim,gg,dev]'", file=sys.stderr
        )
        return 1
    if options.json:
        print(json.dumps(json.loads((options.output / "report.json").read_text())))
    for path in written:
        notes.print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
