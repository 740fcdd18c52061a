"""Queues, against a deque."""

from collections import deque

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from hardware import simulate

from hw.lib.queue import ReadAhead, StreamQueue

SEED = 141
PAIR = data.StructLayout({"a": 5, "b": 7})


@pytest.mark.parametrize("depth", [2, 3, 8])
@pytest.mark.parametrize(("come", "leave"), [(1, 1), (0.9, 0.3), (0.3, 0.9), (0.6, 0.6)])
def test_payloads_leave_in_order_after_the_latency(depth, come, leave):
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    dut = StreamQueue(PAIR, depth)
    counts = {"full": 0, "empty": 0, "moved": 0}

    async def bench(ctx):
        queue = deque()  # payloads, with the cycle from which they may leave
        for cycle in range(600):
            word = {"a": int(rng.integers(32)), "b": int(rng.integers(128))}
            valid, ready = rng.random() < come, rng.random() < leave
            ctx.set(dut.i.valid, valid)
            ctx.set(dut.i.payload, word)
            ctx.set(dut.o.ready, ready)
            full, there = len(queue) == depth, bool(queue) and queue[0][1] <= cycle
            moving = depth == 2 and queue and queue[-1][1] == cycle - 1 + dut.latency
            may = not (full or moving)
            assert ctx.get(dut.i.ready) == may, cycle
            assert ctx.get(dut.o.valid) == there, cycle
            if there:
                found = ctx.get(dut.o.payload)
                assert {"a": found["a"], "b": found["b"]} == queue[0][0], cycle
            counts["full"] += full
            counts["empty"] += not queue
            if there and ready:
                queue.popleft()
                counts["moved"] += 1
            if valid and may:
                queue.append((word, cycle + dut.latency))
            await ctx.tick()

    simulate(dut, bench, limit=700)
    print(counts)
    assert counts["moved"] > 100
    assert counts["full"] if come > leave else counts["empty"]


class Ahead(wiring.Component):
    """A `ReadAhead` behind a FIFO."""

    def __init__(self, width, depth):
        self.width, self.depth = width, depth
        self.ahead = ReadAhead(width)
        ports = {"w_data": In(width), "w_en": In(1), "w_rdy": Out(1), "take": In(1)}
        super().__init__(
            ports | {"word": Out(width), "valid": Out(1), "next_valid": Out(1), "popped": Out(1)}
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.ahead = ahead = self.ahead
        m.submodules.fifo = fifo = SyncFIFOBuffered(width=self.width, depth=self.depth)
        m.d.comb += [
            fifo.w_data.eq(self.w_data),
            fifo.w_en.eq(self.w_en),
            self.w_rdy.eq(fifo.w_rdy),
            ahead.r_data.eq(fifo.r_data),
            ahead.r_rdy.eq(fifo.r_rdy),
            fifo.r_en.eq(ahead.r_en),
            ahead.take.eq(self.take),
        ]
        for name in ("word", "valid", "next_valid", "popped"):
            m.d.comb += getattr(self, name).eq(getattr(ahead, name))
        return m


@pytest.mark.parametrize(("come", "leave"), [(1, 1), (0.9, 0.3), (0.3, 0.9), (0.6, 0.6)])
def test_words_are_read_ahead_and_none_is_lost(come, leave):
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    dut = Ahead(8, depth=4)
    counts = {"written": 0, "taken": 0, "streak": 0, "most": 0}

    async def bench(ctx):
        queue, popped, streak, soon = deque(), 0, 0, False
        for cycle in range(800):
            word, write, take = int(rng.integers(256)), rng.random() < come, rng.random() < leave
            ctx.set(dut.w_data, word)
            ctx.set(dut.w_en, write)
            valid = ctx.get(dut.valid)
            assert valid == soon, cycle
            take = bool(take and valid)
            ctx.set(dut.take, take)
            soon = ctx.get(dut.next_valid)
            if valid:
                assert ctx.get(dut.word) == queue[0], cycle
            popped += ctx.get(dut.popped)
            assert 0 <= popped <= 2, cycle  # words in its two registers
            counts["most"] = max(counts["most"], popped)
            streak = streak + 1 if take else 0
            counts["streak"] = max(counts["streak"], streak)
            if write and ctx.get(dut.w_rdy):
                queue.append(word)
                counts["written"] += 1
            if take:
                queue.popleft()
                popped -= 1
                counts["taken"] += 1
            await ctx.tick()

    simulate(dut, bench, limit=1000)
    print(counts)
    assert counts["written"] - 8 <= counts["taken"] <= counts["written"]
    if come == leave == 1:  # a word each cycle
        assert counts["streak"] > 700
    if come > leave:
        assert counts["most"] == 2
