"""VECTOR instructions: answers by hand, and whole operations against `golden.layers`."""

import math

import numpy as np
import pytest

from golden import isa, layers
from golden.arith import requantize
from golden.attention import KVCache, attention
from golden.config import CONFIGS, RESULT_FRAC
from golden.format import INTEGERS
from golden.isa import After, Flag, Function, IllegalInstruction, Instruction, Opcode, Output
from golden.layers import QUERY_FRAC, block_quantize
from golden.vector import Registers, execute

SEED = 11
TINY, ECP5, SIM = CONFIGS["tiny"], CONFIGS["ecp5"], CONFIGS["sim"]
LARGEST, SMALLEST = 2**31 - 1, -(2**31)


class Unit:
    """A scratchpad with registers; tensors lie where `put` puts them."""

    def __init__(self, config=ECP5, columns=1, position=0):
        self.config, self.columns, self.position = config, columns, position
        self.scratch = np.zeros((config.cols, config.scratch_words, config.bus_bytes), np.uint8)
        self.registers = Registers.cleared(config)

    def put(self, word, values):
        """int32 elements [..., columns, n] or [n] for all columns, from a word on."""
        values = np.broadcast_to(values, (self.columns, np.shape(values)[-1]))
        view = self.scratch.view("<i4").reshape(self.config.cols, -1)
        first = word * self.config.results_per_word
        view[: self.columns, first : first + values.shape[1]] = values

    def get(self, word, count, kind="<i4"):
        data = np.ascontiguousarray(self.scratch[: self.columns, word:])
        return data.view(kind).reshape(self.columns, -1)[:, :count].astype(np.int64)

    def run(self, function, count, src=0, dst=None, **fields):
        fields = {"k": 32, "segments": 1, "output": Output.WORDS} | fields
        if dst is None:
            fields["output"] = Output.NONE
        instruction = Instruction(
            opcode=Opcode.VECTOR, function=function, column=self.columns,
            count=count, src=src, dst=dst or 0, **fields,
        )  # fmt: skip
        isa.check(instruction, self.config)
        return execute(instruction, self.scratch, self.registers, self.position, self.config)

    def register(self, name, segment=0):
        return getattr(self.registers, name)[: self.columns, segment].tolist()


def computed(function, a, b=(), **fields):
    unit = Unit(ECP5.replace(span=16))
    unit.put(0, a)
    if len(b):
        unit.put(100, b)
        fields["other"] = 100
    unit.run(function, len(a), 0, 200, **fields)
    return unit.get(200, len(a))[0].tolist()


@pytest.mark.parametrize(
    ("function", "a", "b", "fields", "expected"),
    [
        (Function.SHIFT, [5, 6, 7, -5, -6], [], {"shift": -2}, [1, 2, 2, -1, -2]),
        (Function.SHIFT, [3, -3, 1 << 30], [], {"shift": 4}, [48, -48, LARGEST]),
        (Function.SHIFT, [300, -300, 127], [], {"k": 8}, [127, -128, 127]),
        (Function.SHIFT, [1, 2, -3], [], {"shift": 63}, [LARGEST, LARGEST, SMALLEST]),
        (Function.SHIFT_EACH, [12, 12, 12], [-2, 1, -200], {"shift": 1}, [6, 48, 0]),
        (Function.SCALE, [3, -5], [], {"immediate": 7, "flags": Flag.IMMEDIATE}, [21, -35]),
        (Function.MULTIPLY, [3 << 16, -1], [1 << 15, 1 << 15], {"shift": -16}, [3 << 15, 0]),
        (Function.MULTIPLY, [SMALLEST], [SMALLEST], {}, [LARGEST]),
        (Function.ADD, [LARGEST, 5], [1, -9], {}, [LARGEST, -4]),
        (Function.LENGTHS, [0, 1, 255, -7], [3, 3, 3, 3], {}, [-128, 4, 11, -128]),
        (Function.RELU, [-4, 0, 9], [], {}, [0, 0, 9]),
        (Function.GELU, [0, 1 << 22, -(1 << 22)], [], {}, [0, 1 << 22, 0]),
        (Function.ANGLE, [1 << 30, -1], [5, LARGEST], {}, [5, LARGEST]),
        (Function.SINE, [0, 1 << 30, SMALLEST, -(1 << 30)], [], {}, [0, 65536, 0, -65536]),
        (Function.TANH, [0, 1, -1, 8 << 16, -(8 << 16), LARGEST, SMALLEST], [],
         {}, [0, 1, -1, 65536, -65536, 65536, -65536]),
        (Function.CODE, [0, 256, 272, 264, -512, 33, 34, 61440 << 6], [],
         {}, [0, 16, 17, 16, 0x98, 0, 1, 0x7E]),
        (Function.RESIDUE, [256, 264, 280, 34], [], {}, [0, 8, -8, -34]),
    ],
)  # fmt: skip
def test_functions_by_hand(function, a, b, fields, expected):
    assert computed(function, a, b, **fields) == expected


