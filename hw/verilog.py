"""Amaranth components to Verilog-2005."""

from amaranth._toolchain.yosys import find_yosys
from amaranth.back import rtlil

# Enables and resets become `if` in clocked blocks: smaller text, and simulators skip idle logic.
SCRIPT = """
read_rtlil <<rtlil
{rtlil}
rtlil
hierarchy -check -top {top}
proc
memory_collect
opt_expr
opt_clean
opt_dff -simple-dffe
opt_clean
attrmap -remove keep_hierarchy -remove src
write_verilog -noattr -norename
"""


def convert(component, *, name: str) -> str:
    """The Verilog text of ``component`` and everything below it, its top module ``name``."""
    text = rtlil.convert(component, name=name, emit_src=False)
    yosys = find_yosys(lambda version: version >= (0, 40))
    return yosys.run(["-q", "-"], SCRIPT.format(rtlil=text, top=name))
