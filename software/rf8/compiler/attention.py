"""Attention as instructions: rotary positions, RF8 keys and values, scores, softmax, context.

Each function writes instructions to an `Emitter`; `golden.attention` defines what they compute.
"""

from __future__ import annotations

from collections.abc import Sequence

from golden import layers
from golden.attention import score_cap
from golden.config import RESULT_FRAC
from golden.isa import SEGMENTS, After, Flag, Function, Opcode, Output, block_words, exact_log2
from golden.layers import QUERY_FRAC
from rf8.compiler.emitter import Emitter, strides
from rf8.compiler.tensors import Cache, Heads


def angles(e: Emitter, steps_at: int, width: int) -> int:
    """Cosines and signed sines for `rotate` at the columns' positions; returns the place of the
    table.

    ``steps_at``: address in memory of the steps, and behind them of the offsets, for both.
    """
    count = 2 * e.words(width) * e.config.results_per_word
    words = e.words(count)
    table, offsets = e.scratch.take(words), e.scratch.take(words)
    e.load(steps_at, words, table)
    e.load(steps_at + words * e.config.bus_bytes, words, offsets)
    e.vector(Function.ANGLE, count, table, table, other=offsets)
    e.vector(Function.SINE, count, table, table)
    e.scratch.free(offsets)
    return table


def rotate(e: Emitter, x: int, count: int, table: int, width: int) -> None:
    """Turn ``count`` elements at ``x`` by the angles of ``table``, in place; pairs are neighbours,
    and heads of ``width`` elements follow each other."""
    e.vector(
        Function.ROTATE,
        count,
        x,
        x,
        other=table,
        k=1,
        immediate=e.words(width),
        shift=-layers.SINE_FRAC,
    )


def _runs(e: Emitter, heads: int) -> Sequence[range]:
    """Heads in runs that have registers."""
    return [range(h, min(h + SEGMENTS, heads)) for h in range(0, heads, SEGMENTS)]


def queries(e: Emitter, q: int, heads: Heads, scale: float | None = None) -> int:
    """Blocks of all heads' queries; returns the place of the first. Each block has the query twice,
    once for either code of a key. ``scale``: as of `golden.layers.query_factor`.

    Between the two passes over the queries stands the FENCE after which keys and values are read:
    STOREs have time to end before it, and weights to come after it.
    """
    padded, words = heads.padded, e.words(heads.padded)
    each = block_words(2 * padded, e.config)
    blocks = e.scratch.take(heads.queries * each)
    factor, fraction = layers.query_factor(heads.width, scale)
    for run in _runs(e, heads.queries):
        src, dst, many = q + run.start * words, blocks + run.start * each, len(run)
        e.vector(
            Function.SCALE,
            padded,
            src,
            src,
            flags=Flag.IMMEDIATE,
            immediate=factor,
            shift=QUERY_FRAC - RESULT_FRAC - fraction,
            segments=many,
            **strides(words, 0, words),
        )
        # A pass of its own: `immediate` is taken.
        e.vector(
            Function.SHIFT,
            padded,
            src,
            after=After.QUANTIZE,
            immediate=QUERY_FRAC,
            segments=many,
            **strides(words, 0, 0),
        )
        if run.start == 0:
            e.emit(Opcode.FENCE)
        second = dst + block_words(padded, e.config)
        for output, place in ((Output.BLOCK, dst), (Output.MANTISSAS, second)):
            e.vector(
                Function.SHIFT,
                padded,
                src,
                place,
                output=output,
                flags=Flag.AMOUNT,
                k=e.config.act_bits,
                segments=many,
                **strides(words, 0, each),
            )
    return blocks


def _to_codes(e: Emitter, x: int, many: int, heads: Heads) -> None:
    """Fixed point for codes, in place; leaves the biases in the registers."""
    words = e.words(heads.padded)
    apart = strides(words, 0, words)
    e.vector(Function.SHIFT, heads.padded, x, after=After.CODE, segments=many, **apart)
    e.vector(Function.SHIFT, heads.padded, x, x, flags=Flag.AMOUNT, segments=many, **apart)


def append_keys(e: Emitter, k: int, heads: Heads, cache: Cache) -> None:
    """Encode the keys of all heads at ``k`` and store them where their positions belong."""
    config, words = e.config, e.words(heads.padded)
    slices = 1 + 2 * heads.padded
    each = 1 + 2 * words
    for run in _runs(e, heads.groups):
        src, many = k + run.start * words, len(run)
        rows = e.scratch.take(many * each)
        _to_codes(e, src, many, heads)
        common: dict[str, int] = {"segments": many}
        e.vector(
            Function.CODE, heads.padded, src, rows, output=Output.ROW,
            **strides(words, 0, each), **common,
        )  # fmt: skip
        e.vector(Function.RESIDUE, heads.padded, src, src, **strides(words, 0, words), **common)
        e.vector(
            Function.CODE, heads.padded, src, rows + 1 + words,
            **strides(words, 0, each), **common,
        )  # fmt: skip
        for number, group in enumerate(run):
            store_indexed(
                e,
                cache.keys[group],
                slices,
                rows + number * each,
                exact_log2(config.bus_bytes),
                slices,
                heads,
            )
        e.scratch.free(rows)


