"""What rounding with calibration leaves on disk, so that an interrupted run goes on."""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rf8.checkpoint.model import RF8Tensor
from rf8.errors import DataError
from rf8.files import replaced_file
from rf8.quantize.survey import Survey


@dataclass(frozen=True)
class LayerReport:
    """What rounding did to one matrix.

    ``output_error``: ``sum |W z - Q x|^2 / sum |W z|^2`` over the calibration tokens, z and x the
    inputs in the float and the rounded model. ``nearest_error``: the same had this one matrix been
    rounded to nearest. None for embeddings, whose input is no vector. ``bits``: of a weight, coded
    by the best table, with that and the row biases; ``entropy``: the least that any code of single
    weights has. None where it was rounded without a rate.
    """

    name: str
    output_error: float | None
    nearest_error: float | None
    bits: float | None = None
    entropy: float | None = None


class Parts:
    """Finished parts of a run on disk, each written whole or not at all."""

    def __init__(self, folder: Path | None, fingerprint: dict[str, Any]) -> None:
        self._folder = folder
        if folder is None:
            return
        about = folder / "run.json"
        if about.exists():
            try:
                found = json.loads(about.read_text())
            except ValueError:
                found = {}
            changed = [k for k, v in fingerprint.items() if found.get(k) != v]
            if changed:
                raise DataError(
                    f"{folder} holds an interrupted run with another {' and '.join(changed)}: "
                    "delete it, or give the same again"
                )
        elif folder.exists() and any(folder.iterdir()):
            raise DataError(f"{folder} is there and holds other files; give another output")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            with replaced_file(about) as temporary:
                temporary.write_text(json.dumps(fingerprint))

    def load(self, part: str) -> dict[str, tuple[RF8Tensor, LayerReport]] | None:
        """A part that an earlier run finished, or None."""
        from safetensors import SafetensorError, safe_open

        if self._folder is None or not (self._folder / f"{part}.safetensors").exists():
            return None
        path = self._folder / f"{part}.safetensors"
        try:
            with safe_open(path, framework="np") as file:
                reports = [LayerReport(**r) for r in json.loads(file.metadata()["reports"])]
                return {
                    r.name: (
                        RF8Tensor(file.get_tensor(r.name), file.get_tensor(f"{r.name}.bias")),
                        r,
                    )
                    for r in reports
                }
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise DataError(f"{path} is broken ({error}): delete it and run again") from error

    def save(self, part: str, done: dict[str, tuple[RF8Tensor, LayerReport]]) -> None:
        """Keep a finished part."""
        from safetensors.numpy import save_file

        if self._folder is None:
            return
        tensors: dict[str, Any] = {n: np.ascontiguousarray(t.codes) for n, (t, _) in done.items()}
        tensors |= {f"{n}.bias": t.bias for n, (t, _) in done.items()}
        reports = json.dumps([asdict(r) for _, r in done.values()])
        with replaced_file(self._folder / f"{part}.safetensors") as temporary:
            save_file(tensors, temporary, metadata={"reports": reports})

    def survey(self) -> Survey | None:
        """The survey that an earlier run made, or None."""
        if self._folder is None or not (self._folder / "survey.npz").exists():
            return None
        path = self._folder / "survey.npz"
        try:
            with np.load(path) as file:
                return Survey(
                    {int(n.removeprefix("x")): file[n] for n in file if n.startswith("x")},
                    {n.removeprefix("y"): file[n] for n in file if n.startswith("y")},
                )
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is broken ({error}): delete it and run again") from error

    def save_survey(self, found: Survey) -> None:
        """Keep a finished survey."""
        if self._folder is None:
            return
        arrays = {f"x{n}": a for n, a in found.pivots.items()}
        arrays |= {f"y{n}": a for n, a in found.worth.items()}
        with replaced_file(self._folder / "survey.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
