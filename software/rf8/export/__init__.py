"""What an FPGA engineer gets: Verilog, testbench, register map, C driver, board files."""

from __future__ import annotations

from pathlib import Path

from golden.config import AccelConfig
from rf8.export import registers
from rf8.export.board import BOARDS, board_files, get_board, why_not
from rf8.export.example_image import make_image
from rf8.export.template import Port, connections, fill, head_comment, port_meaning
from rf8.export.testbench import testbench_files
from rf8.files import replaced_file

DRIVER = Path(__file__).with_name("driver")

__all__ = ["BOARDS", "write_verilog"]


def write_verilog(config: AccelConfig, folder: Path, *, board: str | None = None) -> list[Path]:
    """Write the accelerator as Verilog, with all that is needed to simulate, build and drive it.

    Each file appears whole or not at all; none is written before all are made. With ``board`` there
    are files for that board too, unless the machine does not fit it: the README then says why.

    Raises
    ------
    UsageError
        For an unknown board.
    DataError
        Where a file cannot be written.
    ToolMissing
        Where amaranth-boards is needed and not installed.
    """
    from hw.top import Accelerator
    from hw.verilog import convert, ports

    if board is not None:
        get_board(board)
    name = f"rf8_{config.name}"
    image = make_image(config)
    accelerator = Accelerator(config)
    netlist, pins = convert(accelerator, name=name), ports(accelerator)
    misfit = None if board is None else why_not(config, image)
    files = {
        **testbench_files(config, pins, image),
        **({} if board is None or misfit else board_files(board, config, pins, image)),
        "rf8_regs.h": registers.c_header(config),
        "rf8.rdl": registers.system_rdl(config),
        **{path.name: path.read_text() for path in sorted(DRIVER.glob("*.[ch]"))},
        "Makefile": _makefile(name, None if misfit else board),
        "README.md": _readme(config, pins, board, misfit),
        f"{name}.v": head_comment(config, pins) + netlist,
    }
    for file, text in files.items():
        with replaced_file(folder / file) as temporary:
            temporary.write_text(text)
    return sorted(folder / file for file in files)


def _makefile(name: str, board: str | None) -> str:
    bitstream = "bitstream:\n\t@echo 'no board files here: rf8 verilog ... --board NAME'; exit 1\n"
    if board is not None:
        about = BOARDS[board]
        bitstream = fill(
            "board.mk", name=name, board=board, nextpnr=about.nextpnr, loader=about.loader
        )
    return fill("Makefile", name=name, bitstream=bitstream)


def _readme(config: AccelConfig, ports: list[Port], board: str | None, misfit: str | None) -> str:
    rows = (f"| `{p}` | {way} | {bits} | {port_meaning(p)} |" for p, way, bits in ports)
    if board is None:
        building = f"No board files here; `--board {'|'.join(BOARDS)}` writes them."
    elif misfit:
        building = f"No files for `{board}`: {misfit}."
    else:
        building = fill("board.md", board=board, platform=BOARDS[board].platform)
    return fill(
        "README.md",
        name=f"rf8_{config.name}",
        config="\n".join(f"| `{key}` | {value} |" for key, value in config.as_dict().items()),
        fields=", ".join(f"{key}={value!r}" for key, value in config.as_dict().items()),
        ports="\n".join(rows),
        connections=connections(ports),
        registers=registers.markdown(config).rstrip(),
        building=building.rstrip(),
    )
