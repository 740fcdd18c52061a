"""Two timing diagrams from simulations: ``python -m sim.timing_diagrams`` draws them into docs.

`tile` feeds the array two tiles, as MATMUL does, and `segment` has the vector unit run one
instruction; both compare what comes out with `golden`. Amaranth's simulator runs them.
docs/hardware.md explains the pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.hdl import Module
from amaranth.lib.wiring import connect
from amaranth.sim import Simulator

from golden.config import RESULT_FRAC, AccelConfig
from golden.format import INTEGERS
from golden.isa import After, Function, Instruction, Opcode, Output
from golden.vector import Registers, execute
from hw.matrix.array import Array
from hw.memory.scratchpad import Scratchpad
from hw.vector.unit import VectorUnit

DOCS = Path(__file__).parents[1] / "docs"

CONFIG = AccelConfig(
    name="diagram", rows=4, cols=1, bus_bytes=16, align=3, max_k=64, scratch_words=32,
    burst_beats=4, fifo_beats=8,
)  # fmt: skip
"""Three bins a lane, four elements a word: small, and nothing is missing."""


@dataclass(frozen=True)
class Wave:
    """A line of a diagram: a label for each cycle, "" where there is none.

    ``wire``: one bit, drawn as a level; labels are then "1" or "".
    """

    name: str
    values: list[str]
    wire: bool = True


def _simulate(module: Module, bench: Callable[[Any], Any]) -> None:
    simulator = Simulator(module)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def _bit(value: int) -> str:
    return "1" if value else ""


TILE = 10
"""Slices of each of the two tiles."""


def tile() -> list[Wave]:
    """Two tiles of `TILE` slices through the array, with one header slice before each.

    A slice is presented whenever the array's ports allow it, as `hw.matrix.matmul.Matmul` does.
    """
    random = np.random.default_rng(1)
    codes = random.integers(0, 16, (2, TILE, CONFIG.rows)) << 3 | random.integers(
        0, 7, (2, TILE, CONFIG.rows)
    )
    acts = random.integers(-(2**15), 2**15, (2, TILE))
    codes[codes == 0x80] = 0
    # Codes without a sign: bit 7 stays 0.
    expected = np.einsum("tkr,tk->tr", INTEGERS[codes].astype(np.int64), acts)
    array = Array(CONFIG)
    module = Module()
    module.submodules.array = array
    names = ("slice", "valid", "last", "hold", "busy", "dot valid", "row")
    seen: dict[str, list[str]] = {name: [] for name in names}
    dots: list[int] = []

    async def bench(ctx: Any) -> None:
        feed, results = array.feed, array.results
        ctx.set(array.active, 1)
        row, now, header, idle = 0, 0, True, 0
        delayed = 0
        while len(dots) < 2 * CONFIG.rows or idle < 2:
            current, k = divmod(now, TILE)
            more = now < 2 * TILE
            last = k == TILE - 1
            ready = not ctx.get(feed.hold) and not (last and ctx.get(feed.busy))
            valid = more and not header and ready
            label = ("header" if header else str(k)) if more and (header or valid) else ""
            header = False
            ctx.set(feed.x[0], delayed)  # lanes with bins want activations a cycle later
            ctx.set(feed.valid, int(valid))
            ctx.set(feed.last, int(valid and last))
            if valid:
                delayed = int(acts[current, k])
                for port, code in zip(array.slice.bytes, codes[current, k], strict=True):
                    ctx.set(port, int(code))
                now += 1
                header = last
            here = ctx.get(results.valid)
            if here:
                dots.append(ctx.get(results.dot[0]))
            idle += len(dots) == 2 * CONFIG.rows
            values = (
                label, _bit(valid), _bit(valid and last), _bit(ctx.get(feed.hold)),
                _bit(ctx.get(feed.busy)), _bit(here), str(row) if here else "",
            )  # fmt: skip
            for name, value in zip(names, values, strict=True):
                seen[name].append(value)
            row = ctx.get(results.next_row)
            await ctx.tick()

    _simulate(module, bench)
    assert dots == expected.reshape(-1).tolist()
    shown = ("slice", "feed.valid", "feed.last", "feed.hold", "feed.busy", "results.valid", "row")
    buses = ("slice", "row")
    return [Wave(s, seen[n], s not in buses) for s, n in zip(shown, names, strict=True)]


SEGMENTS, COUNT = 2, 10
"""Segments of the instruction, and elements of each: two words and a half."""
INSTRUCTION = Instruction(
    opcode=Opcode.VECTOR, function=Function.ADD, after=After.QUANTIZE, output=Output.ROW,
    column=1, segments=SEGMENTS, count=COUNT, k=32, src=0, src_stride=3, other=6, other_stride=3,
    dst=16, dst_stride=4, immediate=RESULT_FRAC,
)  # fmt: skip


class _OpenVectorUnit(VectorUnit):  # type: ignore[misc]
    """One that keeps its module, so that signals inside can be seen."""

    def elaborate(self, platform: Any) -> Module:
        self.inside: Module = super().elaborate(platform)
        return self.inside


def segment() -> list[Wave]:
    """`INSTRUCTION`: sums of two vectors in two segments, each with a header before its words."""
    random = np.random.default_rng(1)
    words = random.integers(-(2**20), 2**20, (12, CONFIG.results_per_word)).astype("<i4")
    scratch = np.zeros((1, CONFIG.scratch_words, CONFIG.bus_bytes), np.uint8)
    scratch[0, :12] = words.view(np.uint8)
    unit, scratchpad = _OpenVectorUnit(CONFIG), Scratchpad(CONFIG)
    module = Module()
    module.submodules.unit, module.submodules.scratchpad = unit, scratchpad
    connect(module, unit.read, scratchpad.vector)
    connect(module, unit.write, scratchpad.elements)
    lines = (
        "run.start", "reader.load", "read.enable", "read.address", "word.valid", "word.last",
        "result.valid", "write.enable", "write.address", "sums.end", "finish.set",
        "finish.header", "run.done",
    )  # fmt: skip
    addresses = {"read.address": unit.read, "write.address": unit.write}
    seen: dict[str, list[str]] = {name: [] for name in lines}

    def word(cells: Any) -> int:
        return int.from_bytes(cells.tobytes(), "little")

    async def bench(ctx: Any) -> None:
        parts = unit.inside.submodules
        sideband = parts.reader.sideband
        wires = {
            "run.start": unit.run.start,
            "reader.load": parts.reader.load,
            "read.enable": unit.read.enable,
            "word.valid": sideband.valid,
            "word.last": sideband.last & sideband.valid,
            "result.valid": parts.writer.sideband.valid,
            "write.enable": unit.write.enable,
            "sums.end": parts.sums.end,
            "finish.set": parts.finish.set,
            "finish.header": parts.finish.header,
            "run.done": unit.run.done,
        }
        for address in range(12):
            ctx.set(scratchpad.results.enable, 1)
            ctx.set(scratchpad.results.address, address)
            ctx.set(scratchpad.results.data[0], word(scratch[0, address]))
            await ctx.tick()
        ctx.set(scratchpad.results.enable, 0)
        for _ in range(3):
            await ctx.tick()
        for name in ("function", "after", "output", "column", "segments", "count", "k", "src",
                     "src_stride", "other", "other_stride", "dst", "dst_stride",
                     "immediate"):  # fmt: skip
            ctx.set(unit.run.operands[name], getattr(INSTRUCTION, name))
        await ctx.tick()
        after_end = 0
        while after_end < 3:
            ctx.set(unit.run.start, int(not seen["run.start"]))
            for name, signal in wires.items():
                seen[name].append(_bit(ctx.get(signal)))
            for name, port in addresses.items():
                seen[name].append(str(ctx.get(port.address)) if ctx.get(port.enable) else "")
            after_end += bool(after_end) or bool(ctx.get(unit.run.done))
            await ctx.tick()
        ctx.set(scratchpad.array.enable, 1)
        for address in range(CONFIG.scratch_words):
            ctx.set(scratchpad.array.address, address)
            await ctx.tick()
            found[address] = ctx.get(scratchpad.array.data[0])

    found: dict[int, int] = {}
    _simulate(module, bench)
    execute(INSTRUCTION, scratch, Registers.cleared(CONFIG), 0, CONFIG)
    assert [found[n] for n in range(CONFIG.scratch_words)] == [word(w) for w in scratch[0]]
    return [Wave(name, seen[name], name not in addresses) for name in lines]


CELL, HEIGHT, STEP, LEFT, TOP = 18, 16, 30, 132, 34
"""Pixels: a cycle, a level, from line to line, left of the first cycle, above the first line."""


def draw(waves: list[Wave], title: str) -> str:
    """An SVG of the waves, one below the other, over numbered cycles."""
    cycles = len(waves[0].values)
    width, height = LEFT + CELL * cycles + 12, TOP + STEP * len(waves) + 6
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="11">',
        f"<title>{title}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for cycle in range(cycles + 1):
        x = LEFT + CELL * cycle
        strong = "#b5bcc4" if cycle % 5 == 0 else "#e6e9ec"
        parts.append(f'<path d="M{x} {TOP - 6}V{height - 6}" stroke="{strong}"/>')
        if cycle % 5 == 0 and cycle < cycles:
            parts.append(f'<text x="{x + CELL / 2:g}" y="{TOP - 14}" {_CENTRE}>{cycle}</text>')
    for number, wave in enumerate(waves):
        y = TOP + STEP * number
        parts.append(f'<text x="{LEFT - 10}" y="{y + 13}" text-anchor="end">{wave.name}</text>')
        parts += _level(wave.values, y) if wave.wire else _labels(wave.values, y)
    return "\n".join([*parts, "</svg>", ""])


_CENTRE = 'text-anchor="middle" fill="#1b1f23"'


def _level(values: list[str], y: int) -> Iterator[str]:
    path, before = f"M{LEFT} {y + HEIGHT}", False
    for cycle, value in enumerate(values):
        x, high = LEFT + CELL * cycle, bool(value)
        if high:
            yield f'<rect x="{x}" y="{y}" width="{CELL}" height="{HEIGHT}" fill="#cfe3f7"/>'
        if high != before:
            path += f"H{x}V{y if high else y + HEIGHT}"
        before = high
    path += f"H{LEFT + CELL * len(values)}"
    yield f'<path d="{path}" fill="none" stroke="#1f5fa8" stroke-width="1.5"/>'


def _labels(values: list[str], y: int) -> Iterator[str]:
    base = y + HEIGHT / 2
    yield f'<path d="M{LEFT} {base:g}h{CELL * len(values)}" stroke="#9aa4ae"/>'
    for cycle, value in enumerate(values):
        if value:
            x = LEFT + CELL * cycle
            fill = "#f4dcc0" if value == "header" else "#fdf3d8"
            yield (
                f'<rect x="{x + 1}" y="{y}" width="{CELL - 2}" height="{HEIGHT}" rx="3" '
                f'fill="{fill}" stroke="#a87b1f"/>'
            )
            label = "H" if value == "header" else value
            yield f'<text x="{x + CELL / 2:g}" y="{y + 12}" {_CENTRE}>{label}</text>'


DIAGRAMS: dict[str, tuple[Callable[[], list[Wave]], str]] = {
    "tile": (tile, "Two tiles through the array"),
    "segment": (segment, "A VECTOR instruction of two segments"),
}
"""File in docs -> what draws it, and its title."""


def main() -> None:
    """Write the diagrams of this checkout."""
    for name, (simulate, title) in DIAGRAMS.items():
        (DOCS / f"{name}.svg").write_text(draw(simulate(), title))


if __name__ == "__main__":
    main()
