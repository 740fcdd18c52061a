"""The scratchpad, against arrays, and the choice of a bank."""

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from hardware import simulate

from golden.config import get_config
from hw.memory.scratchpad import Scratchpad, choose_bank

SEED = 71
CONFIGS = {
    cols: get_config("tiny").replace(cols=cols, scratch_words=16, bus_bytes=8, rows=8)
    for cols in (1, 3)
}
READERS = {"array": 1, "store": 2, "vector": 2}
"""Cycles from `enable` to the data."""
WRITERS = {"load": 3, "elements": 3, "results": 2}
"""Cycles from a write to the first read that gives it."""


class Banks:
    """Words of all banks [cols, words], and when each may be read."""

    def __init__(self, config):
        self.words = np.zeros((config.cols, config.scratch_words), np.uint64)
        self.since = np.zeros((config.cols, config.scratch_words), np.int64)

    def write(self, cycle, writer, columns, address, data):
        self.words[columns, address] = data
        self.since[columns, address] = cycle + WRITERS[writer]


def random_write(ctx, rng, dut, writer, config):
    """Set up a write; the columns, address and data of it."""
    port, cols = getattr(dut, writer), config.cols
    address = int(rng.integers(config.scratch_words))
    data = rng.integers(1 << 64, size=cols, dtype=np.uint64)
    columns = rng.random(cols) < 0.6
    columns[rng.integers(cols)] = True
    if writer == "load":
        columns = np.arange(cols) == rng.integers(cols)
        ctx.set(port.column, int(columns.argmax()))
        ctx.set(port.enable, 1)
    else:
        ctx.set(port.enable, sum(1 << int(c) for c in np.flatnonzero(columns)))
    ctx.set(port.address, address)
    if writer == "results":
        for each, word in zip(port.data, data.tolist(), strict=True):
            ctx.set(each, word)
    else:
        data[:] = data[0]
        ctx.set(port.data, int(data[0]))
    return columns, address, data


@pytest.mark.parametrize("cols", CONFIGS)
def test_words_come_as_they_were_written_and_when(cols):
    print("seed", SEED)
    config, rng = CONFIGS[cols], np.random.default_rng(SEED)
    dut, banks = Scratchpad(config), Banks(config)
    compared = {**dict.fromkeys(READERS, 0), "soonest": 0, "kept": 0}

    async def bench(ctx):
        reader = writer = None
        due = {}  # cycle -> words of all banks that must be on the ports then
        shown = [None] * cols
        recent = []
        for cycle in range(2500):
            # A unit stays at work for some cycles; then one in which no other may.
            if rng.random() < 0.15:
                reader = None if reader else str(rng.choice([*READERS]))
            if rng.random() < 0.15:
                writer = None if writer else str(rng.choice([*WRITERS]))
            for name in WRITERS:
                ctx.set(getattr(dut, name).enable, 0)
            wrote = None
            if writer and rng.random() < 0.8:
                wrote = random_write(ctx, rng, dut, writer, config)
            for name in READERS:
                ctx.set(getattr(dut, name).enable, 0)
                ctx.set(getattr(dut, name).address, int(rng.integers(config.scratch_words)))
            if reader and rng.random() < 0.8:
                port = getattr(dut, reader)
                soon = [a for since, a in recent if since == cycle]
                address = soon[0] if soon else int(rng.integers(config.scratch_words))
                ctx.set(port.enable, 1)
                ctx.set(port.address, address)
                defined = (banks.since[:, address] <= cycle).tolist()
                words = banks.words[:, address].tolist()
                due[cycle + READERS[reader]] = [
                    word if known else None for word, known in zip(words, defined, strict=True)
                ]
                compared[reader] += 1
                compared["soonest"] += bool(soon)
            if cycle in due:
                shown = due.pop(cycle)
            else:
                compared["kept"] += 1
            for name in READERS:
                for found, want in zip(getattr(dut, name).data, shown, strict=True):
                    if want is not None:
                        assert ctx.get(found) == want, (cycle, name)
            if wrote:
                columns, address, data = wrote
                banks.write(cycle, writer, columns, address, data[columns])
                recent = [*recent[-4:], (cycle + WRITERS[writer], address)]
            await ctx.tick()

    simulate(dut, bench, limit=3000)
    print(compared)
    assert all(compared.values())


class Chooser(wiring.Component):
    def __init__(self, banks):
        self.banks = banks
        super().__init__(
            {"words": In(8).array(banks), "bank": In(range(max(2, banks))), "o": Out(8)}
        )

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.o.eq(choose_bank(m, self.words, self.bank))
        return m


@pytest.mark.parametrize("banks", [1, 2, 3, 4, 5, 7, 16])
def test_the_chosen_bank_comes_two_cycles_later(banks):
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    words = rng.integers(256, size=(6 * banks, banks)).tolist()
    chosen = [n % banks for n in rng.permutation(6 * banks).tolist()]
    dut = Chooser(banks)
    found = []

    async def bench(ctx):
        for row, bank in [*zip(words, chosen, strict=True), (words[0], 0), (words[0], 0)]:
            for port, word in zip(dut.words, row, strict=True):
                ctx.set(port, word)
            ctx.set(dut.bank, bank)
            found.append(ctx.get(dut.o))
            await ctx.tick()

    simulate(dut, bench, limit=200)
    assert found[2:] == [row[bank] for row, bank in zip(words, chosen, strict=True)]