@pytest.mark.parametrize(
    ("function", "a", "b", "fields", "saturated"),
    [
        (Function.SHIFT, [3, -3, 1 << 30, -1 << 29, -1 << 30], [], {"shift": 2}, 2),
        (Function.SHIFT, [300, -300, 127], [], {"k": 8}, 0),
        (Function.SHIFT, [LARGEST, SMALLEST], [], {"k": 31}, 0),
        (Function.SHIFT, [1, 0, -3], [], {"shift": 63, "output": Output.BLOCK}, 2),
        (Function.ADD, [LARGEST, 5, SMALLEST], [1, -9, 0], {}, 1),
        (Function.SCALE, [1 << 20, -5], [], {"immediate": 1 << 30, "flags": Flag.IMMEDIATE}, 2),
        (Function.SQUARE, [LARGEST, SMALLEST], [], {"output": Output.NONE}, 0),
        (Function.ANGLE, [1 << 30, LARGEST], [LARGEST, LARGEST], {}, 0),
        (Function.EXP2, [0, -5], [], {}, 0),
    ],
)  # fmt: skip
def test_what_counts_as_saturated(function, a, b, fields, saturated):
    unit = Unit()
    unit.put(0, a)
    unit.put(100, b or [0])
    assert unit.run(function, len(a), 0, 200, **{"other": 100} | fields) == saturated


def test_elements_past_the_length_do_not_count_as_saturated():
    unit = Unit(columns=2, position=1)
    unit.put(0, [LARGEST] * 3)
    fields = {"flags": Flag.LENGTH, "shift": 1, "segments": 2}
    assert unit.run(Function.SHIFT, 3, 0, 200, **fields) == 2 * (2 + 3)


def test_only_the_window_counts():
    unit = Unit(columns=2, position=2)
    unit.put(0, [9, 8, -7, -6])
    fields = {"flags": Flag.LENGTH | Flag.WINDOW, "immediate": 2}
    unit.run(Function.SHIFT, 4, 0, 100, after=After.MEAN, **fields)
    assert unit.get(100, 4).tolist() == [[0, 8, -7, 0], [0, 0, -7, -6]]
    assert (unit.register("sum"), unit.register("peak")) == ([1, -13], [8, 7])
    assert (unit.register("top"), unit.register("factor")) == ([8, -6], [0, -3])  # of 3 and of 4
    unit.run(Function.EXP2, 4, 0, 100, **fields)
    half = layers.exp2_below(np.arange(16)).tolist()
    assert unit.get(100, 4).tolist() == [[0, 1 << 24, half[15], 0], [0, 0, half[1], 1 << 24]]
    # What lies before the window is not the first of the largest, even if no other is larger.
    unit.put(0, [SMALLEST] * 4)
    unit.run(Function.SHIFT, 4, 0, 100, output=Output.TOP, **fields)
    assert unit.get(100, 2).tolist() == [[SMALLEST, 1], [SMALLEST, 2]]
    unit.put(0, [9, 8, -7, -6])
    # As large as there are elements, or larger: as without.
    for size in (4, 1 << 16, LARGEST):
        unit.run(Function.SHIFT, 4, 0, 100, flags=Flag.LENGTH | Flag.WINDOW, immediate=size)
        assert unit.get(100, 4).tolist() == [[9, 8, -7, 0], [9, 8, -7, -6]]


def test_turned_pairs_count_as_saturated():
    unit = Unit()
    unit.put(0, [SMALLEST, SMALLEST, 5, 5])
    unit.put(50, [65536] * 8)
    assert unit.run(Function.ROTATE, 4, 0, 100, other=50, k=1, immediate=1, shift=-16) == 2


