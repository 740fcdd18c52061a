"""What a VECTOR instruction asks of its unit's parts, decoded once."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, exact_log2

from golden.config import RESULT_BITS, AccelConfig
from golden.isa import HEADED, READS_OTHER, After, Flag, Function, Output
from golden.layers import ACTIVATIONS, EXP2, SINE, TANH

from ..lib.instruction import OPERANDS, holds
from .coder import at_least

CURVES = [known.function for known in ACTIVATIONS.values() if known.end]
"""The activation functions that look up a table: all but ReLU."""

TABLES = {
    **{known.function: known.rest for known in ACTIVATIONS.values() if known.end},
    Function.EXP2: EXP2,
    Function.TANH: TANH,
    Function.SINE: SINE,
}
"""The functions that look up a table, in the order of `hw.vector.tables`."""

STEP_BITS = max(table.step_bits for table in TABLES.values())
"""With as many fraction bits the difference of two entries is multiplied: shorter ones have zeros
below."""

ROW_BITS = bits_for(len(CURVES))
"""Parts of the tables have such a number: one for each of CURVES, then one for the short tables."""

LEFT_BITS = 34
"""A value is shifted left by as many bits at most: beyond, what is not zero saturates anyway."""

CONTROL = data.StructLayout(
    {
        **{function.name.lower(): 1 for function in Function},
        "activation": 1,  # one of CURVES
        "table": 1,  # one of TABLES
        "row": ROW_BITS,  # number of the table: of a curve, or the one behind for the short tables
        "two": 1,  # a word of b is read with each word of a
        "adds_a": 1,  # a is added after the shift
        "times": 2,  # second factor: 0 constant, 1 b, 2 a, 3 fraction of a table or power of a code
        "wrap": 1,  # y wraps instead of saturating
        "scaled": 1,  # the product is scaled by shift and amount
        "bound": RESULT_BITS,  # high for each bit of y that must equal its sign, or y saturates
        "writes": 1,
        "bytes": 1,  # results are written as bytes
        "halves": 1,  # results are written as two bytes each
        "header": 1,  # a segment begins with a word with its exponent
        "pair": 1,  # only a word with the top and its place is written
        "finish": 1,  # a segment ends with a header or a change of registers
        "length": 1,
        "amount": 1,
        "immediate": 1,
        "window": 1,
    }
)
"""``<function>``: one bit each."""


def sideband(config: AccelConfig) -> data.StructLayout:
    """What goes with a word through the lanes.

    Fields
    ------
    step (1): High when the lanes make a product of this word.
    second (1): High when the product is added to the one before (ROTATE).
    valid (1): High when the word gives results.
    first (1), last (1): High for the first and the last word of a segment.
    index (log2(scratch_words)): The word's place in its segment.
    mask (results_per_word): A bit for each lane: high when its element is one of the segment's.
    """
    return data.StructLayout(
        {
            "step": 1,
            "second": 1,
            "valid": 1,
            "first": 1,
            "last": 1,
            "index": range(config.scratch_words),
            "mask": config.results_per_word,
        }
    )


WAITING = 8
"""Segments that can be between the reader and their end: they come four cycles apart at least."""

REGISTERS = data.StructLayout(
    {"factor": signed(32), "amount": signed(7), "exponent": signed(8), "size": 6}
)
"""Registers of a column and segment that VECTOR instructions set at their end; beside them, ``top``
is set by all."""


def place_bits(config: AccelConfig) -> int:
    """Bits of the place of an element in its segment."""
    return exact_log2(config.scratch_words * config.results_per_word)


class VectorDecoder(wiring.Component):
    """Decodes a VECTOR instruction once for all parts of the vector unit.

    Ports
    -----
    operands (in, struct): A legal VECTOR instruction.
    control (out, struct): What it asks of the parts, `CONTROL`; a cycle later, ``bound`` two.
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__({"operands": In(OPERANDS), "control": Out(CONTROL)})

    def elaborate(self, platform):
        m = Module()
        o, c = self.operands, self.control
        # The instruction is legal, so the upper bits of these fields are 0.
        function, after, output = o.function[:5], o.after[:4], o.output[:3]

        def among(functions):
            return Cat(function == f for f in functions).any()

        def number(choices):
            """The place of the set that has the function, 0 where none has."""
            return Cat(
                among([f for n, part in enumerate(choices) if n >> bit & 1 for f in part])
                for bit in range(2)
            )

        wrap = among([Function.SQUARE, Function.ANGLE])
        acts = [known.function for known in ACTIVATIONS.values()]
        # The number of the curve, bit by bit; a bit may be 0 for all of them.
        numbers = [[f for n, f in enumerate(CURVES) if n >> bit & 1] for bit in range(ROW_BITS)]
        curve = Cat(
            reduce(or_, (o.function == f for f in some)) if some else Const(0, 1)
            for some in numbers
        )
        times = [
            [],
            [Function.MULTIPLY, Function.ROTATE],
            [Function.SQUARE],
            [*TABLES, Function.RESIDUE],
        ]
        whole = wrap | (function == Function.ROTATE)  # k is then no number of bits
        mantissas = (output == Output.BLOCK) | (output == Output.MANTISSAS)
        codes = output == Output.CODES
        headed = Cat(output == n for n in HEADED).any()
        pair = output == Output.TOP
        wide = self.config.act_bits == 16
        # `bound` is a cycle later than the others, still long before the first result.
        too_few = Signal(RESULT_BITS - 1)
        m.d.sync += too_few.eq(Cat(~at_least(o.k[:6], n + 2) for n in range(RESULT_BITS - 1)))
        m.d.sync += [
            *(c[f.name.lower()].eq(function == f) for f in Function),
            c.activation.eq(among(CURVES)),
            c.table.eq(among(TABLES)),
            c.row.eq(Mux(among(CURVES), curve, len(CURVES))),
            c.two.eq(among(READS_OTHER)),
            c.adds_a.eq(among([*acts, Function.RESIDUE])),
            c.times.eq(number(times)),
            c.wrap.eq(wrap),
            c.scaled.eq(
                among(
                    [
                        Function.SHIFT,
                        Function.SHIFT_EACH,
                        Function.SCALE,
                        Function.MULTIPLY,
                        Function.ADD,
                        Function.SUBTRACT,
                        Function.ROTATE,
                    ]
                )
            ),
            c.bound.eq(too_few & (~whole).replicate(RESULT_BITS - 1)),
            c.bound[-1].eq(~wrap),
            c.writes.eq((output != Output.NONE) & ~pair),
            c.pair.eq(pair),
            c.bytes.eq(codes | (mantissas & (not wide))),
            c.halves.eq(mantissas & wide),
            c.header.eq(headed | pair),
            c.finish.eq(headed | pair | (after != After.NONE)),
            c.length.eq(holds(o.flags, Flag.LENGTH)),
            c.amount.eq(holds(o.flags, Flag.AMOUNT)),
            c.immediate.eq(holds(o.flags, Flag.IMMEDIATE)),
            c.window.eq(holds(o.flags, Flag.WINDOW)),
        ]
        return m
