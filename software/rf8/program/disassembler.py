"""Disassembler: what instructions a program image holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rf8.errors import DataError, UsageError
from rf8.program.image import Entry, Program


@dataclass(frozen=True)
class Line:
    """One instruction: the program and the part of the model it belongs to, where it lies, and its
    text."""

    columns: int
    head: bool
    part: str
    address: int
    text: str


def listing(
    program: Program, part: str | None = None, columns: int | None = None
) -> Iterator[Line]:
    """The instructions of an image, program by program, up to each one's HALT.

    ``part``: only of parts whose name begins so; ``columns``: only of the programs for so many.

    Raises
    ------
    UsageError
        Where there is no such part, or no program for so many columns.
    DataError
        Where an instruction lies outside the image or is none.
    """
    names = list(dict.fromkeys(name for entry in program.entries for _, name in entry.labels))
    if part is not None and not any(name.startswith(part) for name in names):
        raise UsageError(f"--part is {part!r}, must be the beginning of one of: {', '.join(names)}")
    known = sorted({entry.columns for entry in program.entries})
    if columns is not None and columns not in known:
        raise UsageError(f"--columns is {columns}, must be one of: {', '.join(map(str, known))}")
    for entry in program.entries:
        if columns in (None, entry.columns):
            for line in _walk(program, entry):
                if part is None or line.part.startswith(part):
                    yield line


def _walk(program: Program, entry: Entry) -> Iterator[Line]:
    try:
        for address, instruction in program.instructions(entry.address):
            name = program.place(address)[1]
            yield Line(entry.columns, entry.head, name, address, str(instruction))
    except DataError as error:
        raise DataError(f"program of {entry.columns} columns, {error}") from error
