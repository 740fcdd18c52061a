"""Program images: what the compiler makes and a session runs."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden import isa
from golden.config import INSTRUCTION_BYTES, AccelConfig
from golden.isa import Instruction, Opcode
from rf8.checkpoint.tokenizer import make_tokenizer
from rf8.errors import DataError
from rf8.files import replaced_file

FORMAT = "rf8-image"
VERSION = 5
"""Of the image format, instruction set and memory map together: they change as one."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Buffer:
    """A place in external memory that is written at run time, one copy for each column."""

    address: int
    stride: int
    """Bytes from one column's copy to the next."""


@dataclass(frozen=True)
class Region:
    """Memory that programs write, and what is in it."""

    name: str
    address: int
    size: int


@dataclass(frozen=True)
class Entry:
    """One program: the whole model for ``columns`` tokens, with or without the logits.

    ``address``: of its first instruction; HALT ends it. ``labels``: (number of the first
    instruction, module path) of its parts, in order.
    """

    columns: int
    head: bool
    address: int
    labels: list[tuple[int, str]]


@dataclass
class Program:
    """A compiled model: memory content, entry points, and where results lie.

    ``architecture``: the model_type of its config. ``vocab``: tokens that it knows. ``context``:
    the most tokens of a sequence. ``sections``: name -> (address, bytes) of what must be in memory
    before the first run; the rest is zero. ``logits``: results, int32 Q16, of each column.
    ``regions``: all memory that programs write. ``argmax``: the first token of each part of the
    vocabulary whose largest logit the machine finds; in place of logits lies a word for each of
    them, with that logit and the number of its token in the part. Empty: there are all logits.
    ``eos``: tokens that end a text. ``notes``: what a user should know of the model on its machine.
    """

    config: AccelConfig
    architecture: str
    vocab: int
    model: str
    context: int
    memory_bytes: int
    sections: dict[str, tuple[int, NDArray[np.uint8]]]
    entries: list[Entry]
    logits: Buffer
    regions: list[Region]
    argmax: list[int] = field(default_factory=list)
    eos: tuple[int, ...] = ()
    files: dict[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def entry(self, columns: int, head: bool) -> Entry:
        """The program for so many tokens."""
        return next(e for e in self.entries if (e.columns, e.head) == (columns, head))

    def place(self, address: int) -> tuple[Entry, str]:
        """The entry and the part of it to which the instruction at ``address`` belongs."""
        entry = [e for e in self.entries if e.address <= address][-1]
        number = (address - entry.address) // self.config.slot_bytes
        return entry, [name for first, name in entry.labels if first <= number][-1]

    def instructions(self, address: int) -> Iterator[tuple[int, Instruction]]:
        """The instructions from ``address`` on, each with its address, up to and with HALT.

        Raises
        ------
        DataError
            Where one lies outside the image, is none, or is illegal for its machine.
        """
        opcode = None
        while opcode is not Opcode.HALT:
            try:
                instruction = isa.decode(self._bytes(address, INSTRUCTION_BYTES))
                isa.check(instruction, self.config)
            except isa.IllegalInstruction as error:
                raise DataError(f"{address:#x}: {error}") from error
            yield address, instruction
            opcode = instruction.opcode
            address += self.config.slot_bytes

    def _bytes(self, address: int, size: int) -> bytes:
        for start, data in self.sections.values():
            if start <= address and address + size <= start + data.size:
                return data[address - start : address - start + size].tobytes()
        raise DataError(f"the program runs out of the image at {address:#x}")

    def checksum(self) -> int:
        """CRC-32 of the sections, one after the other."""
        found = 0
        for _, data in self.sections.values():
            found = zlib.crc32(np.ascontiguousarray(data).data, found)
        return found

    @property
    def constant(self) -> list[tuple[int, int]]:
        """Ranges of memory that no instruction writes."""
        return [(start, start + data.size) for start, data in self.sections.values()]

    def tokenizer(self) -> Any:
        """The tokenizer (`tokenizers.Tokenizer`), or None if the model has none."""
        return make_tokenizer(self.files)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the image (safetensors), which appears whole or not at all.

        Raises
        ------
        DataError
            Where it cannot be written.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        tensors = {f"section.{name}": data for name, (_, data) in self.sections.items()}
        for name, content in self.files.items():
            tensors[f"file.{name}"] = np.frombuffer(content, np.uint8)
        about = {
            "config": self.config.as_dict(),
            "architecture": self.architecture,
            "vocab": self.vocab,
            "model": self.model,
            "memory_bytes": self.memory_bytes,
            "eos": self.eos,
            "notes": self.notes,
            "addresses": {name: address for name, (address, _) in self.sections.items()},
            "context": self.context,
            "entries": [asdict(entry) for entry in self.entries],
            "logits": asdict(self.logits),
            "regions": [asdict(region) for region in self.regions],
            "argmax": self.argmax,
            "checksums": {name: _checksum(array) for name, array in tensors.items()},
        }
        text = json.dumps(about)
        metadata = {"format": FORMAT, "version": str(VERSION), "program": text}
        metadata["checksum"] = str(zlib.crc32(text.encode()))
        with replaced_file(Path(path)) as target:
            try:
                save_file(tensors, target, metadata=metadata)
            except SafetensorError as error:
                raise DataError(f"cannot write {path}: {error}") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Program:
        """Read an image and check it.

        Raises
        ------
        DataError
            Where it is missing, no image, of another version, truncated or corrupted.
        """
        from safetensors import SafetensorError, safe_open

        if not Path(path).exists():
            raise DataError(f"{path} is missing: make it with `rf8 compile MODEL -o {path}`")
        try:
            Path(path).open("rb").close()  # of what cannot be read, safetensors says it is missing
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error
        try:
            with safe_open(path, framework="np") as handle:
                metadata = handle.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise DataError(f"{path} is no program image; `rf8 compile` makes them")
                if metadata.get("version") != str(VERSION):
                    raise DataError(
                        f"{path} is an image of version {metadata.get('version')}, this rf8 runs "
                        f"{VERSION}: compile the model again"
                    )
                tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise DataError(f"{path} is broken or truncated: {error}") from error
        if metadata.get("checksum") != str(zlib.crc32(metadata.get("program", "").encode())):
            raise DataError(f"{path} is corrupted in its description: compile the model again")
        try:
            return cls._from_parts(json.loads(metadata["program"]), tensors, str(path))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is corrupted: {error}; compile the model again") from error

    @classmethod
    def _from_parts(cls, about: dict[str, Any], tensors: dict[str, Array], path: str) -> Program:
        for name, expected in about["checksums"].items():
            if _checksum(tensors[name]) != expected:
                raise DataError(f"{path} is corrupted in {name}: compile the model again")

        def part(prefix: str) -> dict[str, Array]:
            found = (key for key in tensors if key.startswith(prefix))
            return {key.removeprefix(prefix): tensors[key] for key in found}

        return cls(
            config=AccelConfig(**about["config"]),
            architecture=str(about["architecture"]),
            vocab=int(about["vocab"]),
            model=about["model"],
            memory_bytes=about["memory_bytes"],
            sections={n: (about["addresses"][n], data) for n, data in part("section.").items()},
            context=about["context"],
            entries=[_entry(entry) for entry in about["entries"]],
            logits=Buffer(**about["logits"]),
            regions=[Region(**region) for region in about["regions"]],
            argmax=[int(first) for first in about["argmax"]],
            eos=_tokens(about["eos"]),
            files={name: data.tobytes() for name, data in part("file.").items()},
            notes=tuple(about.get("notes", ())),
        )


def _tokens(eos: list[int] | int | None) -> tuple[int, ...]:
    """Images of before hold one token or none."""
    return tuple(eos) if isinstance(eos, list) else () if eos is None else (eos,)


def _entry(fields: dict[str, Any]) -> Entry:
    labels = [(int(first), str(name)) for first, name in fields["labels"]]
    return Entry(fields["columns"], fields["head"], fields["address"], labels)


def _checksum(array: Array) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data)
