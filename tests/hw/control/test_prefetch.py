"""The prefetch, against a list of beats and a count of the room that is left."""

from collections import deque

import numpy as np
import pytest
from hardware import simulate

from golden.config import get_config
from hw.control.prefetch import SLOTS, Prefetch, buffer_beats, burst_beats, part_bits

SEED = 41
CONFIGS = {
    "tiny": get_config("tiny"),
    "wide": get_config("sim").replace(burst_beats=16),
    "single": get_config("tiny").replace(burst_beats=1),
}


def test_a_burst_and_the_buffer_hold_whole_instructions():
    for config in CONFIGS.values():
        slot = config.slot_bytes // config.bus_bytes
        assert burst_beats(config) == min(config.burst_beats, SLOTS * slot)
        assert buffer_beats(config) >= max(2 * burst_beats(config), SLOTS * slot)
    assert part_bits(get_config("tiny")) == 32 and part_bits(get_config("sim")) == 256


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("pace", [0.2, 0.5, 0.95])
def test_beats_come_in_order_and_never_too_many(name, pace):
    """``pace``: how often the consumer takes a beat; the memory stalls as it likes."""
    print("seed", SEED)
    config, rng = CONFIGS[name], np.random.default_rng(SEED)
    dut = Prefetch(config)
    size, longest, depth = config.bus_bytes, burst_beats(config), buffer_beats(config)
    mask = (1 << part_bits(config)) - 1
    counts = {"beats": 0, "full": 0, "errors": 0, "starts": 0, "off": 0}

    async def bench(ctx):
        owed = deque()  # beats that the memory has been asked for
        fifo = deque()  # beats that it gave, until they are taken
        room, at = depth, None
        enable = 1
        for cycle in range(1000):
            start = at is None or (not owed and rng.random() < 0.02)
            enable = int(rng.random() < 0.97) if enable else int(rng.random() < 0.3)
            if start:
                slots = int(rng.integers(0, 1 << 20))
                program = slots * size
                ctx.set(dut.program, program)
            ctx.set(dut.start, start)
            ctx.set(dut.enable, enable and not start)
            request_ready = int(rng.random() < 0.6)
            ctx.set(dut.memory.request.ready, request_ready)
            beat = int(bool(owed) and rng.random() < 0.8)
            data = int.from_bytes(rng.bytes(size), "little")
            error = int(rng.random() < 0.1)
            ctx.set(dut.memory.beat, beat)
            ctx.set(dut.memory.data, data)
            ctx.set(dut.memory.error, error)
            ready = int(rng.random() < pace and not start)
            ctx.set(dut.o.ready, ready)

            asks = bool(enable and not start and room >= longest)
            assert ctx.get(dut.memory.request.valid) == asks, f"cycle {cycle}, room {room}"
            if asks:
                burst = ctx.get(dut.memory.request.payload)
                beats = longest - at // size % longest
                assert (burst["address"], burst["beats"]) == (at, beats), cycle
            counts["full"] += enable and not asks
            counts["off"] += not enable
            valid = ctx.get(dut.o.valid)
            if valid and not start:
                assert fifo, f"cycle {cycle}: a beat that nobody sent"
                word, wrong, _ = fifo[0]
                payload = ctx.get(dut.o.payload)
                assert (payload["data"], payload["error"]) == (word, wrong), cycle
            elif not start:  # what has come is there two cycles later
                assert not fifo or fifo[0][2] > cycle - 2, cycle

            if start:
                fifo.clear()
                room, at = depth, program
                counts["starts"] += 1
            else:
                if asks and request_ready:
                    owed.extend([0] * beats)
                    room, at = room - beats, at + beats * size
                if valid and ready:
                    fifo.popleft()
                    room += 1
                    counts["beats"] += 1
                if beat:
                    owed.popleft()
                    fifo.append((data & mask, error, cycle))
                    counts["errors"] += error
            assert len(fifo) + len(owed) <= depth
            await ctx.tick()

    simulate(dut, bench, limit=2000)
    print(counts)
    assert all(counts.values())
