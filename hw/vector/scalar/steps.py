"""The registers of the vector unit's divisions and roots, and what a cycle does to them."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.vector import SUM_BITS

from ...lib.adders import add_choice
from .epsilon import SQUARE_BITS

GUARD = 6
"""Bits that a mean square has more than its sum."""
ROOT_BITS = SQUARE_BITS // 2
REST_BITS = ROOT_BITS + 3
INVERSE_BITS = 24
"""Bits of a divisor in RECIPROCAL, and of an inverse root."""


class ScalarSteps(wiring.Component):
    """The registers of divisions and roots, and what a cycle does to them.

    One register takes the dividend and the square in turn and gives its bits away at the top, while
    those of the quotient come in below; one subtraction finds a bit of either. Each control is a
    signal of its own, so that a bit of a register needs one look-up table.

    Ports
    -----
    clear (in, 1): High: ``bits`` becomes 0.
    load (in, 1): High, with ``first``: ``bits``, which must be 0, becomes ``sum``; without:
        ``epsilon`` and ``carry`` are added to it.
    first (in, 1): See ``load``.
    sum (in, 56), epsilon (in, SQUARE_BITS), carry (in, 1): What ``load`` takes.
    shift (in, 1): High: ``bits`` moves up by a place, and a new bit of the quotient comes in below.
    trial (in, 1): High: the divisor comes off the rest and its next bit, where it fits.
    root (in, 1): High: it is a square root's trial, of four times the divisor and one.
    extra (in, 1): High: the next bit of the rest is 1, whatever ``bits`` says.
    clear_rest (in, 1): High: the rest becomes 0.
    seed_rest (in, 1): High: the rest, which must be 0, becomes 2**(INVERSE_BITS - 2).
    move_rest (in, 1): High: the rest takes its next bit without a trial.
    set_divisor (in, 1): High: the divisor becomes ``new_divisor``.
    new_divisor (in, ROOT_BITS): See ``set_divisor``.
    push_divisor (in, 1): High: ``pushed`` becomes the divisor's lowest bit, above it the others.
    pushed (in, 1): See ``push_divisor``.
    bits (out, SQUARE_BITS): What is left of the dividend, above the quotient so far.
    one (out, 1): The new bit of the quotient.
    difference (out, signed REST_BITS + 1): The rest and its next bit, less the divisor.
    """

    def __init__(self):
        super().__init__(
            {
                "clear": In(1),
                "load": In(1),
                "first": In(1),
                "sum": In(SUM_BITS),
                "epsilon": In(SQUARE_BITS),
                "carry": In(1),
                "shift": In(1),
                "trial": In(1),
                "root": In(1),
                "extra": In(1),
                "clear_rest": In(1),
                "seed_rest": In(1),
                "move_rest": In(1),
                "set_divisor": In(1),
                "new_divisor": In(ROOT_BITS),
                "push_divisor": In(1),
                "pushed": In(1),
                "bits": Out(SQUARE_BITS),
                "one": Out(1),
                "difference": Out(signed(REST_BITS + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bits = self.bits
        rest = Signal(REST_BITS)
        minuend = Signal(REST_BITS)
        # The carry of epsilon comes in as a bit below all terms.
        added = add_choice(
            m,
            platform,
            "add",
            Cat(self.carry, self.epsilon).as_signed(),
            Cat(Const(0, 1 + GUARD), self.sum).as_signed(),
            self.first,
            Cat(Const(1, 1), bits).as_signed(),
        )
        with m.If(self.clear):
            m.d.sync += bits.eq(0)
        with m.Elif(self.load | self.shift):
            new = self.one & self.trial & ~self.root
            m.d.sync += bits.eq(Mux(self.load, added[1:], Cat(new, bits)))

        # Kept is the divisor's complement: minus the divisor is that plus one, which comes in as a
        # bit below all terms.
        complement = Signal(ROOT_BITS, init=-1)
        ones = Const(-1, REST_BITS - ROOT_BITS + 1)
        with m.If(self.set_divisor):
            m.d.sync += complement.eq(~self.new_divisor)
        with m.Elif(self.push_divisor):
            m.d.sync += complement.eq(Cat(~self.pushed, complement))
        m.d.comb += minuend.eq(Cat(bits[-1] | self.extra, rest))
        difference = add_choice(
            m,
            platform,
            "subtract",
            Cat(Const(1, 1), complement, ones).as_signed(),
            Cat(Const(0b101, 3), complement, ones[:-2]).as_signed(),
            self.root,
            Cat(Const(1, 1), minuend, Const(0, 1)).as_signed(),
        )
        m.d.comb += [self.difference.eq(difference[1:]), self.one.eq(~difference[-1])]
        with m.If(self.clear_rest):
            m.d.sync += rest.eq(0)
        with m.Elif(self.trial | self.move_rest):
            m.d.sync += rest.eq(Mux(self.trial & self.one, self.difference, minuend))
        with m.If(self.seed_rest):
            m.d.sync += rest[INVERSE_BITS - 2].eq(1)
        return m
