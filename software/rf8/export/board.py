"""A board: the accelerator on an FPGA with its testbench's program in block RAM."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from golden.config import AccelConfig
from golden.registers import REGISTERS
from rf8.errors import UsageError
from rf8.export.example_image import Image
from rf8.export.registers import FIELDS
from rf8.export.template import Port, connections, declaration, fill
from rf8.export.testbench import status
from sim.toolchain import ToolMissing


@dataclass(frozen=True)
class Board:
    """Where a board's pins are known (a class of the package amaranth-boards), and how nextpnr
    and the loader name its parts."""

    module: str
    platform: str
    clock: str
    leds: int
    nextpnr: str
    loader: str


BOARDS: dict[str, Board] = {
    "ulx3s": Board(
        module="amaranth_boards.ulx3s",
        platform="ULX3S_85F_Platform",
        clock="clk25",
        leds=8,
        nextpnr="--85k --package CABGA381 --speed 6 --placer static",
        loader="-b ulx3s",
    ),
}

MAPPED_LANES = 64
"""Config ecp5, with 64 lanes, takes 40 % of an ECP5-85F's tables; wider bins take more."""

BLOCK_RAM_BITS = 208 * 18 * 1024


def get_board(name: str) -> Board:
    """The named board.

    Raises
    ------
    UsageError
        Where there is none of that name.
    """
    if name not in BOARDS:
        raise UsageError(f"--board is {name!r}, must be one of: {', '.join(BOARDS)}")
    return BOARDS[name]


def why_not(config: AccelConfig, image: Image) -> str | None:
    """Why a machine does not fit the board, or None."""
    lanes = config.rows * config.cols
    if lanes > MAPPED_LANES:
        return f"{lanes} lanes, an ECP5-85F holds {MAPPED_LANES}"
    words = config.cols * config.scratch_words + config.fifo_beats + 2 * image.words
    bits = words * config.bus_bytes * 8
    if bits > BLOCK_RAM_BITS // 2:  # half: a block RAM is seldom used whole
        return f"{bits} bits of memory, half the block RAM of an ECP5-85F is {BLOCK_RAM_BITS // 2}"
    return None


def board_files(name: str, config: AccelConfig, ports: list[Port], image: Image) -> dict[str, str]:
    """File name -> text: the top module and its pins.

    Raises
    ------
    ToolMissing
        Where amaranth-boards is not installed.
    """
    return {f"top_{name}.v": _top(name, config, ports, image), f"{name}.lpf": _pins(name)}


def _top(board: str, config: AccelConfig, ports: list[Port], image: Image) -> str:
    return fill(
        "top.v",
        name=f"rf8_{config.name}",
        board=board,
        index_bits=(image.words - 1).bit_length(),
        result_bits=(image.result_words - 1).bit_length(),
        words=image.words,
        result_words=image.result_words,
        declarations="\n".join(declaration("wire", port, bits) for port, _, bits in ports[2:]),
        connections=connections(ports),
        program_offset=f"{REGISTERS['PROGRAM'][0]:03x}",
        control_offset=f"{REGISTERS['CONTROL'][0]:03x}",
        status_offset=f"{REGISTERS['STATUS'][0]:03x}",
        program=f"{image.program:08x}",
        bus_bits=8 * config.bus_bytes,
        byte_bits=config.bus_bytes.bit_length() - 1,
        busy_bit=next(f.low for f in FIELDS["STATUS"] if f.name == "BUSY"),
        status_done=f"{status('DONE'):08x}",
    )


def _pins(name: str) -> str:
    """Constraints in nextpnr's LPF, from the board's class in amaranth-boards."""
    board = get_board(name)
    try:
        platform = getattr(importlib.import_module(board.module), board.platform)()
    except ModuleNotFoundError as error:
        raise ToolMissing("amaranth-boards is missing: pip install 'rf8[sim]'") from error
    lines = [f"# Pins and attributes from {board.module}.{board.platform} (PyPI: amaranth-boards)."]
    clock = platform.lookup(board.clock)
    lines += _pin("clk", clock)
    lines.append(f'FREQUENCY PORT "clk" {clock.clock.frequency / 1e6:g} MHZ;')
    for number in range(board.leds):
        lines += _pin(f"led[{number}]", platform.lookup("led", number))
    return "\n".join(lines) + "\n"


def _pin(port: str, resource: Any) -> list[str]:
    attributes = " ".join(f"{key}={value}" for key, value in resource.attrs.items())
    return [
        f'LOCATE COMP "{port}" SITE "{resource.ios[0].names[0]}";',
        f'IOBUF PORT "{port}" {attributes};',
    ]
