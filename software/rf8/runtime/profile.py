"""Where the cycles of a program go, layer by layer: predicted, and measured on the RTL."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from golden.isa import Opcode
from rf8.errors import DataError, UsageError
from rf8.program.cycles import Cost, predict
from rf8.program.image import Entry, Program
from sim.stages import Report

_LAYER = re.compile(r"(?:\w+\.)*?\w+\.\d+(?=\.|:|$)")


@dataclass
class Layer:
    """A layer of the model, or what is in none.

    Sums over its instructions: ``tiles`` of MATMULs, ``read`` and ``written`` in bytes, ``macs``,
    ``predicted`` cycles and ``waits`` (`Cost`). Of a run on the RTL: ``measured`` cycles
    and the hardware's ``counters``; none without one.
    """

    name: str
    instructions: int = 0
    tiles: int = 0
    read: int = 0
    written: int = 0
    macs: int = 0
    predicted: int = 0
    measured: int | None = None
    waits: Counter[str] = field(default_factory=Counter)
    counters: Counter[str] = field(default_factory=Counter)

    @property
    def cycles(self) -> int:
        """As measured, if it was."""
        return self.predicted if self.measured is None else self.measured

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**vars(self), "waits": dict(self.waits), "counters": dict(self.counters)}


@dataclass(frozen=True)
class Profile:
    """Layers in the order of the program, and what they were run with."""

    program: Program
    entry: Entry
    position: int
    latency: int
    layers: list[Layer]

    @property
    def total(self) -> Layer:
        """All of it."""
        whole = Layer("all")
        for layer in self.layers:
            for name in ("instructions", "tiles", "read", "written", "macs", "predicted"):
                setattr(whole, name, getattr(whole, name) + getattr(layer, name))
            whole.waits.update(layer.waits)
            whole.counters.update(layer.counters)
            if layer.measured is not None:
                whole.measured = (whole.measured or 0) + layer.measured
        return whole

    def mac_use(self, layer: Layer) -> float:
        """MACs over those that all lanes could do."""
        config = self.program.config
        return layer.macs / max(1, layer.cycles * config.rows * config.cols)

    def bus_use(self, layer: Layer) -> float:
        """Bytes read over those that the bus could bring."""
        return layer.read / max(1, layer.cycles * self.program.config.bus_bytes)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "model": self.program.model,
            "config": self.program.config.name,
            "columns": self.entry.columns,
            "head": self.entry.head,
            "position": self.position,
            "latency": self.latency,
            "layers": [layer.as_dict() for layer in self.layers],
            "total": self.total.as_dict(),
        }


def layer_of(part: str) -> str:
    """The layer to which a part of a program belongs; the part itself where it is in none."""
    found = _LAYER.match(part)
    return found[0] if found else part.partition(":")[0]


def explain(
    program: Program,
    columns: int = 1,
    head: bool = True,
    position: int | None = None,
    latency: int = 60,
) -> Profile:
    """What the cycle model says of ``columns`` tokens from ``position`` on.

    ``position``: 128 by default, or the last that fits.

    Raises
    ------
    UsageError
        Where there is no program for so many columns, or no room for the position.
    """
    known = sorted({e.columns for e in program.entries})
    if columns not in known:
        raise UsageError(f"columns is {columns}, must be one of: {', '.join(map(str, known))}")
    most = program.context - columns
    if most < 0:
        raise UsageError(f"columns is {columns}: the context of {program.context} has no room")
    if position is None:
        position = min(128, most)
    if not 0 <= position <= most:
        raise UsageError(f"position is {position}, must be 0 to {most}: the context ends there")
    if latency < 0:
        raise UsageError(f"latency is {latency}, must be 0 or more")
    entry = program.entry(columns, head)
    costs = predict(program, entry, position, latency)
    return Profile(program, entry, position, latency, _layers(program, entry, costs))


def profile(
    program: Program,
    columns: int = 1,
    head: bool = True,
    position: int | None = None,
    latency: int = 60,
    progress: Report = lambda _: None,
) -> Profile:
    """The same, beside a run on the simulated RTL.

    Raises
    ------
    UsageError
        As `explain`.
    DataError
        Where the machine stops with an error.
    """
    from rf8.runtime.session import memory_image
    from sim.rtl import MemoryModel, RtlMachine

    found = explain(program, columns, head, position, latency)
    image = memory_image(program)
    memory = MemoryModel(latency=latency)
    with RtlMachine(image, program.config, memory, progress=progress) as machine:
        result, steps = machine.profile(found.entry.address, found.position, [0] * columns)
    if result.error:
        raise DataError(f"the machine stopped: {result.error.name} at {result.error_address:#x}")
    layers = {layer.name: layer for layer in found.layers}
    for step in steps:
        layer = layers[layer_of(program.place(step.address)[1])]
        layer.measured = (layer.measured or 0) + step.cycles
        layer.counters.update(step.counters)
    return found


def _layers(program: Program, entry: Entry, costs: Iterable[Cost]) -> list[Layer]:
    config, layers = program.config, dict[str, Layer]()
    for cost in costs:
        name = layer_of(cost.part)
        layer = layers.setdefault(name, Layer(name))
        layer.instructions += 1
        layer.predicted += cost.cycles
        layer.waits.update(cost.waits)
        opcode = cost.instruction.opcode
        if opcode is Opcode.MATMUL:
            layer.tiles += cost.slices // max(1, cost.depth)
            layer.macs += cost.slices * config.rows * entry.columns
        size = cost.beats * config.bus_bytes
        layer.written += size * (opcode is Opcode.STORE)
        layer.read += size * (opcode is not Opcode.STORE)
    return list(layers.values())


def plot(found: Profile, path: Path) -> None:
    """A roofline with each layer, as a PNG (or what the name's suffix says)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from rf8.files import replaced_file

    config = found.program.config
    top, bus = config.rows * config.cols, config.bus_bytes
    knee = top / bus
    points = [layer for layer in found.layers if layer.macs and layer.read]
    low = min([knee, *(p.macs / p.read for p in points)]) / 4
    x = np.array([low, knee, 4 * knee])
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    axes.plot(x, np.minimum(x * bus, top), color="0.2", label=f"{bus} bytes, {top} MACs a cycle")
    measured = found.total.measured is not None
    for marker, colour, kind in (("o", "C0", "measured"), ("x", "C1", "predicted")):
        cycles = [layer.measured if kind == "measured" else layer.predicted for layer in points]
        if kind == "measured" and not measured:
            continue
        axes.plot(
            [p.macs / p.read for p in points],
            [p.macs / max(1, c or 1) for p, c in zip(points, cycles, strict=True)],
            marker, color=colour, label=f"layers, {kind}", markersize=6,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="MACs per byte read", ylabel="MACs a cycle")
    axes.set_title(
        f"{found.program.model}, config {config.name}, {found.entry.columns} column(s), "
        f"position {found.position}",
        fontsize=10,
    )
    axes.grid(color="0.9")
    axes.legend(frameon=False)
    with replaced_file(path) as target:
        figure.savefig(target, dpi=150, format=path.suffix.lstrip(".") or "png")
    pyplot.close(figure)
