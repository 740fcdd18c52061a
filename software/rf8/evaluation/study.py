"""Long measurements that can be interrupted: results are kept and reused."""

from __future__ import annotations

import json
import platform
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rf8.errors import DataError
from rf8.files import replaced_file
from rf8.progress import Progress


def crc32(ids: Tensor) -> int:
    """Checksum of token ids: what says in a setup which text it was."""
    return zlib.crc32(ids.numpy().tobytes())


class Study:
    """The JSON file of an experiment: its ``setup``, and ``runs`` by name.

    Opened again with the same setup it knows the runs that are done. Raises DataError where the
    file holds another setup, or no results at all.
    """

    def __init__(self, path: Path, setup: dict[str, Any]) -> None:
        machine = {"torch": torch.__version__, "machine": platform.machine()}
        self.path, self.setup = path, json.loads(json.dumps(setup | machine))
        self.runs: dict[str, dict[str, Any]] = {}
        if not path.exists():
            return
        try:
            found = json.loads(path.read_text())
            changed = [k for k, v in self.setup.items() if found["setup"].get(k) != v]
            self.runs = found["runs"]
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise DataError(f"{path} holds no results ({error}): delete it") from error
        if changed:
            raise DataError(f"{path} holds a run with another {', '.join(changed)}: delete it")

    def measure(self, runs: dict[str, Callable[[], dict[str, Any]]], progress: Progress) -> None:
        """Make the runs that are not there yet, in order; each is kept as it ends."""
        for number, (name, run) in enumerate(runs.items()):
            progress(name, number, len(runs))
            if name not in self.runs:
                self.runs[name] = run()
                self.write()

    def write(self) -> None:
        """Write the file; whole or not at all."""
        with replaced_file(self.path) as temporary:
            temporary.write_text(json.dumps({"setup": self.setup, "runs": self.runs}, indent=1))

    def publish(self, page: str, plot: Callable[[Path], None]) -> None:
        """Write the page and the picture beside the file."""
        with replaced_file(self.path.with_suffix(".png")) as temporary:
            plot(temporary)
        with replaced_file(self.path.with_suffix(".md")) as temporary:
            temporary.write_text(page)
