"""Disassembler: what instructions a program image holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from golden import isa
from golden.config import INSTRUCTION_BYTES
from golden.isa import Opcode
from rf8.errors import DataError, UsageError
from rf8.program import Program


@dataclass(frozen=True)
class Line:
    """One instruction: where it lies, what runs it, and its text."""

    kernel: str
    columns: int
    address: int
    text: str


def listing(
    program: Program, kernel: str | None = None, columns: int | None = None
) -> Iterator[Line]:
    """The instructions of an image in the order of its kernels, up to each program's HALT.

    ``kernel``, ``columns``: only the programs of that kernel, for that number of columns.

    Raises
    ------
    UsageError
        Where there is no such kernel, or it has no program for so many columns.
    DataError
        Where an instruction lies outside the image or is none.
    """
    names = list(program.kernels)
    if kernel is not None and kernel not in names:
        raise UsageError(f"--kernel is {kernel!r}, must be one of: {', '.join(names)}")
    known = sorted({n for k in program.kernels.values() for n in k.programs})
    if columns is not None and columns not in known:
        raise UsageError(f"--columns is {columns}, must be one of: {', '.join(map(str, known))}")
    for name in names if kernel is None else [kernel]:
        for number, address in program.kernels[name].programs.items():
            if columns is None or number == columns:
                yield from _walk(program, name, number, address)


def _walk(program: Program, kernel: str, columns: int, address: int) -> Iterator[Line]:
    while True:
        try:
            instruction = isa.decode(_read(program, address))
            isa.check(instruction, program.config)
        except isa.IllegalInstruction as error:
            raise DataError(f"{kernel}, {columns} columns, {address:#x}: {error}") from error
        yield Line(kernel, columns, address, str(instruction))
        if instruction.opcode is Opcode.HALT:
            return
        address += program.config.slot_bytes


def _read(program: Program, address: int) -> bytes:
    for start, data in program.sections.values():
        if start <= address and address + INSTRUCTION_BYTES <= start + data.size:
            return data[address - start : address - start + INSTRUCTION_BYTES].tobytes()
    raise DataError(f"the program runs out of the image at {address:#x}")
