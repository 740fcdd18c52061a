"""Bursts and the shared read channel, against lists and queues."""

from collections import deque

import numpy as np
import pytest
from hardware import simulate

from golden.config import get_config
from hw.memory.axi import READ_CLIENTS, Bursts, ReadManager

SEED = 61
TINY = get_config("tiny")
CONFIGS = {n: TINY.replace(burst_beats=n, fifo_beats=max(32, 2 * n)) for n in (1, 2, 8, 32)}


def cut(address, beats, config):
    """The bursts of a run: each up to the next multiple of the longest."""
    size, longest = config.bus_bytes, config.burst_beats
    while beats:
        count = min(beats, longest - address // size % longest)
        yield address, count
        address, beats = address + count * size, beats - count


def runs(rng, config):
    """Address and beats, about every place in a block and every length about a block's."""
    longest = config.burst_beats
    for first in range(longest):
        for beats in {
            1,
            longest - first,
            longest - first + 1,
            longest,
            2 * longest,
            2 * longest + 1,
        }:
            yield (int(rng.integers(1 << 20)) * longest + first) * config.bus_bytes, beats
    for _ in range(20):
        yield int(rng.integers(1 << 24)) * config.bus_bytes, int(rng.integers(1, 20 * longest))


@pytest.mark.parametrize("longest", CONFIGS)
def test_bursts_end_on_multiples(longest):
    print("seed", SEED)
    config, rng = CONFIGS[longest], np.random.default_rng(SEED)
    dut = Bursts(config)
    cases = [*runs(rng, config)]

    async def bench(ctx):
        for number in range(120):
            address, beats = cases[int(rng.integers(len(cases)))]
            assert not ctx.get(dut.busy) and not ctx.get(dut.o.valid)
            ctx.set(dut.start, 1)
            ctx.set(dut.address, address)
            ctx.set(dut.beats, beats)
            await ctx.tick()
            ctx.set(dut.start, 0)
            ctx.set(dut.address, 0)
            ctx.set(dut.beats, 0)
            for cycle in range(1, dut.latency):
                ctx.set(dut.o.ready, int(rng.integers(2)))
                assert not ctx.get(dut.o.valid) and ctx.get(dut.busy), cycle
                await ctx.tick()
            pace = (1, 0.4)[number % 2]
            for burst in cut(address, beats, config):
                while True:
                    ready = int(rng.random() < pace)
                    ctx.set(dut.o.ready, ready)
                    found = ctx.get(dut.o.payload)
                    about = f"{beats} beats at {address:#x}"
                    assert ctx.get(dut.o.valid) and ctx.get(dut.busy), about
                    assert (found["address"], found["beats"]) == burst, about
                    await ctx.tick()
                    if ready:
                        break

    simulate(dut, bench, limit=30_000)


@pytest.mark.parametrize("beats", [(1 << 32) - 1, 1 << 31, 1 << 16, (1 << 9) + 1, 1 << 4])
def test_long_runs_begin_with_whole_bursts(beats):
    config = CONFIGS[8]
    dut = Bursts(config)

    async def bench(ctx):
        ctx.set(dut.start, 1)
        ctx.set(dut.beats, beats)
        ctx.set(dut.o.ready, 1)
        await ctx.tick().repeat(dut.latency - 1)
        ctx.set(dut.start, 0)
        for number in range(min(100, beats // 8)):
            await ctx.tick()
            assert ctx.get(dut.o.payload.beats) == 8 and ctx.get(dut.o.valid)
            assert ctx.get(dut.o.payload.address) == number * 8 * config.bus_bytes

    simulate(dut, bench, limit=200)


@pytest.mark.parametrize("pace", [0.15, 0.9])
def test_the_first_client_goes_first_and_gets_its_beats(pace):
    """``pace``: how often the memory takes a request, and sends a beat."""
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    dut = ReadManager(TINY)
    clients = [getattr(dut, name) for name in READ_CLIENTS]
    counts = {"bursts": 0, "beats": 0, "errors": 0, "stopped": 0, "contested": 0, "drained": 0}

    async def bench(ctx):
        waiting = [None] * len(clients)  # the request of each client
        address = None  # AR: the burst on the bus and its client
        owed = [deque() for _ in clients]  # of each ID: is a beat the last of its burst?
        flying, stop = 0, 0
        for cycle in range(1500):
            stop = int(rng.random() < (0.8 if stop else 0.05))
            calm = cycle % 100 > 10
            ctx.set(dut.stop, stop)
            for n, client in enumerate(clients):
                if waiting[n] is None and not calm and rng.random() < 0.3:
                    waiting[n] = int(rng.integers(1 << 30)) * 4, int(rng.integers(1, 4))
                there = waiting[n] is not None
                ctx.set(client.request.valid, there)
                burst = waiting[n] or (0xBAD0, 77)
                ctx.set(client.request.payload, {"address": burst[0], "beats": burst[1]})
            arready = int(rng.random() < pace)
            ctx.set(dut.axi.arready, arready)
            beating = [n for n, queue in enumerate(owed) if queue]
            beat = bool(beating) and rng.random() < pace
            source = int(rng.choice(beating)) if beat else int(rng.integers(4))
            last = owed[source][0] if beat else int(rng.integers(2))
            data, response = int(rng.integers(1 << 32)), int(rng.integers(4))
            ctx.set(dut.axi.rvalid, beat)
            ctx.set(dut.axi.rid, source)
            ctx.set(dut.axi.rlast, last)
            ctx.set(dut.axi.rdata, data)
            ctx.set(dut.axi.rresp, response)

            assert ctx.get(dut.idle) == (flying == 0), cycle
            assert ctx.get(dut.axi.arvalid) == (address is not None), cycle
            if address is not None:
                (first, beats), client = address
                axi = dut.axi
                found = [ctx.get(port) for port in (axi.araddr, axi.arlen, axi.arid)]
                assert found == [first, beats - 1, client], cycle
                assert [ctx.get(axi.arsize), ctx.get(axi.arburst)] == [2, 1]
            accept = not stop and (address is None or arready)
            wanted = [n for n, burst in enumerate(waiting) if burst is not None]
            for n, client in enumerate(clients):
                ready = accept and all(m >= n for m in wanted)
                assert ctx.get(client.request.ready) == ready, (cycle, n)
                assert ctx.get(client.beat) == (beat and n == source), (cycle, n)
                if beat and n == source:
                    assert ctx.get(client.data) == data
                    assert ctx.get(client.error) == response >> 1
            assert ctx.get(dut.axi.rready)

            counts["stopped"] += bool(stop and wanted)
            counts["contested"] += len(wanted) > 1
            if beat:
                owed[source].popleft()
                flying -= last
                counts["drained"] += not flying
                counts["beats"] += 1
                counts["errors"] += response >> 1
            if address is not None and arready:
                (_, beats), client = address
                owed[client].extend([*[0] * (beats - 1), 1])
                address = None
            if accept and wanted:  # on the bus in the next cycle
                address = waiting[wanted[0]], wanted[0]
                waiting[wanted[0]] = None
                flying += 1
                counts["bursts"] += 1
            await ctx.tick()

    assert ReadManager.latency == 1
    simulate(dut, bench, limit=3000)
    print(counts)
    assert all(counts.values())
