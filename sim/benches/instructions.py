"""Random instructions, and what becomes of them at a position, in plain integers."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from golden import isa
from golden.config import AccelConfig
from golden.isa import After, Flag, Function, Instruction, Opcode, Output
from golden.positions import resolve
from golden.stream import stream_beats


@dataclass(frozen=True)
class Fate:
    """What the fetch makes of an instruction: whether it may run, and its operands then.

    ``lane``: of an indexed LOAD or STORE; ``beats``: of the weight stream of a MATMUL.
    """

    illegal: bool = False
    far: bool = False
    instruction: Instruction | None = None
    lane: int = 0
    beats: int = 0


def fate(data: bytes, position: int, tokens: list[int], config: AccelConfig) -> Fate:
    """Of the instruction in ``data``."""
    try:
        i = isa.decode(data)
        isa.check(i, config)
    except isa.IllegalInstruction:
        return Fate(illegal=True)
    resolved = resolve(i, position, tokens, config)
    if resolved.far:
        return Fate(far=True)
    i = resolved.instruction
    i = replace(i, address=i.address % (1 << 32))
    beats = stream_beats(i, config) if i.opcode is Opcode.MATMUL else 0
    return Fate(instruction=i, lane=resolved.lane, beats=beats)


def last_address(i: Instruction, position: int, tokens: list[int], config: AccelConfig) -> int:
    """Of all that a legal MATMUL, LOAD or STORE may read or write, whatever its length."""
    beats = stream_beats(i, config) if i.opcode is Opcode.MATMUL else i.count
    index = 0
    if i.opcode in (Opcode.LOAD, Opcode.STORE) and i.flags & (Flag.INDEX | Flag.TOKEN):
        index = tokens[i.column] if i.flags & Flag.TOKEN else position + i.column
    steps = (index >> max(0, i.shift)) * i.k if index else 0
    return i.address + (steps + beats) * config.bus_bytes - 1


def random_place(rng: np.random.Generator, words: int, config: AccelConfig) -> int:
    """A place for ``words`` in the scratchpad; often at one of its ends."""
    room = config.scratch_words - words
    return int(rng.choice([0, room, *rng.integers(0, room + 1, 4)]))


def random_address(rng: np.random.Generator, config: AccelConfig) -> int:
    """Of a beat, anywhere."""
    return int(rng.integers((1 << config.addr_bits) // config.bus_bytes)) * config.bus_bytes


def strided(
    rng: np.random.Generator, words: int, segments: int, config: AccelConfig
) -> tuple[int, int]:
    """Place and stride of as many segments of ``words`` in the scratchpad, anywhere."""
    room = config.scratch_words - words
    stride = int(rng.integers(0, room // max(1, segments - 1) + 1)) if segments > 1 else 0
    if segments == 1 and rng.random() < 0.5:
        stride = int(rng.integers(1 << 16))  # of no meaning
    return random_place(rng, words + (segments - 1) * stride * (segments > 1), config), stride


def random_vector_fields(rng: np.random.Generator, config: AccelConfig) -> Instruction:
    """A legal VECTOR as far as the fetch is concerned, which knows not what it computes."""
    function = Function(int(rng.integers(len(Function))))
    output = Output(int(rng.integers(len(Output))))
    segments = int(rng.choice([1, 2, isa.SEGMENTS, rng.integers(1, isa.SEGMENTS + 1)]))
    most = config.scratch_words * config.bus_bytes // 8
    count = int(rng.choice([1, 2, 5, rng.integers(1, 1 + min(most, 200))]))
    k = int(rng.choice([2, 16, 32, rng.integers(2, 33)]))
    immediate = int(rng.integers(-(1 << 31), 1 << 31))
    if function is Function.ROTATE:
        k = 1 << int(rng.integers(5))
        count = 2 * k * int(rng.integers(1, 4))
        immediate = int(rng.integers(1, config.scratch_words // 2 + 1))
    if output is Output.TOP and (config.results_per_word == 1 or function is Function.ROTATE):
        output = Output.ROW
    flags = int(rng.choice([0, 0, Flag.LENGTH]))
    flags |= int(rng.integers(4)) * int(Flag.AMOUNT)
    if flags & Flag.LENGTH and function in isa.WINDOWED and rng.random() < 0.5:
        flags |= int(Flag.WINDOW)
        immediate = int(rng.choice([1, (1 << 31) - 1, rng.integers(1, 1 << 31)]))
    i = Instruction(
        opcode=Opcode.VECTOR, function=function, output=output, flags=flags,
        after=int(rng.integers(len(After))), column=int(rng.integers(1, config.cols + 1)),
        segments=segments, shift=int(rng.integers(-128, 128)), count=count, k=k,
        immediate=immediate,
    )  # fmt: skip
    words = isa.vector_words(count, config)
    src, src_stride = strided(rng, words, segments, config)
    read = 2 * immediate if function is Function.ROTATE else words
    other, other_stride = int(rng.integers(1 << 16)), int(rng.integers(1 << 16))
    if function in isa.READS_OTHER:
        other, other_stride = strided(rng, read, segments, config)
    dst, dst_stride = int(rng.integers(1 << 16)), int(rng.integers(1 << 16))
    if output is not Output.NONE:
        dst, dst_stride = strided(rng, isa.output_words(i, config), segments, config)
    return replace(
        i, src=src, src_stride=src_stride, other=other, other_stride=other_stride, dst=dst,
        dst_stride=dst_stride,
    )  # fmt: skip


def random_matmul(rng: np.random.Generator, config: AccelConfig) -> Instruction:
    """A legal MATMUL."""
    k = int(rng.choice([1, 2, config.max_k, *rng.integers(1, config.max_k + 1, 3)]))
    k = min(k, (config.scratch_words - 20) * config.acts_per_word)
    words_in = isa.block_words(k, config)
    per_tile = config.rows // config.results_per_word
    most = (config.scratch_words - words_in) // per_tile
    tiles = int(rng.choice([1, 2, most, rng.integers(1, most + 1)]))
    words_out = tiles * per_tile
    while True:
        src, dst = random_place(rng, words_in, config), random_place(rng, words_out, config)
        if src + words_in <= dst or dst + words_out <= src:
            break
    flags = int(rng.choice([0, 1])) | int(rng.choice([0, 2, 4, 6]))
    return Instruction(
        opcode=Opcode.MATMUL, flags=flags, column=int(rng.integers(1, config.cols + 1)),
        shift=int(rng.integers(-128, 128)), count=tiles, k=k, src=src, dst=dst,
        address=random_address(rng, config),
    )  # fmt: skip


def random_move(rng: np.random.Generator, opcode: Opcode, config: AccelConfig) -> Instruction:
    """A legal LOAD or STORE of any kind."""
    count = int(rng.choice([1, 2, 3, rng.integers(1, config.scratch_words + 1)]))
    is_load = opcode is Opcode.LOAD
    kinds = [Flag(0), Flag.INDEX, *((Flag.LENGTH, Flag.TOKEN) if is_load else ())]
    i = Instruction(
        opcode=opcode, column=int(rng.integers(config.cols)), count=count,
        flags=int(rng.choice(kinds)),
        address=random_address(rng, config),
    )  # fmt: skip
    if i.flags & (Flag.INDEX | Flag.TOKEN):
        by_byte = isa.exact_log2(config.bus_bytes)
        shifts = [by_byte] if is_load else [0, isa.exact_log2(config.results_per_word), by_byte]
        limit = int(rng.choice([1, 50, 1 << 24, (1 << 31) - 1, rng.integers(1, 1 << 25)]))
        k = int(rng.choice([0, 1, 2, 0xFFFF, rng.integers(1 << 16)]))
        i = replace(i, shift=int(rng.choice(shifts)), k=k, immediate=limit)
    word = random_place(rng, isa.moved_words(i, config), config)
    return replace(i, dst=word) if is_load else replace(i, src=word)


def random_instruction(rng: np.random.Generator, config: AccelConfig) -> Instruction:
    """A legal instruction of any kind but HALT. Nobody should run it."""
    match int(rng.integers(8)):
        case 0:
            return Instruction(opcode=Opcode.FENCE)
        case 1 | 2:
            return random_matmul(rng, config)
        case 3 | 4:
            return random_move(rng, Opcode.LOAD, config)
        case 5:
            return random_move(rng, Opcode.STORE, config)
        case _:
            return random_vector_fields(rng, config)


def changed(rng: np.random.Generator, i: Instruction, config: AccelConfig) -> bytes:
    """The instruction with one field as something else, which may make it illegal."""
    names = [*isa.FIELDS, "flags", "count", "k", *isa.USES[i.opcode]]
    name = str(rng.choice(names))
    first, width, _ = isa.FIELDS[name]
    edges = [0, 1, config.scratch_words, config.max_k, config.cols, isa.SEGMENTS, 32, len(Function)]
    value = int(rng.choice(edges)) + int(rng.integers(-2, 3))
    if rng.random() < 0.3:
        value = getattr(i, name) ^ 1 << int(rng.integers(width))
    elif rng.random() < 0.4:
        value = getattr(i, name) + int(rng.integers(-2, 3))
    mask = (1 << width) - 1
    word = int.from_bytes(i.encode(), "little") & ~(mask << first) | (value & mask) << first
    return word.to_bytes(32, "little")


def illegal_instructions(config: AccelConfig) -> Iterator[bytes]:
    """Every rule that `golden.isa` has, broken by one instruction each."""
    depth, bus, words = config.scratch_words, config.bus_bytes, config.results_per_word
    matmul = Instruction(opcode=Opcode.MATMUL, column=1, address=0x6000, count=1, k=4, dst=8)
    load = Instruction(opcode=Opcode.LOAD, address=0x2000, count=2)
    store = Instruction(opcode=Opcode.STORE, address=0x2000, count=2)
    by_byte = isa.exact_log2(bus)
    lane = replace(load, flags=Flag.INDEX, shift=by_byte, k=1, immediate=1000)
    put = replace(store, flags=Flag.INDEX, shift=by_byte, k=1, immediate=1000)
    vector = Instruction(
        opcode=Opcode.VECTOR, column=1, segments=3, count=2 * words, k=16, src_stride=2,
        dst_stride=2, dst=8, function=Function.ADD, other=20,
    )  # fmt: skip
    rotate = replace(vector, function=Function.ROTATE, count=16, k=4, immediate=3, src=depth // 2)
    quiet = replace(vector, output=Output.NONE)
    sized = Flag.LENGTH | Flag.WINDOW
    window = replace(vector, function=Function.EXP2, flags=sized, immediate=1)
    tile_words = config.rows // words
    for good in (matmul, load, store, lane, put, vector, rotate, quiet, window):
        isa.check(good, config)
        for name in isa.FIELDS:
            if name not in (*isa.USES[good.opcode], "opcode"):
                yield replace(good, **{name: 1}).encode()
        for bit in range(8):
            if not isa.FLAGS[good.opcode] & 1 << bit:
                yield replace(good, flags=good.flags | 1 << bit).encode()
        yield replace(good, count=0).encode()
        columns = good.opcode in (Opcode.MATMUL, Opcode.VECTOR)
        for column in (config.cols + columns, 255, *([0] if columns else [])):
            yield replace(good, column=column).encode()
        if good.opcode is not Opcode.VECTOR:
            for address in (1, bus // 2, bus - 1):
                yield replace(good, address=good.address + address).encode()
            if config.addr_bits < 32:
                yield replace(good, address=1 << config.addr_bits).encode()
    for broken in (
        *(replace(matmul, k=k) for k in (0, config.max_k + 1, 0xFFFF)),
        *(replace(matmul, src=src) for src in (depth - 1, 0xFFFF)),
        *(replace(matmul, dst=dst) for dst in (depth - tile_words + 1, 0xFFFF)),
        *(
            replace(matmul, dst=0, src=depth // 2, count=n)
            for n in (depth // tile_words + 1, 65535)
        ),
        replace(matmul, dst=isa.block_words(4, config) - 1),
        replace(matmul, dst=0, src=tile_words - 1),
        *(replace(good, dst=depth - 1) for good in (load, lane)),
        *(replace(good, src=depth - 1) for good in (store, put)),
        replace(load, dst=0xFFFF, count=0xFFFF),
        replace(lane, dst=depth - 2, count=2 + words),
        *(replace(good, shift=shift) for good in (load, store) for shift in (-1, 1, by_byte)),
        *(replace(good, k=1) for good in (load, store)),
        *(replace(good, immediate=n) for good in (load, store) for n in (1, -1)),
        *(replace(good, immediate=n) for good in (lane, put) for n in (0, -1, -(1 << 31))),
        *(replace(lane, shift=n) for n in {0, by_byte - 2, by_byte - 1, by_byte + 1} - {by_byte}),
        *(replace(put, shift=n) for n in (by_byte - 1, by_byte + 1, -1)),
        replace(lane, flags=Flag.INDEX | Flag.TOKEN),
        *(replace(lane, flags=kind | Flag.LENGTH) for kind in (Flag.INDEX, Flag.TOKEN)),
        *(replace(vector, function=n) for n in (len(Function), 255)),
        *(replace(vector, after=n) for n in (len(After), 255)),
        *(replace(vector, output=n) for n in (len(Output), 255)),
        *(replace(vector, segments=n) for n in (0, isa.SEGMENTS + 1, 255)),
        *(replace(vector, k=n) for n in (0, 1, 33, 0xFFFF)),
        *(replace(rotate, k=n) for n in (0, 3, 6, 16, 0x8000)),
        *(replace(rotate, count=n) for n in (4, 12, 20)),
        *(replace(rotate, immediate=n) for n in (0, -1, depth + 1, 1 << 16, depth // 2)),
        *(replace(vector, src_stride=n) for n in ((depth - 2) // 2 + 1, 0xFFFF)),
        *(replace(vector, src=n) for n in (depth - 5, 0xFFFF)),
        *(replace(vector, other=n) for n in (depth - 1, 0xFFFF)),
        *(replace(vector, other_stride=n) for n in ((depth - 22) // 2 + 1, 0xFFFF)),
        *(replace(vector, dst=n) for n in (depth - 5, 0xFFFF)),
        *(replace(vector, dst_stride=n) for n in ((depth - 10) // 2 + 1, 0xFFFF)),
        *(
            replace(window, function=function)
            for function in Function
            if function not in isa.WINDOWED
        ),
        *(replace(window, immediate=n) for n in (0, -1, -(1 << 31))),
        replace(window, flags=Flag.WINDOW),
        replace(vector, output=Output.ROW, dst=depth - 6),
        replace(rotate, output=Output.TOP),
        *([replace(vector, output=Output.TOP)] if words == 1 else []),
    ):
        try:
            isa.check(broken, config)
        except isa.IllegalInstruction:
            yield broken.encode()
        else:
            raise AssertionError(f"{broken} is legal")
    for opcode in (0, max(Opcode) + 1, 0x81, 0xFF):
        yield bytes([opcode]).ljust(32, b"\0")
    for opcode in (Opcode.FENCE, Opcode.HALT):
        for byte in range(1, 32):
            yield (opcode | 1 << 8 * byte).to_bytes(32, "little")