def test_pairs_turn_by_hand():
    unit = Unit()
    unit.put(0, [1 << 16, 2 << 16, 3 << 16, 4 << 16] * 2)
    # Cosine 0, sine 1 for the first pair; cosine 1, sine 0 for the second; then again.
    unit.put(50, [0, 0, 65536, 65536, -65536, 65536, 0, 0])
    unit.run(Function.ROTATE, 8, 0, 100, other=50, k=1, immediate=1, shift=-16)
    assert unit.get(100, 8)[0].tolist() == [-(2 << 16), 1 << 16, 3 << 16, 4 << 16] * 2


def test_reductions_and_what_follows_from_them():
    unit = Unit()
    unit.put(0, [7, -12, 4])
    unit.run(Function.SHIFT, 3, after=After.MEAN)
    assert unit.register("sum") == [-1] and unit.register("factor") == [0]
    assert unit.register("peak") == [12] and unit.register("top") == [7]
    unit.run(Function.SHIFT, 3, after=After.ALIGN)
    assert unit.register("amount") == [8]  # 12 has 4 bits; no more than eight are added
    unit.put(0, [1 << 24, -5, 9])
    unit.run(Function.SHIFT, 3, after=After.QUANTIZE, immediate=RESULT_FRAC)
    assert unit.register("amount") == [-10] and unit.register("exponent") == [-6]
    unit.run(Function.SQUARE, 3)
    assert unit.register("sum") == [(1 << 48) + 25 + 81]
    unit.put(0, [61 << 20, 0, 0])
    unit.run(Function.SHIFT, 3, after=After.CODE)  # 61/32 of 2**25: bias 10
    assert unit.register("amount") == [6 - 10] and unit.register("exponent") == [10 - 16]
    unit.put(0, [-20, -9, -30])
    unit.run(Function.SHIFT, 3, after=After.AMOUNT, immediate=12)
    assert unit.register("amount") == [3]
    unit.put(0, [3 << 24, 1 << 24])
    unit.run(Function.SHIFT, 2, after=After.RECIPROCAL)
    factor, size = unit.register("factor")[0], unit.register("size")[0]
    assert size == 27 and abs(factor * 2.0 ** -(20 + 27) * (4 << 24) - 1) < 1e-6
    unit.put(0, [9, 21])
    unit.run(Function.SHIFT, 2, after=After.LIFT)
    assert unit.register("amount") == [15 - 21] and unit.register("exponent") == [6 - 27]


def test_blocks_codes_and_rows():
    unit = Unit(TINY.replace(rows=8, bus_bytes=8, act_bits=8))
    unit.put(0, [300, -77, 5, 4, 3])
    unit.run(Function.SHIFT, 5, after=After.QUANTIZE, immediate=4)
    unit.run(Function.SHIFT, 5, 0, 20, output=Output.BLOCK, flags=Flag.AMOUNT, k=8)
    assert unit.get(20, 2)[0].tolist() == [-2, 0]
    assert unit.get(21, 8, "i1")[0].tolist() == [75, -19, 1, 1, 1, 0, 0, 0]
    unit.run(Function.SHIFT, 5, 0, 30, output=Output.MANTISSAS, flags=Flag.AMOUNT, k=8)
    assert (unit.get(30, 8, "i1") == unit.get(21, 8, "i1")).all()
    unit.put(0, [256, -256, 0])
    unit.run(Function.CODE, 3, 0, 40, output=Output.CODES)
    assert unit.get(40, 12, "u1")[0].tolist() == [254, 255, 255, 255, 0, 0, 0, 0, 16, 144, 0, 0]
    unit.run(Function.CODE, 3, 0, 50, output=Output.ROW)
    assert unit.get(50, 6)[0].tolist() == [-2, 0, 16, 144, 0, 0]


def test_lengths_follow_the_position_of_each_column():
    unit = Unit(columns=3, position=5)
    unit.put(0, np.arange(1, 9))
    unit.put(40, [-1] * 12)
    unit.run(Function.SHIFT, 30, 0, 40, flags=Flag.LENGTH)
    assert unit.register("sum") == [21, 28, 36] and unit.register("top") == [6, 7, 8]
    rows = [[1, 2, 3, 4, 5, 6, 0, 0], [1, 2, 3, 4, 5, 6, 7, 0], [1, 2, 3, 4, 5, 6, 7, 8]]
    assert unit.get(40, 8).tolist() == rows
    assert unit.get(40, 12)[:, 8:].tolist() == [[-1] * 4] * 3


