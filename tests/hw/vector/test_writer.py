"""The writer: words and headers of segments, packed, in their places."""

from dataclasses import replace

import numpy as np
import pytest
from hardware import simulate, word_of
from vector_control import control_of

from golden import isa
from golden.config import get_config
from golden.isa import FIELDS, HEADED, Instruction, Opcode, Output
from golden.vector import wrapped
from hw.vector.writer import VectorWriter

SEED = 191
CONFIGS = {
    "one": get_config("tiny"),
    "four": get_config("ecp5").replace(cols=3),
    "bytes": get_config("ecp5").replace(act_bits=8, cols=1),
}
VECTOR = Instruction(opcode=Opcode.VECTOR, column=1, count=8, k=32, segments=1)


def packed(y, output, config):
    """The words of a segment's results [words, bus_bytes], without a header."""
    size = {Output.WORDS: 4, Output.ROW: 4, Output.CODES: 1}.get(output, config.act_bits // 8)
    data = wrapped(y, 8 * size).astype(f"<i{size}").view(np.uint8)
    words = -(-len(data) // config.bus_bytes)
    image = np.zeros(words * config.bus_bytes, np.uint8)
    image[: len(data)] = data
    return image.reshape(words, config.bus_bytes)


@pytest.mark.parametrize("name", CONFIGS)
def test_words_are_packed_and_placed(name):
    print("seed", SEED)
    config, rng = CONFIGS[name], np.random.default_rng(SEED)
    lanes = config.results_per_word
    dut = VectorWriter(config)
    outputs = [o for o in Output if o is not Output.TOP or lanes > 1] * 3

    async def bench(ctx):
        for output in rng.permutation(outputs).tolist():
            output = Output(output)
            headed = output in HEADED or output is Output.TOP
            i = replace(
                VECTOR, output=output, column=int(rng.integers(1, config.cols + 1)),
                segments=int(rng.integers(1, 4)), count=int(rng.integers(1, 9 * lanes)),
                dst=int(rng.integers(100)), dst_stride=int(rng.integers(40, 60)),
            )  # fmt: skip
            expected = {}  # (column, address) -> word
            parts = []  # sidebands and results, and the segment whose last they are
            headers = []
            for column in range(i.column):
                for segment in range(i.segments):
                    y = rng.integers(-(1 << 31), 1 << 31, i.count)
                    place = i.dst + segment * i.dst_stride
                    exponent = int(rng.integers(-128, 128))
                    pair = int(rng.integers(-(1 << 31), 1 << 31)), int(rng.integers(i.count))
                    head = np.zeros(lanes, "<i4")
                    head[0] = exponent
                    if output is Output.TOP:
                        head[:2] = pair
                    if headed:
                        expected[column, place] = head.tobytes()
                        headers.append((exponent, *pair))
                    if output not in (Output.NONE, Output.TOP):
                        words = packed(y, output, config)
                        for n, word in enumerate(words):
                            expected[column, place + headed + n] = word.tobytes()
                    words = isa.vector_words(i.count, config)
                    padded = np.zeros(words * lanes, np.int64)
                    padded[: i.count] = y
                    for n, row in enumerate(padded.reshape(words, lanes).tolist()):
                        last = n == words - 1
                        parts.append(({"valid": 1, "last": int(last), "index": n}, row))
            fields = {name: int(getattr(i, name)) for name in FIELDS}
            ctx.set(dut.operands.as_value(), word_of(fields))
            ctx.set(dut.control, control_of(i, config))
            await ctx.tick()
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            await ctx.tick()
            waiting = []  # segments whose sums are to come, with the cycle
            header = taken = 0
            soon = None  # the cycle in which the header is asked for
            complete = {}  # cycle in which a word must be written
            cycle = 0
            while parts or waiting or header or soon or complete:
                sideband, row = {"valid": 0, "last": 1, "index": 5}, [3] * lanes
                if parts and len(waiting) < 6 and rng.random() < 0.7:
                    sideband, row = parts.pop(0)
                    size = {1: 4, 2: 2}.get(_size(output, config), 1)  # parts of a word
                    if output not in (Output.NONE, Output.TOP) and (
                        sideband["last"] or sideband["index"] % size == size - 1
                    ):
                        complete[cycle + 1] = True
                    if sideband["last"] and headed:
                        waiting.append(cycle + 6)
                ctx.set(dut.sideband, {"step": 0, "second": 0, "first": 0, "mask": 0, **sideband})
                for port, value in zip(dut.y, row, strict=True):
                    ctx.set(port, value)
                end = bool(waiting and not header and soon is None and waiting[0] <= cycle)
                if soon == cycle:
                    header, soon = 1, None
                ctx.set(dut.end, end)
                ctx.set(dut.header, header)
                if end:
                    exponent, top, where = headers.pop(0)
                    ctx.set(dut.top, top)
                    ctx.set(dut.where, where)
                else:
                    ctx.set(dut.top, 1)
                if header:
                    ctx.set(dut.exponent, exponent)
                put = complete.pop(cycle, False)
                assert ctx.get(dut.taken) == (header and not put), cycle
                enable = ctx.get(dut.write_enable)
                assert bool(enable) == bool(put or header), cycle
                if enable:
                    column = enable.bit_length() - 1
                    assert enable == 1 << column
                    word = expected.pop((column, ctx.get(dut.write_address)))
                    assert ctx.get(dut.write_data).to_bytes(config.bus_bytes, "little") == word
                if ctx.get(dut.taken):
                    header = 0
                    taken += 1
                if end:
                    waiting.pop(0)
                    soon = cycle + 1 + int(rng.integers(4))
                await ctx.tick()
                cycle += 1
            ctx.set(dut.header, 0)
            ctx.set(dut.sideband.valid, 0)
            assert not expected and taken == headed * i.column * i.segments

    simulate(dut, bench, limit=10_000)


def _size(output, config):
    """Bytes of an element."""
    return {Output.WORDS: 4, Output.ROW: 4, Output.CODES: 1}.get(output, config.act_bits // 8)
