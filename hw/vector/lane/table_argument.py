"""Arguments of tables, in a lane of the vector unit."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.config import RESULT_BITS
from golden.layers import EXP2, SINE, TANH, TURN_BITS

from ...lib.adders import add_subtract
from ..decoder import CONTROL, CURVES, ROW_BITS, STEP_BITS, TABLES
from ..tables import INDEX_BITS, SHORT_BITS

EXP2_BITS = EXP2.index_bits + EXP2.step_bits
SINE_FIRST = TURN_BITS - 2 - SINE.index_bits - SINE.step_bits
"""Of an angle, bits below this one are rounded away."""


class TableArgument(wiring.Component):
    """Splits what an element means to a table into an index and the fraction behind it.

    Ports
    -----
    control (in, struct): The instruction, decoded.
    a (in, signed 32): The element.
    base (in, signed 33): What is added to the element, or in EXP2 to minus the element; it is 0
        where the argument is a magnitude.
    magnitude (out, 32): Of ``a``, one cycle later, where ``base`` is 0.
    address (out, INDEX_BITS + ROW_BITS): For `VectorTables`, two cycles after ``a``.
    whole (out, 5): How far EXP2 shifts its result right, else 0; three cycles after ``a``.
    beyond (out, 1): High when the argument lies beyond the table, and all is zero; three cycles
        after ``a``.
    rest (out, STEP_BITS + 1): Interpolation fraction in [0, 1], both ends included; four cycles
        after ``a``.
    """

    def __init__(self):
        super().__init__(
            {
                "control": In(CONTROL),
                "a": In(signed(RESULT_BITS)),
                "base": In(signed(RESULT_BITS + 1)),
                "magnitude": Out(RESULT_BITS),
                "address": Out(INDEX_BITS + ROW_BITS),
                "whole": Out(5),
                "beyond": Out(1),
                "rest": Out(STEP_BITS + 1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.control
        # base - a for EXP2, base + a for SINE, else the magnitude.
        negate = c.exp2 | (self.a[-1] & ~c.sine)
        argument = Signal(signed(RESULT_BITS + 1), reset_less=True)
        m.d.sync += argument.eq(
            add_subtract(m, platform, "from_base", self.base, self.a, subtract=negate, carry=negate)
        )
        m.d.comb += self.magnitude.eq(argument)

        # In the second and fourth quarter of a turn, sine is the quarter before, backwards: index
        # and fraction are complemented.
        angle = argument[SINE_FIRST:TURN_BITS]
        backwards, minus = angle[-2], angle[-1]
        above = argument[-1]  # EXP2: the element is above the base, taken for equal
        index = Signal(INDEX_BITS)
        place = Signal(STEP_BITS)
        end = Signal()
        with m.If(c.exp2):
            split = _split(argument[:EXP2_BITS] & ~above.replicate(EXP2_BITS), EXP2)
            m.d.comb += [Cat(place, index).eq(split)]
        with m.Elif(c.sine):
            turned = angle[:-2] ^ backwards.replicate(len(angle) - 2)
            split = _split(turned, SINE)
            m.d.comb += [Cat(place, index).eq(Cat(split, minus, Const(1)))]
        with m.Elif(c.tanh):
            past = TANH.index_bits + TANH.step_bits
            m.d.comb += Cat(place, index).eq(Cat(_split(argument[:past], TANH), Const(1)))
            m.d.comb += end.eq(argument[past:].any())
        with m.Else():
            for table, chosen in self._curves():
                with m.If(chosen):
                    past = table.step_bits + INDEX_BITS
                    m.d.comb += Cat(place, index).eq(_split(argument[:past], table))
                    m.d.comb += end.eq(argument[past:].any())

        place2, carry2, end2 = (
            Signal.like(v, name=n, reset_less=True)
            for n, v in (("place2", place), ("carry2", end), ("end2", end))
        )
        rest = Signal.like(self.rest, reset_less=True)
        unit = STEP_BITS - SINE.step_bits
        m.d.sync += [
            place2.eq(place),
            carry2.eq(c.sine & backwards),  # a complement plus one is minus the fraction
            end2.eq(end),
            rest.eq(Cat(place2[:unit], place2[unit:] + carry2)),
        ]
        with m.If(end2):
            m.d.sync += rest.eq(0)
        whole = Signal.like(self.whole, reset_less=True)
        far = argument[EXP2_BITS + 5 :].any()
        m.d.sync += whole.eq(argument[EXP2_BITS : EXP2_BITS + 5] | far.replicate(5))
        with m.If(~c.exp2 | above):
            m.d.sync += whole.eq(0)
        # A register on the way to the tables, whose block RAM lies far away on the chip.
        for output, value in (
            (self.address, Cat(index, c.row)),
            (self.whole, whole),
            (self.beyond, end2),
            (self.rest, rest),
        ):
            way = Signal.like(output, reset_less=True)
            m.d.sync += way.eq(value)
            m.d.comb += output.eq(way)
        return m

    def _curves(self):
        """Activation functions by where their tables end: one such table, and whether the function
        is one of those. The end that most of them have is told by its being none of the others."""
        c = self.control
        ends: dict[int, list] = {}
        for function in CURVES:
            ends.setdefault(TABLES[function].step_bits, []).append(function)
        *others, usual = sorted(ends.values(), key=len)
        chosen = [reduce(or_, (c[f.name.lower()] for f in functions)) for functions in others]
        pairs = [(TABLES[functions[0]], bit) for functions, bit in zip(others, chosen, strict=True)]
        return [*pairs, (TABLES[usual[0]], ~reduce(or_, chosen) if chosen else Const(1))]


def _split(argument, table):
    """Place and index, the place with STEP_BITS."""
    return Cat(Const(0, STEP_BITS - table.step_bits), argument)


assert EXP2.index_bits == TANH.index_bits == SINE.index_bits == SHORT_BITS
