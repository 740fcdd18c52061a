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
from rf8.program.image import Program

MAGIC = b"RF8FLAT\0"
VERSION = 2
HEADER_BYTES = 64
CHECKED_FROM = 16
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
        Where its size does not fit the format.
    """
    entries = b"".join(struct.pack("<4I", e.columns, e.head, e.address, 0) for e in program.entries)
    at = HEADER_BYTES + 16 * len(program.sections) + len(entries)
    table, body = b"", b""
    for address, data in program.sections.values():
        body += bytes(-(at + len(body)) % ALIGNMENT)
        table += struct.pack("<4I", address, data.size, at + len(body), 0)
        body += data.tobytes()
    size = at + len(body)
    if max(size, program.memory_bytes) >= 1 << 32:
        raise DataError(f"{program.model}: a flat image is less than 4 GiB, this one has {size}")
    words = (size, program.memory_bytes, *config_words(program.config))
    counts = (len(program.sections), len(program.entries), program.context, program.vocab)
    logits = (program.logits.address, program.logits.stride)
    header = struct.pack("<12I", *words, *counts, *logits)
    checked = header + table + entries + body
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
