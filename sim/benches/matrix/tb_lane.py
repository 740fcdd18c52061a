"""Lanes in all their variants, each behind rows that decode for it: exact dot products.

The 40 variants take the same weights and activations side by side, as arrays of two rows and one
column; each drains in its own time, and all wait for the slowest.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import or_

import cocotb
import numpy as np
from amaranth.hdl import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from cocotb.triggers import ClockCycles, FallingEdge, RisingEdge

from golden.config import get_config
from golden.format import INTEGERS, SPANS, in_span, is_valid
from sim.benches.aligned import Aligned
from sim.benches.harness import Run, bench_test

MAX_K = 64  # short, so that tiles of this length reach the last bit of a bin
ROWS = 2
CONFIGS = [
    get_config("tiny").replace(
        name=f"align{align}_span{span}_act{bits}",
        rows=ROWS,
        cols=1,
        align=align,
        span=span,
        act_bits=bits,
        max_k=MAX_K,
    )
    for align in range(5)
    for span in SPANS
    for bits in (8, 16)
]
CONFIGURATIONS = f"{len(CONFIGS)} lanes: splits x spans x act_bits"


class Lanes(wiring.Component):
    """Arrays of all `CONFIGS`; ``results`` has 64 bits of each, in order."""

    def __init__(self):
        super().__init__(
            {
                "codes": In(8 * ROWS),
                "x8": In(signed(8)),
                "x16": In(signed(16)),
                "valid": In(1),
                "last": In(1),
                "wait": Out(1),
                "busy": Out(1),
                "result_valid": Out(len(CONFIGS)),
                "results": Out(64 * len(CONFIGS)),
                "invalid": Out(len(CONFIGS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        arrays = []
        for index, config in enumerate(CONFIGS):
            m.submodules[config.name] = array = Aligned(config)
            arrays.append(array)
            wide = Signal(signed(64), name=f"wide{index}")
            m.d.comb += [
                array.feed.valid.eq(self.valid),
                array.feed.last.eq(self.last),
                array.active.eq(1),
                array.feed.x[0].eq(self.x8 if config.act_bits == 8 else self.x16),
                wide.eq(array.results.dot[0]),
                self.results.word_select(index, 64).eq(wide),
                self.result_valid[index].eq(array.results.valid),
                self.invalid[index].eq(array.invalid),
            ]
            m.d.comb += [array.slice.bytes[r].eq(self.codes.word_select(r, 8)) for r in range(ROWS)]
        m.d.comb += [
            self.wait.eq(reduce(or_, (array.feed.hold for array in arrays))),
            self.busy.eq(reduce(or_, (array.feed.busy for array in arrays))),
        ]
        return m


def parts():
    return {"lanes": Lanes()}


@dataclass(frozen=True)
class Tile:
    """Codes [K, ROWS] and activations [K]."""

    codes: np.ndarray
    x8: np.ndarray
    x16: np.ndarray

    def dots(self) -> list[list[int]]:
        """The dot products of the rows in each of `CONFIGS`; codes that it refuses are zero."""
        dots = []
        for config in CONFIGS:
            weights = INTEGERS[self.codes].astype(np.int64) >> (16 - config.span)
            weights[~in_span(self.codes.astype(np.uint8), config.span)] = 0
            dots.append((weights.T @ (self.x8 if config.act_bits == 8 else self.x16)).tolist())
        return dots


class Lane40:
    """Feeds tiles with random bubbles, and checks the dot products that come back."""

    def __init__(self, run: Run, bubbles: float):
        self.run, self.dut = run, run.dut
        self.bubbles = run.stalls(bubbles)
        self.expected: list[deque[int]] = [deque() for _ in CONFIGS]

    def pause(self) -> None:
        """No slice in this cycle; what the other inputs say must not matter."""
        self.dut.valid.value = 0
        self.dut.codes.value = int(self.run.rng.integers(1 << 8 * ROWS))
        self.dut.last.value = int(self.run.rng.integers(2))

    async def send(self, tile: Tile) -> None:
        """A cycle without a slice, then the slices, each from the middle of its cycle on."""
        dut = self.dut
        await FallingEdge(dut.clk)
        self.pause()
        for k, codes in enumerate(tile.codes.tolist()):
            last = k == len(tile.codes) - 1
            await FallingEdge(dut.clk)
            while int(dut.wait.value) or next(self.bubbles) or (last and int(dut.busy.value)):
                self.pause()
                await FallingEdge(dut.clk)
            dut.valid.value, dut.last.value = 1, last
            dut.codes.value = sum(code << 8 * row for row, code in enumerate(codes))
            dut.x8.value, dut.x16.value = int(tile.x8[k]), int(tile.x16[k])
        for queue, dots in zip(self.expected, tile.dots(), strict=True):
            queue.extend(dots)

    async def watch(self) -> None:
        """Compare the dot products of each cycle, as they are before its end."""
        while True:
            await RisingEdge(self.dut.clk)
            there = int(self.dut.result_valid.value)
            if not there:
                continue
            raw = int(self.dut.results.value).to_bytes(8 * len(CONFIGS), "little")
            for lane, value in enumerate(np.frombuffer(raw, "<i8").tolist()):
                if there >> lane & 1:
                    what = f"dot product of {CONFIGS[lane].name}"
                    self.run.check(value, self.expected[lane].popleft(), what)

    async def tiles(self, tiles: Iterator[Tile]) -> None:
        watcher = cocotb.start_soon(self.watch())
        for tile in tiles:
            await self.send(tile)
        while any(self.expected):
            await FallingEdge(self.dut.clk)
            self.pause()
        watcher.cancel()


VALID = np.flatnonzero(is_valid(np.arange(256, dtype=np.uint8)))
EXTREMES = ((-128, -32768), (127, 32767), (-1, -1), (0, 0), (1, 1), (0x55, 0x5555))


@bench_test(limit=90_000, part=["lanes"])
async def every_product(run: Run) -> None:
    """Tiles of one term: every valid code with every extreme activation, back to back."""
    await run.start(valid=0)
    pairs = [(code, *x) for code in VALID for x in EXTREMES]
    order = run.rng.permutation(len(pairs))
    tiles = (
        Tile(np.array([[pairs[i][0], pairs[j][0]]]), *(np.array([x]) for x in pairs[i][1:]))
        for i, j in zip(order, np.roll(order, 1), strict=True)
    )
    await Lane40(run, bubbles=0).tiles(tiles)


@bench_test(limit=60_000, part=["lanes"])
async def random_tiles(run: Run) -> None:
    """Tiles of all lengths, with all 256 codes: refused ones count as zero."""
    await run.start(valid=0)

    def tiles() -> Iterator[Tile]:
        for _ in range(400):
            k = int(run.rng.integers(1, MAX_K + 1))
            pool = run.rng.choice(256, size=int(run.rng.integers(1, 257)))  # some few, some many
            yield Tile(
                run.rng.choice(pool, (k, ROWS)),
                run.rng.integers(-128, 128, k),
                run.rng.integers(-32768, 32768, k),
            )

    await Lane40(run, bubbles=0.2).tiles(tiles())


@bench_test(limit=10_000, part=["lanes"])
async def largest_sums(run: Run) -> None:
    """The longest tiles with the largest terms: each bin is used to its last bit."""
    await run.start(valid=0)

    def tiles() -> Iterator[Tile]:
        # 15/8 and 5/4, the largest multiples of the two kinds of lanes, in several bins.
        for code in (0x7E, 0xFE, 0x66, 0xE6, 0x46, 0x06, 0x7B, 0xFB, 0x73, 0xEB, 0x5B, 0x4B, 0x0B):
            for x8, x16 in EXTREMES[:2]:
                codes = np.full((MAX_K, ROWS), [code, code ^ 0x80])
                yield Tile(codes, np.full(MAX_K, x8), np.full(MAX_K, x16))
        for x8, x16 in EXTREMES:
            alternating = np.where(np.arange(MAX_K) % 2, 1, -1)
            x = np.clip(alternating * x8, -128, 127), np.clip(alternating * x16, -32768, 32767)
            yield Tile(run.rng.choice(VALID, (MAX_K, ROWS)), *x)

    await Lane40(run, bubbles=0.05).tiles(tiles())


@bench_test(limit=10, part=["lanes"])
async def nothing_is_invalid_without_valid(run: Run) -> None:
    dut = await run.start(valid=0, codes=0x8080)
    await RisingEdge(dut.clk)
    run.check(int(dut.invalid.value), 0, "invalid")
    dut.valid.value = 1
    await ClockCycles(dut.clk, 3)
    run.check(int(dut.invalid.value), (1 << len(CONFIGS)) - 1, "invalid")
