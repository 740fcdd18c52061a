"""The lane, in all its variants, behind the row that decodes for it: exact dot products.

The 40 variants take the same weights side by side. The bench stands in for the combiner: it reads
the bins of a tile while the next one is under way, and puts them together by Horner's rule.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cocotb
import numpy as np
from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from cocotb.queue import Queue
from cocotb.triggers import ClockCycles, RisingEdge

from golden.config import get_config
from golden.rf8 import INTEGERS, SPANS, is_valid
from hw.array import Row
from hw.lane import Lane
from sim.benches.harness import Run, bench_test

MAX_K = 64  # short, so that tiles of this length reach the last bit of a bin
CONFIGS = [
    get_config("tiny").replace(
        name=f"align{align}_span{span}_act{bits}",
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
BINS = max(config.bins for config in CONFIGS)
CAPTURED = Row.latency + Lane.latency + 1  # cycles from a tile's last slice to bins that stay


class Lanes(wiring.Component):
    """Lanes of all `CONFIGS`, each with its row; ``bins`` has 64 bits of each, in order."""

    def __init__(self):
        super().__init__(
            {
                "code": In(8),
                "x8": In(signed(8)),
                "x16": In(signed(16)),
                "valid": In(1),
                "first": In(1),
                "last": In(1),
                "read_bin": In(range(BINS)),
                "bins": Out(64 * len(CONFIGS)),
                "live": Out(len(CONFIGS)),
                "invalid": Out(len(CONFIGS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # The way of a slice, as in the array: decode (1), product (2), accumulate (3), capture (4).
        valid, late_valid, first1, first, last1, last = (Signal(name=f"way{n}") for n in range(6))
        capture, bank = Signal(), Signal()
        m.d.sync += [
            Cat(valid, late_valid).eq(Cat(self.valid, valid)),
            Cat(first1, first).eq(Cat(self.first, first1)),
            Cat(last1, last).eq(Cat(self.last, last1)),
            capture.eq(late_valid & last),
            bank.eq(bank ^ (late_valid & last)),
        ]
        x = {bits: Signal(signed(bits + 5), name=f"x{bits}_1") for bits in (8, 16)}
        with m.If(self.valid):
            m.d.sync += [x[8].eq(self.x8), x[16].eq(self.x16)]

        for index, config in enumerate(CONFIGS):
            m.submodules[f"row_{config.name}"] = row = Row(config)
            m.submodules[f"lane_{config.name}"] = lane = Lane(config)
            wide = Signal(signed(64), name=f"wide{index}")
            m.d.comb += [
                row.code.eq(self.code),
                row.valid.eq(self.valid),
                row.late_valid.eq(late_valid),
                row.first.eq(first),
                row.capture.eq(capture),
                row.read_bin.eq(self.read_bin),
                lane.weight.eq(row.weight),
                lane.valid.eq(valid),
                lane.late.eq(row.late),
                lane.late_valid.eq(late_valid),
                lane.first.eq(first),
                lane.fresh.eq(row.fresh),
                lane.enable.eq(1),
                lane.x.eq(x[config.act_bits]),
                lane.bank.eq(bank),
                lane.capture.eq(capture),
                lane.read_bin.eq(self.read_bin),
                wide.eq(lane.bin),
                self.bins.word_select(index, 64).eq(wide),
                self.live[index].eq(row.live),
                self.invalid[index].eq(row.invalid),
            ]
        return m


def parts():
    return {"lanes": Lanes()}


@dataclass(frozen=True)
class Tile:
    """Codes and activations, [K] each."""

    codes: np.ndarray
    x8: np.ndarray
    x16: np.ndarray

    def dots(self) -> list[int]:
        """The dot product in each of `CONFIGS`; codes that it refuses count as zero."""
        dots = []
        for config in CONFIGS:
            weights = INTEGERS[self.codes].astype(np.int64) >> (16 - config.span)
            weights[(self.codes >> 3 & 15) < 16 - config.span] = 0
            dots.append(int(weights @ (self.x8 if config.act_bits == 8 else self.x16)))
        return dots


class Lane40:
    """Feeds tiles with random bubbles, and checks the bins that come back."""

    def __init__(self, run: Run, bubbles: float):
        self.run, self.dut = run, run.dut
        self.bubbles = run.stalls(bubbles)
        self.reading = False
        self.finished: Queue[Tile] = Queue()

    async def idle(self) -> None:
        self.dut.valid.value = 0
        # What comes with no valid must not matter.
        self.dut.code.value = int(self.run.rng.integers(256))
        self.dut.first.value = int(self.run.rng.integers(2))
        self.dut.last.value = int(self.run.rng.integers(2))
        await RisingEdge(self.dut.clk)

    async def send(self, tile: Tile) -> None:
        dut = self.dut
        for k, code in enumerate(tile.codes):
            last = k == len(tile.codes) - 1
            while next(self.bubbles) or (last and self.reading):
                await self.idle()
            dut.valid.value, dut.first.value, dut.last.value = 1, k == 0, last
            dut.code.value = int(code)
            dut.x8.value, dut.x16.value = int(tile.x8[k]), int(tile.x16[k])
            await RisingEdge(dut.clk)
        self.reading = True
        self.finished.put_nowait(tile)

    async def read(self) -> None:
        """Combine the bins of each finished tile, while the next one is on its way."""
        while True:
            tile = await self.finished.get()
            await ClockCycles(self.dut.clk, CAPTURED - 1)
            sums = [0] * len(CONFIGS)
            for index in reversed(range(BINS)):
                self.dut.read_bin.value = index
                await RisingEdge(self.dut.clk)
                raw = int(self.dut.bins.value).to_bytes(8 * len(CONFIGS), "little")
                bins = np.frombuffer(raw, "<i8").tolist()
                live = int(self.dut.live.value)
                for lane, config in enumerate(CONFIGS):
                    if index < config.bins:
                        content = bins[lane] if live >> lane & 1 else 0
                        sums[lane] = (sums[lane] << (1 << config.align)) + content
            self.reading = False
            self.run.check(sums, tile.dots(), f"dot products of {len(tile.codes)} terms")

    async def tiles(self, tiles: Iterator[Tile]) -> None:
        reader = cocotb.start_soon(self.read())
        for tile in tiles:
            await self.send(tile)
        while self.reading:
            await self.idle()
        reader.cancel()


VALID = np.flatnonzero(is_valid(np.arange(256, dtype=np.uint8)))
EXTREMES = ((-128, -32768), (127, 32767), (-1, -1), (0, 0), (1, 1), (0x55, 0x5555))


@bench_test(limit=60_000, part=["lanes"])
async def every_product(run: Run) -> None:
    """Tiles of one term: every valid code with every extreme activation, back to back."""
    await run.start(valid=0)
    pairs = [(code, *x) for code in VALID for x in EXTREMES]
    order = run.rng.permutation(len(pairs))
    tiles = (Tile(*(np.array([value]) for value in pairs[i])) for i in order)
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
                run.rng.choice(pool, k),
                run.rng.integers(-128, 128, k),
                run.rng.integers(-32768, 32768, k),
            )

    await Lane40(run, bubbles=0.2).tiles(tiles())


@bench_test(limit=10_000, part=["lanes"])
async def largest_sums(run: Run) -> None:
    """The longest tiles with the largest terms: each bin is used to its last bit."""
    await run.start(valid=0)

    def tiles() -> Iterator[Tile]:
        for code in (0x7E, 0xFE, 0x66, 0xE6, 0x46, 0xC6, 0x06, 0x86):  # 15/8, in several bins
            for x8, x16 in EXTREMES[:2]:
                yield Tile(*(np.full(MAX_K, value) for value in (code, x8, x16)))
        for x8, x16 in EXTREMES:
            alternating = np.where(np.arange(MAX_K) % 2, 1, -1)
            x = np.clip(alternating * x8, -128, 127), np.clip(alternating * x16, -32768, 32767)
            yield Tile(run.rng.choice(VALID, MAX_K), *x)

    await Lane40(run, bubbles=0.05).tiles(tiles())


@bench_test(limit=10, part=["lanes"])
async def nothing_is_invalid_without_valid(run: Run) -> None:
    dut = await run.start(valid=0, code=0x80)
    await RisingEdge(dut.clk)
    run.check(int(dut.invalid.value), 0, "invalid")
    dut.valid.value = 1
    await RisingEdge(dut.clk)
    run.check(int(dut.invalid.value), (1 << len(CONFIGS)) - 1, "invalid")
