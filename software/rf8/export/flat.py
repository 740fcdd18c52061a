"""Flat images: a program image as one piece of memory, for the C driver.

The layout is in docs/driver.md; ``driver/rf8.c`` reads it.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from golden.config import AccelConfig
from rf8.errors import DataError
from rf8.export.registers import config_word
from rf8.files import replaced_file
from rf8.program import Kernel, Program

MAGIC = b"RF8FLAT\0"
VERSION = 1
HEADER_BYTES = 64
CHECKED_FROM = 16
NAME_BYTES = 64
MOST_COLUMNS = 16
ALIGNMENT = 16
"""Section bytes begin on multiples of this in the file."""


def config_words(config: AccelConfig) -> tuple[int, int, int, int]:
    """What a machine and an image must agree on: CONFIG, span, max_k, scratch_words."""
    return config_word(config), config.span, config.max_k, config.scratch_words


def flat_image(program: Program) -> bytes:
    """The bytes of the flat image.

    Raises
    ------
    DataError
        Where the name of a kernel or the size of the image does not fit the format.
    """
    kernels = b"".join(_kernel(kernel) for kernel in program.kernels.values())
    at = HEADER_BYTES + 16 * len(program.sections) + len(kernels)
    table, body = b"", b""
    for address, data in program.sections.values():
        body += bytes(-(at + len(body)) % ALIGNMENT)
        table += struct.pack("<4I", address, data.size, at + len(body), 0)
        body += data.tobytes()
    size = at + len(body)
    if max(size, program.memory_bytes) >= 1 << 32:
        raise DataError(f"{program.model}: a flat image is less than 4 GiB, this one has {size}")
    words = (size, program.memory_bytes, *config_words(program.config))
    counts = (len(program.sections), len(program.kernels))
    header = struct.pack("<8I", *words, *counts)
    checked = header.ljust(HEADER_BYTES - CHECKED_FROM, b"\0") + table + kernels + body
    return MAGIC + struct.pack("<2I", VERSION, zlib.crc32(checked)) + checked


def save_flat(program: Program, path: Path) -> None:
    """Write the flat image, which appears whole or not at all.

    Raises
    ------
    DataError
        As `flat_image` does, and where the file cannot be written.
    """
    data = flat_image(program)
    with replaced_file(path) as temporary:
        temporary.write_bytes(data)


def _kernel(kernel: Kernel) -> bytes:
    name = kernel.name.encode()
    if len(name) >= NAME_BYTES:
        raise DataError(f"the kernel name {kernel.name!r} is longer than {NAME_BYTES - 1} bytes")
    programs = [kernel.programs.get(columns, 0) for columns in range(1, MOST_COLUMNS + 1)]
    x, y = kernel.x, kernel.y
    fields = (kernel.inputs, kernel.outputs, x.address, x.stride, y.address, y.stride)
    return struct.pack(f"<{NAME_BYTES}s24I", name, *fields, *programs, 0, 0)