def append_values(e: Emitter, v: int, heads: Heads, cache: Cache) -> None:
    """Encode the values of all heads at ``v`` and store them where their positions belong."""
    config, words = e.config, e.words(heads.padded)
    each = 1 + -(-heads.padded // config.bus_bytes)
    for run in _runs(e, heads.groups):
        src, many = v + run.start * words, len(run)
        rows = e.scratch.take(many * each)
        _to_codes(e, src, many, heads)
        e.vector(
            Function.CODE,
            heads.padded,
            src,
            rows,
            output=Output.CODES,
            segments=many,
            **strides(words, 0, each),
        )
        for number, group in enumerate(run):
            row = rows + number * each
            for tile, address in enumerate(cache.values[group]):
                # Past the slice of exponents, which are zero.
                first = address + config.bus_bytes
                store_indexed(e, first, 1, row + 1 + tile, 0, 1, heads)
            lanes = exact_log2(config.results_per_word)
            store_indexed(e, cache.biases[group], 1, row, lanes, 1, heads)
        e.scratch.free(rows)


def store_indexed(
    e: Emitter, address: int, count: int, src: int, shift: int, stride: int, heads: Heads
) -> None:
    """Store from each column's bank to the place of its position: ``count`` beats, ``stride`` beats
    from one index to the next, ``1 << shift`` positions in a beat."""
    for column in range(e.columns):
        e.emit(
            Opcode.STORE,
            flags=Flag.INDEX,
            column=column,
            shift=shift,
            address=address,
            count=count,
            k=stride,
            src=src,
            immediate=heads.context,
        )


def attend(
    e: Emitter,
    q: int,
    heads: Heads,
    cache: Cache,
    *,
    window: int | None = None,
    soft_cap: float | None = None,
    scale: float | None = None,
) -> int:
    """The context vectors of all heads, one after the other; returns the place of the first.

    ``window``, ``soft_cap``, ``scale``: as of `golden.attention.attention`. Heads are taken in
    groups as large as the scratchpad has room for.
    """
    config, context = e.config, heads.context
    blocks = queries(e, q, heads, scale)
    each = block_words(2 * heads.padded, config)
    stride = e.words(heads.stride(config))
    result = e.scratch.take(heads.queries * stride)

    tiles = -(-context // config.rows)
    scores = e.words(tiles * config.rows)
    share = block_words(context, config)
    raw = e.words(heads.tiles(config) * config.rows)
    a_head = scores + e.words(context) + share + raw
    most = min(SEGMENTS, heads.queries, max(1, e.scratch.room() // a_head))
    for first in range(0, heads.queries, most):
        run = range(first, min(first + most, heads.queries))
        _attend(e, run, blocks, each, result, stride, heads, cache, window, soft_cap)
    e.scratch.free(blocks)
    return result


def _attend(
    e: Emitter,
    run: range,
    blocks: int,
    each: int,
    result: int,
    stride: int,
    heads: Heads,
    cache: Cache,
    window: int | None,
    soft_cap: float | None,
) -> None:
    config, context, many = e.config, heads.context, len(run)
    tiles = -(-context // config.rows)
    score_words, bias_words = e.words(tiles * config.rows), e.words(context)
    share_words = block_words(context, config)
    per_tile = config.rows // config.results_per_word
    channel_tiles = heads.tiles(config)
    scores = e.scratch.take(many * score_words)
    biases = e.scratch.take(many * bias_words)
    shares = e.scratch.take(many * share_words)
    raw = e.scratch.take(many * channel_tiles * per_tile)
    shared = heads.queries // heads.groups

    for number, head in enumerate(run):
        e.emit(
            Opcode.MATMUL,
            flags=Flag.LENGTH,
            column=e.columns,
            shift=config.result_shift,
            address=cache.keys[head // shared],
            count=tiles,
            k=2 * heads.padded,
            src=blocks + head * each,
            dst=scores + number * score_words,
        )
    for number, head in enumerate(run):
        for column in range(e.columns):
            e.emit(
                Opcode.LOAD,
                flags=Flag.LENGTH,
                column=column,
                address=cache.biases[head // shared],
                count=bias_words,
                dst=biases + number * bias_words,
            )
    length: dict[str, int] = {"flags": Flag.LENGTH, "segments": many}
    seen = length
    if window is not None:
        seen = {**length, "flags": Flag.LENGTH | Flag.WINDOW, "immediate": window}
    apart = strides(score_words, bias_words, score_words)
    if soft_cap is not None:
        e.soft_cap(scores, context, score_cap(soft_cap), **apart, **length)
    e.vector(Function.SHIFT, context, scores, **apart, **seen)
    # Outside of a window this gives 0, which LENGTHS and SHIFT_EACH keep out of the shares.
    e.vector(
        Function.EXP2, context, scores, scores,
        after=After.RECIPROCAL, **apart, **seen,
    )  # fmt: skip
    e.vector(
        Function.LENGTHS, context, scores,
        other=biases, after=After.LIFT, **apart, **length,
    )  # fmt: skip
    e.vector(
        Function.SHIFT_EACH,
        context,
        scores,
        shares,
        other=biases,
        output=Output.BLOCK,
        k=config.act_bits,
        flags=Flag.LENGTH | Flag.AMOUNT,
        segments=many,
        **strides(score_words, bias_words, share_words),
    )
    for number, head in enumerate(run):
        for tile, address in enumerate(cache.values[head // shared]):
            e.emit(
                Opcode.MATMUL,
                flags=Flag.LENGTH_K,
                column=e.columns,
                shift=config.result_shift,
                address=address,
                count=1,
                k=context,
                src=shares + number * share_words,
                dst=raw + (number * channel_tiles + tile) * per_tile,
            )
    e.vector(
        Function.SCALE,
        heads.width,
        raw,
        result + run.start * stride,
        shift=-layers.INVERSE_FRAC,
        segments=many,
        **strides(channel_tiles * per_tile, 0, stride),
    )
    e.scratch.free(scores, biases, shares, raw)
