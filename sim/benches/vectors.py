"""Random VECTOR instructions whose result is defined, and elements that are hard for them."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from golden import isa
from golden.config import AccelConfig
from golden.isa import After, Flag, Function, Instruction, Opcode, Output

LARGEST = (1 << 31) - 1
EDGES = (0, 1, -1, 2, LARGEST, -LARGEST, -LARGEST - 1, 1 << 30, -(1 << 30))


def hard_elements(rng: np.random.Generator, count: int) -> NDArray[np.int32]:
    """Elements of all magnitudes: about powers of two, at both ends, zero, Q16 of small numbers."""
    width = int(rng.choice([4, 9, 16, 20, 24, 32]))  # that most of them have
    values = rng.integers(-(1 << (width - 1)), 1 << (width - 1), count)
    near = (1 << rng.integers(0, 31, count)) + rng.integers(-2, 3, count)
    kinds = rng.random(count)
    values = np.where(kinds < 0.25, near * rng.choice([-1, 1], count), values)
    values = np.where(kinds > 0.85, rng.choice(EDGES, count), values)
    return values.clip(-LARGEST - 1, LARGEST).astype(np.int32)


def _shift(rng: np.random.Generator, function: Function) -> int:
    """Mostly such that not all becomes zero or saturates."""
    if rng.random() < 0.2:
        return int(rng.choice([-128, 127, -64, -63, -62, 33, 34, 35, *rng.integers(-128, 128, 4)]))
    products = (Function.SCALE, Function.MULTIPLY, Function.ROTATE)
    return int(rng.integers(-40, 4) if function in products else rng.integers(-24, 12))


def _immediate(rng: np.random.Generator, after: After, config: AccelConfig) -> int:
    if after is After.ROOT:
        exponent = int(rng.choice([-36, -20, -60, *rng.integers(-128, 128, 3)]))
        mantissa = int(rng.choice([0, 1, (1 << 20) - 1, *rng.integers(0, 1 << 21, 3)]))
        return exponent << 24 | mantissa
    small = int(rng.choice([16, 20, 0, -128, 127]))
    return int(rng.choice([small, *rng.choice(EDGES, 2), rng.integers(-LARGEST - 1, LARGEST + 1)]))


def random_function(
    rng: np.random.Generator, config: AccelConfig, function: Function, position: int
) -> Instruction:
    """An instruction with ``function``; where it reads and writes is still to be found."""
    after, output = After(int(rng.integers(len(After)))), Output(int(rng.integers(len(Output))))
    if output is Output.TOP and (config.results_per_word == 1 or function is Function.ROTATE):
        output = Output.NONE
    if rng.random() < 0.4:
        after = After.NONE
    segments = int(rng.choice([1, 1, 2, 3, isa.SEGMENTS, rng.integers(1, isa.SEGMENTS + 1)]))
    columns = int(rng.integers(1, config.cols + 1))
    room = max(1, config.scratch_words // (4 * segments)) * config.results_per_word
    count = int(rng.choice([1, 2, room, rng.integers(1, room + 1), rng.integers(1, room + 1)]))
    flags, k = Flag(0), int(rng.choice([32, 32, 8, 16, 20, rng.integers(2, 33)]))
    immediate = _immediate(rng, after, config)
    if function is Function.ROTATE:
        k = 1 << int(rng.integers(0, max(1, (room // 2).bit_length())))
        count = 2 * k * int(rng.integers(1, max(1, room // (2 * k)) + 1))
        immediate = int(rng.integers(1, max(2, config.scratch_words // 8)))
        if rng.random() < 0.5:  # as in use: for each head the same angles
            immediate = max(1, isa.vector_words(2 * k, config))
    elif rng.random() < 0.3 and position + columns <= room:
        flags |= Flag.LENGTH
        count = int(rng.integers(position + columns, room + 1))
        if function in isa.WINDOWED and rng.random() < 0.6:
            flags |= Flag.WINDOW
            sizes = [1, 2, 1 << 16, LARGEST, *rng.integers(1, count + 2, 8)]
            immediate = int(rng.choice(sizes))
    if rng.random() < 0.4:
        flags |= Flag.AMOUNT
    if rng.random() < 0.5:
        flags |= Flag.IMMEDIATE
    return Instruction(
        opcode=Opcode.VECTOR, function=function, after=after, output=output, flags=int(flags),
        column=columns, segments=segments, shift=_shift(rng, function), count=count, k=k,
        immediate=immediate,
    )  # fmt: skip


def _words(start: int, stride: int, segments: int, size: int) -> NDArray[np.int64]:
    """[segments, size]"""
    return start + stride * np.arange(segments)[:, None] + np.arange(size)


def _place(
    rng: np.random.Generator, segments: int, size: int, depth: int, apart: bool
) -> tuple[int, int]:
    """Start and stride; segments do not overlap if they are to be ``apart``."""
    least = size if apart else int(rng.choice([0, size]))
    most = (depth - size) // max(1, segments - 1)
    stride = int(rng.choice([min(least, most), rng.integers(min(least, most), most + 1)]))
    return int(rng.integers(0, depth - size - stride * (segments - 1) + 1)), stride


def defined(i: Instruction, config: AccelConfig) -> bool:
    """Whether no word that is written is read, or written twice, but in place."""
    words, size = isa.vector_words(i.count, config), isa.output_words(i, config)
    if not size:
        return True
    written = _words(i.dst, i.dst_stride, i.segments, size)
    if len(np.unique(written)) < written.size:
        return False
    read = [_words(i.src, i.src_stride, i.segments, words)]
    in_place = (i.dst, i.output) == (i.src, Output.WORDS)
    if in_place and (i.segments == 1 or i.src_stride == i.dst_stride):
        read = []
    if i.function in isa.READS_OTHER:
        other = 2 * i.immediate if i.function == Function.ROTATE else words
        read.append(_words(i.other, i.other_stride, i.segments, other))
    return not any(np.isin(written, words).any() for words in read)


def random_vector(
    rng: np.random.Generator,
    config: AccelConfig,
    position: int = 0,
    function: Function | None = None,
) -> Instruction:
    """A legal VECTOR of any kind that the machine may run at ``position``."""
    while True:
        chosen = Function(int(rng.integers(len(Function)))) if function is None else function
        i = random_function(rng, config, chosen, position)
        words, size = isa.vector_words(i.count, config), isa.output_words(i, config)
        read = 2 * i.immediate if i.function == Function.ROTATE else words
        if max(words, size, read) * i.segments > config.scratch_words:
            continue
        for _ in range(20):
            src, src_stride = _place(rng, i.segments, words, config.scratch_words, False)
            other, other_stride = _place(rng, i.segments, read, config.scratch_words, False)
            dst, dst_stride = _place(rng, i.segments, max(1, size), config.scratch_words, True)
            if i.output == Output.WORDS and rng.random() < 0.3:
                src, src_stride = dst, dst_stride
            found = replace(
                i, src=src, src_stride=src_stride, other=other, other_stride=other_stride,
                dst=dst, dst_stride=dst_stride,
            )  # fmt: skip
            if defined(found, config):
                isa.check(found, config)
                return found