def test_segments_have_registers_of_their_own():
    unit = Unit()
    unit.put(0, [1, 2, 3, 0, 40, 50, 60])
    strides = {"segments": 2, "src_stride": 1, "dst_stride": 3}
    unit.run(Function.SHIFT, 3, after=After.MEAN, **strides)
    assert [unit.register("factor", s) for s in (0, 1)] == [[2], [50]]
    unit.run(Function.SUBTRACT, 3, 0, 10, **strides)
    assert unit.get(10, 3)[0].tolist() == [-1, 0, 1] and unit.get(13, 3)[0].tolist() == [-10, 0, 10]


@pytest.mark.parametrize("config", [TINY, ECP5, SIM], ids=lambda c: c.name)
@pytest.mark.parametrize("size", [3, 1000, 2_000_000_000])
def test_norm_is_the_one_of_layers(config, size):
    random, width = np.random.default_rng(SEED), 37
    columns = config.cols
    x = random.integers(-size, size, (columns, width))
    gamma = block_quantize(random.integers(-(2**25), 2**25, width), 16, 24)
    beta = random.integers(-(2**20), 2**20, width)
    unit = Unit(config, columns)
    for word, values in ((0, x), (50, gamma.mantissa), (100, beta)):
        unit.put(word, values)
    mantissa, exponent = layers.split_epsilon(1e-5)
    unit.run(Function.SHIFT, width, after=After.MEAN)
    unit.run(Function.SUBTRACT, width, 0, 200, after=After.ALIGN)
    unit.run(Function.SHIFT, width, 200, 200, flags=Flag.AMOUNT, k=20)
    epsilon = mantissa | exponent << 24
    unit.run(Function.SQUARE, width, 200, after=After.ROOT, immediate=epsilon)
    unit.run(Function.SCALE, width, 200, 200, flags=Flag.AMOUNT)
    shift = int(gamma.exponent[0]) - 4
    unit.run(Function.MULTIPLY, width, 200, 200, other=50, shift=shift)
    unit.run(Function.ADD, width, 200, 200, other=100)
    assert (unit.get(200, width) == layers.layer_norm(x, gamma, beta, 1e-5)).all()


def test_softmax_shares_are_those_of_layers():
    """One query of one head, as programs compute it, with the products done here."""
    random, width, before = np.random.default_rng(SEED), 8, 6
    cache = KVCache.empty(1, width)
    k, v = (random.integers(-(2**18), 2**18, (before, 1, width)) for _ in "kv")
    q = random.integers(-(2**18), 2**18, (1, 1, width))
    cache.append(k[:-1], v[:-1])
    copy = KVCache(cache.keys, cache.key_bias, cache.values, cache.value_bias)
    expected = attention(q, k[-1:], v[-1:], copy, 16)

    unit = Unit(SIM, position=before - 1)
    factor, fraction = layers.query_factor(width)
    assert fraction == 20
    unit.put(0, q[0])
    unit.run(Function.SCALE, width, 0, 0, flags=Flag.IMMEDIATE, immediate=factor, shift=-16)
    unit.run(Function.SHIFT, width, after=After.QUANTIZE, immediate=QUERY_FRAC)
    unit.run(Function.SHIFT, width, 0, 10, output=Output.BLOCK, flags=Flag.AMOUNT, k=16)
    query, exponent = unit.get(11, width, "<i2")[0], int(unit.get(10, 1, "i1")[0, 0])
    keys = INTEGERS[copy.keys[:, 0]].sum(axis=1).astype(np.int64)
    scores = requantize(keys @ query, exponent + copy.key_bias[:, 0].astype(np.int64) + 12)
    unit.put(20, scores)
    unit.put(30, copy.value_bias[:, 0])
    length = {"flags": Flag.LENGTH}
    unit.run(Function.SHIFT, 16, 20, **length)
    unit.run(Function.EXP2, 16, 20, 20, after=After.RECIPROCAL, **length)
    unit.run(Function.LENGTHS, 16, 20, other=30, after=After.LIFT, **length)
    flags = Flag.LENGTH | Flag.AMOUNT
    unit.run(Function.SHIFT_EACH, 16, 20, 40, other=30, output=Output.BLOCK, k=16, flags=flags)
    share, exponent = unit.get(41, before, "<i2")[0], int(unit.get(40, 1, "i1")[0, 0])
    values = INTEGERS[copy.values[:, 0]].astype(np.int64)
    unit.put(60, requantize(share @ values, exponent + 12))
    unit.run(Function.SCALE, width, 60, 60, shift=-layers.INVERSE_FRAC)
    assert (unit.get(60, width) == expected[0]).all()


