import re

import pytest

from golden.config import CONFIGS
from hw.top import Accelerator
from hw.verilog import convert
from sim.check_verilog import lint, synthesize


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The file of config tiny."""
    path = tmp_path_factory.mktemp("verilog") / "rf8_tiny.v"
    path.write_text(convert(Accelerator(CONFIGS["tiny"]), name="rf8_tiny"))
    return path


def test_tiny_lints(tiny):
    text = tiny.read_text()
    assert lint(tiny, "rf8_tiny") == []
    # Of these, and of no others, it may not matter what is read while it is written.
    apart = re.findall(r"no_rw_check \*\) reg \[\d+:0\] \\?([a-z]+)", text)
    assert {"bank", "storage", "registers", "tops"} == set(apart)
    assert apart.count("bank") == CONFIGS["tiny"].cols
    assert nameless(text) == []
    ports = re.search(r"module rf8_tiny\((.*?)\);", text, re.DOTALL).group(1)
    names = {name.strip() for name in ports.split(",")}
    assert {"clk", "rst", "irq", "m_axi_araddr", "m_axi_wdata", "s_axi_rdata"} <= names


@pytest.mark.slow
def test_tiny_synthesises(tiny):
    complaints, counts = synthesize(tiny, "rf8_tiny")
    assert complaints == []
    assert counts["TRELLIS_FF"] > 1000 and counts["LUT4"] > counts["TRELLIS_FF"]
    assert counts["DP16KD"] > 0 and counts["TRELLIS_DPR16X4"] > 0


def nameless(text):
    """Signals that a reader of waveforms does not know: Amaranth found no name for them."""
    return re.findall(r"\$(?:signal|like)\b", text)


def test_text_is_the_same_every_time():
    config = CONFIGS["tiny"].replace(cols=1, align=4)  # lanes of one bin
    text = convert(Accelerator(config), name="a")
    assert text == convert(Accelerator(config), name="a")
    assert nameless(text) == []


def test_lint_finds_what_is_wrong(tmp_path):
    path = tmp_path / "bad.v"
    path.write_text("module bad(output x); assign x = y; endmodule")
    assert any("y" in line for line in lint(path, "bad"))
