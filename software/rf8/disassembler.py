"""Disassembler: what instructions a program image holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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


def _walk(program: Program, kernel: str, columns: int, start: int) -> Iterator[Line]:
    try:
        for address, instruction in program.instructions(start):
            yield Line(kernel, columns, address, str(instruction))
    except DataError as error:
        raise DataError(f"{kernel}, {columns} columns, {error}") from error