def test_tables_end_where_they_are_zero():
    unit = Unit()
    for function, end in ((Function.GELU, 8), (Function.GELU_TANH, 8), (Function.SILU, 16)):
        around = np.array([end << 16, (end << 16) - 1, (end << 16) + 1, LARGEST])
        unit.put(0, np.concatenate([around, -around]))
        unit.run(function, 8, 0, 10)
        values = unit.get(10, 8)[0]
        assert (np.abs(values[:4] - around) <= 1).all() and (np.abs(values[4:]) <= 1).all()


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"function": len(Function)}, "unknown function"),
        ({"after": 9}, "unknown after"),
        ({"output": Output.TOP + 1}, "unknown output"),
        ({"segments": 0}, "segments must be 1 to 16"),
        ({"segments": 17}, "segments must be 1 to 16"),
        ({"column": 3}, "columns must be 1 to 2"),
        ({"count": 0}, "count must not be zero"),
        ({"flags": Flag.BIAS}, "unknown flag"),
        ({"k": 1}, "k must be 2 to 32"),
        ({"k": 33}, "k must be 2 to 32"),
        ({"flags": Flag.WINDOW, "immediate": 1}, "WINDOW needs LENGTH"),
        ({"flags": Flag.WINDOW | Flag.LENGTH}, "immediate, the window, must be above 0"),
        ({"flags": Flag.WINDOW | Flag.LENGTH, "immediate": 1, "function": Function.SCALE},
         "WINDOW is for SHIFT and EXP2 only"),
        ({"src": 1020}, "source ends past word 1024"),
        ({"segments": 16, "src_stride": 68}, "source ends past word 1024"),
        ({"function": Function.ADD, "other": 1020}, "second source ends past word 1024"),
        ({"dst": 1020}, "destination ends past word 1024"),
        ({"dst": 1020, "output": Output.BLOCK, "count": 7}, "destination ends past word 1024"),
        ({"function": Function.ROTATE, "k": 3, "immediate": 1}, "k must be a power of two"),
        ({"function": Function.ROTATE, "k": 4, "immediate": 1}, "a multiple of twice that"),
        ({"function": Function.ROTATE, "k": 1, "count": 6}, "immediate must be 1 to 1024"),
        ({"function": Function.ROTATE, "k": 1, "count": 6, "immediate": 3, "other": 1019},
         "second source ends past word 1024"),
    ],
)  # fmt: skip
def test_illegal_instructions(changes, what):
    fields = {"function": 0, "column": 2, "segments": 1, "count": 6, "k": 32, "dst": 99}
    isa.check(Instruction(opcode=Opcode.VECTOR, **fields), TINY)
    with pytest.raises(IllegalInstruction, match=what):
        isa.check(Instruction(opcode=Opcode.VECTOR, **{**fields, **changes}), TINY)


def test_the_largest_and_where_it_is():
    unit = Unit(columns=2, position=4)
    unit.put(0, [[-5, 7, 7, 3, 9, 9], [SMALLEST] * 6])
    unit.run(Function.SHIFT, 6, 0, 20, output=Output.TOP)
    assert unit.get(20, 4).tolist() == [[9, 4, 0, 0], [SMALLEST, 0, 0, 0]]
    # By the position, the first column has five elements and the second has six.
    unit.put(0, [[-5, -7, -7, -3, -9, 9], [-1, -2, -3, -4, -5, 0]])
    unit.run(Function.SHIFT, 9, 0, 20, output=Output.TOP, flags=Flag.LENGTH)
    assert unit.get(20, 2).tolist() == [[-3, 3], [0, 5]]
    assert unit.register("top") == [-3, 0]
    # Segments one word apart: the second begins at the fifth element, and counts from there.
    unit.run(Function.SHIFT, 2, 0, 20, output=Output.TOP, segments=2, src_stride=1, dst_stride=3)
    assert unit.get(20, 2)[0].tolist() == [-5, 0]
    assert unit.get(23, 2)[0].tolist() == [9, 1]


def test_exponentials_by_hand():
    unit = Unit()
    unit.put(0, [0, -65536, -(65536 * 3) - 32768, -(40 << 16)])
    unit.run(Function.SHIFT, 4)
    unit.run(Function.EXP2, 4, 0, 10)
    one = 1 << 24
    values = unit.get(10, 4)[0].tolist()
    assert values[:2] == [one, one // 2] and values[3] == 0
    assert abs(values[2] - one * 2**-3.5) <= 2 and math.isclose(2**-3.5, 0.0883883, rel_tol=1e-5)
