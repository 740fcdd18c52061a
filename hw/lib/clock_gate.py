"""The clock of a unit that is idle most of the time: to a simulator it stands still meanwhile."""

from amaranth.hdl import ClockDomain, ClockSignal, DomainRenamer, Instance, ResetSignal

from .adders import VERILOG_PLATFORM

VERILOG = """
// Passes the clock on. In Verilator only while it is wanted: an idle unit then costs no time.
module rf8_gate (input clk, input wanted, output gated);
`ifdef VERILATOR
  reg open;
  /* verilator lint_off LATCH */
  always @* if (!clk) open = wanted;
  /* verilator lint_on LATCH */
  assign gated = clk & open;
`else
  assign gated = clk;
`endif
endmodule
"""


def gated(m, name: str, unit, wanted, platform, *, resets: str):
    """``unit`` on a clock of its own that need not tick in cycles in which ``wanted`` is low.

    ``name``: of the clock domain. ``resets``: the domain in which the unit was, whose reset it
    keeps.

    The unit must keep its outputs and its state while ``wanted`` is low. This is for simulation of
    the Verilog, where an idle unit then costs no time; elsewhere the unit is returned as it was.
    """
    if platform != VERILOG_PLATFORM:
        return unit
    m.domains += ClockDomain(name, local=True)
    m.submodules[f"{name}_gate"] = Instance(
        "rf8_gate", i_clk=ClockSignal(), i_wanted=wanted, o_gated=ClockSignal(name)
    )
    m.d.comb += ResetSignal(name).eq(ResetSignal(resets))
    return DomainRenamer({resets: name})(unit)
