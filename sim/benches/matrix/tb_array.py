"""The array: exact dot products, in order, each in the cycle that is promised."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, RisingEdge

from golden.config import AccelConfig, get_config
from golden.format import INTEGERS, in_span
from sim.benches.aligned import Aligned
from sim.benches.harness import Run, bench_test

TINY = get_config("tiny").replace(max_k=64)
CONFIGS = {
    config.name: config
    for config in (
        TINY,
        TINY.replace(name="one_bin", align=4),
        TINY.replace(name="one_bin_short", align=3, span=8, act_bits=8, cols=3),
        TINY.replace(name="two_bins", align=3, span=12, rows=8, bus_bytes=8, cols=1),
        TINY.replace(name="five_bins", align=1, span=10, act_bits=8),
        TINY.replace(name="eight_bins", align=0, span=8, rows=2, cols=4),
        TINY.replace(name="all_bins", align=0, span=16, rows=2),
    )
}
CONFIGURATIONS = f"{len(CONFIGS)} arrays: 1 to 16 bins, 2 to 8 rows, 1 to 4 columns"


def parts():
    return {name: Aligned(config) for name, config in CONFIGS.items()}


@dataclass(frozen=True)
class Tile:
    """Codes [K, rows] and activations [K, cols]."""

    codes: np.ndarray
    x: np.ndarray

    def dots(self, config: AccelConfig) -> np.ndarray:
        """Dot products [rows, cols]; refused codes count as zero."""
        weights = INTEGERS[self.codes].astype(np.int64) >> (16 - config.span)
        return np.where(refused(self.codes, config), 0, weights).T @ self.x


@dataclass(frozen=True)
class Result:
    """Dot products of a row: when the last slice of their tile went, when they must come."""

    sent: int
    cycle: int
    row: int
    dots: np.ndarray


def refused(codes: np.ndarray, config: AccelConfig) -> np.ndarray:
    return ~in_span(codes.astype(np.uint8), config.span)


def random_tiles(
    rng: np.random.Generator, config: AccelConfig, count: int, broken: float
) -> Iterator[Tile]:
    """Tiles of 1 to 60 slices, some of them with extreme activations or zeros."""
    codes = np.arange(256)
    good, bad = codes[~refused(codes, config)], codes[refused(codes, config)]
    low, high = -(1 << (config.act_bits - 1)), (1 << (config.act_bits - 1)) - 1
    for _ in range(count):
        k = int(rng.integers(1, 61)) if rng.random() < 0.7 else int(rng.integers(1, 4))
        pool = rng.choice(good, size=int(rng.integers(1, 256)))
        picked = rng.choice(pool, (k, config.rows))
        picked[rng.random(picked.shape) < rng.choice([0, 0.3, 0.9])] = 0
        picked = np.where(rng.random(picked.shape) < broken, rng.choice(bad, picked.shape), picked)
        x = rng.integers(low, high + 1, (k, config.cols))
        if rng.random() < 0.3:
            x = rng.choice([low, high, -1, 0, 1], x.shape)
        yield Tile(picked, x)


class Bench:
    """Feeds tiles as the matmul control does, and expects each result in its cycle."""

    def __init__(self, run: Run, config: AccelConfig, bubbles: float):
        self.run, self.dut, self.config = run, run.dut, config
        self.component = Aligned(config)
        self.bubbles = run.stalls(bubbles)
        self.weights = run.dut.array("slice__bytes", config.rows)
        self.x = run.dut.array("feed__x", config.cols)
        self.results = run.dut.array("results__dot", config.cols)
        self.expected: deque[Result] = deque()
        self.invalid = False
        self.active = np.full(config.cols, True)
        cocotb.start_soon(self.watch())

    async def send(self, tile: Tile) -> None:
        """A cycle without a slice, then the slices; the last waits until the tile before left."""
        await FallingEdge(self.dut.clk)
        self.pause()
        last = len(tile.codes) - 1
        for k, (codes, x) in enumerate(zip(tile.codes, tile.x, strict=True)):
            await self.slot(wait_for_busy=k == last)
            self.dut.feed__valid.value = 1
            self.dut.feed__last.value = k == last
            for handle, code in zip(self.weights, codes, strict=True):
                handle.value = int(code)
            for handle, value in zip(self.x, x, strict=True):
                handle.value = int(value)
            self.invalid = bool(refused(codes, self.config).any())
        latency, now = self.component.latency, self.run.cycle
        for row, dots in enumerate(tile.dots(self.config)):
            self.expected.append(Result(now, now + latency + row, row, dots))
        await RisingEdge(self.dut.clk)

    async def slot(self, wait_for_busy: bool = False) -> None:
        """The next cycle in which a slice may go. In its middle, as `busy` must have settled."""
        await FallingEdge(self.dut.clk)
        while (
            next(self.bubbles)
            or int(self.dut.feed__hold.value)
            or (wait_for_busy and int(self.dut.feed__busy.value))
        ):
            self.pause()
            await FallingEdge(self.dut.clk)

    def pause(self) -> None:
        """No slice in this cycle; what the other inputs say must not matter."""
        self.dut.feed__valid.value = 0
        self.dut.feed__last.value = int(self.run.rng.integers(2))
        self.weights[0].value = int(self.run.rng.integers(256))
        self.invalid = False

    async def drain(self) -> None:
        """Wait until all results have come."""
        await FallingEdge(self.dut.clk)
        self.pause()
        while self.expected or int(self.dut.feed__busy.value):
            await FallingEdge(self.dut.clk)

    async def watch(self) -> None:
        """Check the outputs of every cycle, as they are before its end."""
        run, dut = self.run, self.dut
        invalid = deque([False, False])  # of the two cycles before
        row = 0  # of results in this cycle
        busy = hold = 0  # as the cycle before has it
        while True:
            await RisingEdge(dut.clk)
            cycle = run.cycle - 1
            run.check(int(dut.feed__busy.value), busy, f"busy in cycle {cycle}")
            run.check(int(dut.feed__hold.value), hold, f"hold in cycle {cycle}")
            busy = int(dut.feed__stays.value) | (
                int(dut.feed__valid.value) & int(dut.feed__last.value)
            )
            hold = int(dut.feed__next_hold.value)
            run.check(int(dut.invalid.value), invalid.popleft(), f"invalid in cycle {cycle}")
            invalid.append(self.invalid)
            first = self.expected[0] if self.expected else None
            idle = first is None or first.sent == cycle
            run.check(int(dut.idle.value), idle, f"idle in cycle {cycle}")
            due = first is not None and first.cycle == cycle
            run.check(int(dut.results__valid.value), due, f"result_valid in cycle {cycle}")
            if first and due:
                self.expected.popleft()
                run.check(row, first.row, "next_row")
                got = np.array([handle.value.to_signed() for handle in self.results])
                what = f"dots of row {first.row}"
                run.check(got[self.active], first.dots[self.active], what)
            row = int(dut.results__next_row.value)


async def check_tiles(run: Run, count: int, bubbles: float, broken: float) -> None:
    config = CONFIGS[run.part]
    await run.start(feed__valid=0, active=0)
    bench = Bench(run, config, bubbles)
    for _ in range(count):
        bench.active = run.rng.random(config.cols) < 0.6
        bench.active[run.rng.integers(config.cols)] = True
        run.dut.active.value = sum(1 << int(c) for c in np.flatnonzero(bench.active))
        await FallingEdge(run.dut.clk)
        for tile in random_tiles(run.rng, config, int(run.rng.integers(1, 12)), broken):
            await bench.send(tile)
        await bench.drain()


@bench_test(limit=40_000, part=list(CONFIGS))
async def back_to_back(run: Run) -> None:
    """No bubbles but those that the double buffer asks for."""
    await check_tiles(run, count=8, bubbles=0, broken=0)


@bench_test(limit=40_000, part=list(CONFIGS))
async def bubbles_and_invalid_codes(run: Run) -> None:
    await check_tiles(run, count=8, bubbles=0.3, broken=0.02)


@bench_test(limit=2_000, part=list(CONFIGS))
async def largest_dots(run: Run) -> None:
    """Tiles of the longest length with the largest terms: the accumulators do not wrap."""
    config = CONFIGS[run.part]
    await run.start(feed__valid=0, active=(1 << config.cols) - 1)
    bench = Bench(run, config, bubbles=0)
    extremes = (-(1 << (config.act_bits - 1)), (1 << (config.act_bits - 1)) - 1)
    for code in (0x7E, 0xFE):
        for x in extremes:
            shape = config.max_k
            await bench.send(
                Tile(np.full((shape, config.rows), code), np.full((shape, config.cols), x))
            )
    await bench.drain()
