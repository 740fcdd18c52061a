"""Attention as a program, token by token, against `golden.attention`."""

import numpy as np
import pytest

from golden import isa
from golden.attention import KVCache, attention
from golden.config import CONFIGS
from golden.isa import ErrorCode, Opcode
from golden.machine import GoldenMachine
from rf8.compiler.attention import append_keys, append_values, attend
from rf8.compiler.emitter import Emitter
from rf8.compiler.tensors import Cache, Heads, padded_width

SEED = 17
OTHERS = [
    {"soft_cap": 1.5},
    {"soft_cap": 50, "window": 4},
    {"scale": 1.0},
    {"scale": 1 / 256, "soft_cap": 30.0},
]
CONTEXT, WIDTH, QUERIES, GROUPS = 23, 6, 4, 2
COUNTS = {"q": QUERIES, "k": GROUPS, "v": GROUPS}
PROGRAM, VECTORS, RESULTS, CACHE = 0, 0x4000, 0x6000, 0x8000


def layout(config):
    """Heads, and a cache whose parts follow each other in memory."""
    padded = padded_width(WIDTH, config)
    heads = Heads(QUERIES, GROUPS, WIDTH, padded, CONTEXT)
    free = CACHE

    def take(size):
        nonlocal free
        free += -(-size // config.bus_bytes) * config.bus_bytes
        return free - -(-size // config.bus_bytes) * config.bus_bytes

    tiles = -(-CONTEXT // config.rows)
    keys = [take(tiles * config.rows * (1 + 2 * padded)) for _ in range(GROUPS)]
    values = [
        [take((1 + CONTEXT) * config.rows) for _ in range(heads.tiles(config))]
        for _ in range(GROUPS)
    ]
    return heads, Cache(keys, values, [take(4 * (CONTEXT + 1)) for _ in range(GROUPS)])


def program(config, columns, options):
    """Loads queries, keys and values of the columns, and stores their contexts."""
    heads, cache = layout(config)
    e = Emitter(config, columns, "test")
    words = e.words(heads.padded)
    places = {name: e.scratch.take(n * words) for name, n in COUNTS.items()}
    each = (QUERIES + 2 * GROUPS) * words
    for column in range(columns):
        at = VECTORS + column * each * config.bus_bytes
        for name, count in COUNTS.items():
            e.emit(Opcode.LOAD, column=column, address=at, count=count * words, dst=places[name])
            at += count * words * config.bus_bytes
    append_keys(e, places["k"], heads, cache)
    append_values(e, places["v"], heads, cache)
    context = attend(e, places["q"], heads, cache, **options)
    many = e.words(heads.queries * heads.stride(config))
    for column in range(columns):
        at = RESULTS + column * many * config.bus_bytes
        e.emit(Opcode.STORE, column=column, address=at, count=many, src=context)
    e.halt()
    return heads, isa.encode_program(e.instructions, config)


@pytest.mark.parametrize("name", ["tiny", "ecp5"])
@pytest.mark.parametrize(
    "options", [{}, {"window": 1}, {"window": 5}, {"window": CONTEXT}, *OTHERS], ids=str
)
def test_tokens_as_golden_has_them(name, options):
    print("seed", SEED)
    config, rng = CONFIGS[name], np.random.default_rng(SEED)
    memory = np.zeros(1 << 16, np.uint8)
    machine, known = GoldenMachine(memory, config), KVCache.empty(GROUPS, WIDTH)
    position = 0
    while position < CONTEXT:
        columns = config.cols if position + config.cols <= CONTEXT and rng.random() < 0.5 else 1
        heads, code = program(config, columns, options)
        assert len(code) <= VECTORS
        memory[PROGRAM : PROGRAM + len(code)] = np.frombuffer(code, np.uint8)
        vectors = rng.integers(-(3 << 16), 3 << 16, (columns, QUERIES + 2 * GROUPS, WIDTH))
        padded = np.zeros((*vectors.shape[:2], heads.padded), "<i4")
        padded[..., :WIDTH] = vectors
        memory[VECTORS : VECTORS + padded.nbytes] = padded.view(np.uint8).reshape(-1)
        assert machine.run(PROGRAM, position).error is ErrorCode.NONE
        q, k, v = np.split(vectors, [QUERIES, QUERIES + GROUPS], axis=1)
        want = attention(q, k, v, known, config.act_bits, config.span, **options)
        size = columns * QUERIES * heads.stride(config) * 4
        found = memory[RESULTS : RESULTS + size].view("<i4").reshape(columns, QUERIES, -1)
        assert (found[..., :WIDTH] == want).all(), position
        position += columns
