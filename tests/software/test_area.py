"""Synthesis for the report: cells of SKY130, counts, module merging, what a failure says."""

import re

import pytest

from golden.config import CONFIGS
from hw.array import Array
from hw.verilog import convert, merge_modules
from rf8.report import sky130
from rf8.report.synthesis import synthesize
from sim.build import BuildFailed

ADDER = "module top(input [7:0] a, b, output [7:0] y); assign y = a + b; endmodule\n"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RF8_CACHE", str(tmp_path))


def test_areas_are_those_of_the_official_liberty():
    known = {"inv": 3.7536, "nand2": 3.7536, "xor2": 8.7584, "mux2": 11.2608, "fa": 20.0192}
    for cell, area in known.items():
        assert sky130.cell_area(cell) == pytest.approx(area)


@pytest.mark.parametrize("cell", ["a21oi", "o2bb2a", "mux2i", "mux4", "nand3b"])
def test_functions_are_those_of_the_cells(cell):
    expected = {
        "a21oi": lambda A1, A2, B1: not ((A1 and A2) or B1),  # noqa: N803
        "o2bb2a": lambda A1_N, A2_N, B1, B2: not (A1_N and A2_N) and (B1 or B2),  # noqa: N803
        "mux2i": lambda A0, A1, S: not (A1 if S else A0),  # noqa: N803
        "mux4": lambda A0, A1, A2, A3, S0, S1: [A0, A1, A2, A3][S0 + 2 * S1],  # noqa: N803
        "nand3b": lambda A_N, B, C: not (not A_N and B and C),  # noqa: N803
    }[cell]
    _, inputs, function = sky130.cell_function(cell)
    text = function.replace("!", " not ").replace("&", " and ").replace("|", " or ")
    for number in range(1 << len(inputs)):
        values = {name: number >> n & 1 for n, name in enumerate(inputs)}
        assert bool(eval(text, {}, values)) == bool(expected(**values)), values


def test_counts_of_an_adder():
    ecp5 = synthesize(ADDER, "top", "ecp5")[""].columns("ecp5")
    assert (ecp5["carry"], ecp5["lut"], ecp5["lut_equiv"], ecp5["ff"]) == (4, 0, 8, 0)
    asic = synthesize(ADDER, "top", "sky130")[""].columns("sky130")
    # A full adder a bit, but for the lowest: XOR and AND.
    expected = 7 * sky130.cell_area("fa") + sky130.cell_area("xor2") + sky130.cell_area("and2")
    assert asic["um2"] == pytest.approx(expected, abs=0.05) and asic["ff"] == 0


def test_a_failure_names_the_error_and_the_log():
    with pytest.raises(BuildFailed, match=r"yosys failed: .*ERROR.* \(log: .*\.log\)"):
        synthesize("module top(output y); broken!; endmodule\n", "top", "ecp5")


def test_equal_modules_become_one():
    text = convert(Array(CONFIGS["tiny"]), name="top")
    merged = merge_modules(text)
    lanes = re.findall(r"^module (\\top\.lane\S+)", merged, re.MULTILINE)
    assert lanes == ["\\top.lane0_0"]
    assert len(re.findall(r"^  \\top\.lane0_0 ", merged, re.MULTILINE)) == 8  # rows x columns
    # Merging changes nothing that synthesis sees.
    whole, parts = (synthesize(t, "top", "ecp5")[""].counts for t in (text, merged))
    assert whole == parts
