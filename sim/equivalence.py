"""Whether the hardware of two checkouts is the same netlist but for names.

``python -m sim.equivalence OTHER [--config NAME ...]``: of this checkout and of that in the folder
OTHER, for instance a clone of an earlier commit; the exit code is 1 where they differ.

Yosys flattens both. Then the netlists are walked from the outputs of the top module towards its
inputs, side by side: cells must have the same type and parameters and be connected in the same way,
flip-flops and memories must start with the same values. Names of wires, cells and modules, and how
the design is cut into modules, do not matter. Nothing is searched for: a change that computes the
same by other gates is reported as a difference.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amaranth._toolchain.yosys import find_yosys

from golden.config import CONFIGS

SCRIPT = """
read_rtlil <<rtlil
{rtlil}
rtlil
hierarchy -top {top}
proc
flatten
memory_collect
opt_expr
opt_merge
opt_clean -purge
write_json
"""
MAKE = """
import gc, sys
gc.disable()
from amaranth.back import rtlil
from golden.config import CONFIGS
from hw.verilog import VERILOG_PLATFORM
from hw.top import Accelerator
config, name = CONFIGS[sys.argv[1]], sys.argv[2]
text = rtlil.convert(Accelerator(config), name=name, emit_src=False, platform=VERILOG_PLATFORM)
print(text)
"""
"""Prints the RTLIL of a config; run in the folder of a checkout."""

TOP = "rf8"
NAMED = ("MEMID",)
"""Parameters of cells that hold names only."""

BOXES = {"rf8_addsub": ("y",), "rf8_addmux": ("y",), "rf8_gate": ("gated",)}
"""Modules that hw writes in Verilog by hand, and their outputs: cells without content here."""

Bit = int | str
"""A net of a flattened module by its number, or a constant ``"0"``, ``"1"``, ``"x"``."""


class Different(Exception):
    """The netlists differ; the message names the first place that was found."""


@dataclass(frozen=True)
class Netlist:
    """A flattened module.

    ``ports``: name -> (direction, nets); ``cells``: name -> Yosys' JSON of a cell; ``drivers``:
    net -> (cell, output port, index); ``inits``: net -> start value of its flip-flop.
    """

    ports: dict[str, tuple[str, list[Bit]]]
    cells: dict[str, dict[str, Any]]
    drivers: dict[Bit, tuple[str, str, int]]
    inits: dict[Bit, str]


def make_rtlil(checkout: Path, config: str) -> str:
    """The RTLIL of ``config`` as the sources in the folder ``checkout`` make it.

    Raises
    ------
    ValueError
        Where they do not.
    """
    for part in ("hw/top.py", "golden/config.py"):
        if not (checkout / part).is_file():  # else an installed one would be taken
            raise ValueError(f"{checkout} is no checkout of this project: it has no {part}")
    command = [sys.executable, "-c", MAKE, config, TOP]
    env = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
    run = subprocess.run(command, cwd=checkout, capture_output=True, text=True, env=env)
    if run.returncode:
        raise ValueError(f"{checkout}: {run.stderr.strip().splitlines()[-1]}")
    return run.stdout


def read_netlist(rtlil: str) -> Netlist:
    """Flatten a design in RTLIL whose top module is `TOP`."""
    yosys = find_yosys(lambda version: version >= (0, 40))
    text = yosys.run(["-q", "-"], SCRIPT.format(rtlil=rtlil, top=TOP))
    module = json.loads(text)["modules"][TOP]
    drivers: dict[Bit, tuple[str, str, int]] = {}
    for name, cell in module["cells"].items():
        for port, bits in cell["connections"].items():
            if _is_output(cell, port):
                drivers |= {bit: (name, port, index) for index, bit in enumerate(bits)}
    inits: dict[Bit, str] = {}
    for net in module["netnames"].values():
        if (init := net["attributes"].get("init")) is not None:
            pairs = zip(net["bits"], reversed(init), strict=False)
            inits |= {bit: value for bit, value in pairs if value != "x"}
    ports = {name: (port["direction"], port["bits"]) for name, port in module["ports"].items()}
    return Netlist(ports, module["cells"], drivers, inits)


def _is_output(cell: dict[str, Any], port: str) -> bool:
    if cell["type"] in BOXES:
        return port in BOXES[cell["type"]]
    return bool(cell["port_directions"][port] == "output")


def compare(old: Netlist, new: Netlist) -> Counter[str]:
    """How many cells of each type were matched, one to one.

    Raises
    ------
    Different
        Where ports, a cell, a connection or a start value differ.
    """

    def need(ok: bool, what: str) -> None:
        if not ok:
            raise Different(what)

    shapes = [{n: (d, len(bits)) for n, (d, bits) in side.ports.items()} for side in (old, new)]
    need(shapes[0] == shapes[1], f"ports differ: {shapes[0].items() ^ shapes[1].items()}")
    partner: dict[Bit, Bit] = {}
    taken: dict[Bit, Bit] = {}
    matched: dict[str, str] = {}
    counts: Counter[str] = Counter()
    waiting: list[tuple[Bit, Bit, str]] = []
    for name, (direction, bits) in old.ports.items():
        for index, pair in enumerate(zip(bits, new.ports[name][1], strict=True)):
            if direction == "input":
                partner[pair[0]], taken[pair[1]] = pair[1], pair[0]
            else:
                waiting.append((*pair, f"{name}[{index}]"))
    while waiting:
        a, b, place = waiting.pop()
        if isinstance(a, str) or isinstance(b, str):
            need(a == b, f"{place}: constant {a} against {b}")
            continue
        if a in partner or b in taken:
            need(partner.get(a) == b and taken.get(b) == a, f"{place}: other nets meet here")
            continue
        need((a in old.drivers) == (b in new.drivers), f"{place}: driven on one side only")
        partner[a], taken[b] = b, a
        if a not in old.drivers:
            continue
        (cell, port, index), (other, other_port, other_index) = old.drivers[a], new.drivers[b]
        need((port, index) == (other_port, other_index), f"{place}: {cell}.{port} / {other_port}")
        if cell in matched:
            need(matched[cell] == other, f"{place}: {cell} is {matched[cell]} and {other}")
            continue
        matched[cell] = other
        _match_cells(old, new, cell, other, need)
        counts[old.cells[cell]["type"]] += 1
        for name, bits in old.cells[cell]["connections"].items():
            others = new.cells[other]["connections"][name]
            for index, pair in enumerate(zip(bits, others, strict=True)):
                if _is_output(old.cells[cell], name):
                    need(
                        old.inits.get(pair[0]) == new.inits.get(pair[1]),
                        f"{cell}.{name}[{index}]: another start value",
                    )
                waiting.append((*pair, f"{cell}.{name}[{index}]"))
    for side, used in ((old, set(matched)), (new, set(matched.values()))):
        need(len(used) == len(side.cells), f"not reached: {sorted(set(side.cells) - used)[:3]}")
    return counts


def _match_cells(old: Netlist, new: Netlist, cell: str, other: str, need: Any) -> None:
    """Type, parameters and widths of two cells."""
    one, two = old.cells[cell], new.cells[other]
    need(one["type"] == two["type"], f"{cell} is {one['type']}, {other} is {two['type']}")
    parameters = [
        {key: value for key, value in each["parameters"].items() if key not in NAMED}
        for each in (one, two)
    ]
    need(parameters[0] == parameters[1], f"{cell} and {other}: parameters differ")
    widths = [{n: len(bits) for n, bits in each["connections"].items()} for each in (one, two)]
    need(widths[0] == widths[1], f"{cell} and {other}: ports differ")


def main() -> int:
    """Compare configs; a line for each, and the first difference."""
    parser = argparse.ArgumentParser(prog="python -m sim.equivalence", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("other", type=Path, help="folder of the other checkout")
    parser.add_argument("--config", nargs="+", choices=CONFIGS, default=list(CONFIGS))
    options = parser.parse_args()
    ours = Path(__file__).parents[1]
    for config in options.config:
        try:
            netlists = [read_netlist(make_rtlil(p, config)) for p in (options.other, ours)]
            counts = compare(*netlists)
        except (Different, OSError, ValueError) as error:
            print(f"{config}: {error}", file=sys.stderr)
            return 1
        states = sum(count for kind, count in counts.items() if "dff" in kind or "mem" in kind)
        print(
            f"{config}: the same netlist but for names; {counts.total():,} cells matched one to "
            f"one, {states:,} of them registers and memories",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
