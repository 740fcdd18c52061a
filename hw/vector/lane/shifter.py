"""The shifter of a lane of the vector unit."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.arith import GUARD_BITS
from golden.vector import AMOUNT_MAX

from ..coder import at_least
from ..decoder import LEFT_BITS

BITS = 64
MOST = LEFT_BITS + AMOUNT_MAX
"""How far a value moves right at most, from where LEFT_BITS zeros stand behind it."""
KEPT = GUARD_BITS + 1
"""Bits of a result and the half bit below it."""
STEP = 16
FACTOR_BITS = 18
"""Of a multiplier block."""


class VectorShifter(wiring.Component):
    """The shifter of a lane: ``value * 2**(LEFT_BITS - right)``, as `golden.vector.scaled` but for
    its last additions; `latency` cycles.

    A value with zeros behind it is moved right only: by multiples of 16, then by the rest, a cycle
    each. In the third, what is left out is looked at.

    Ports
    -----
    value (in, signed 64): What to shift.
    right (in, 7): How far, 0 to MOST; a cycle before ``value``.
    wrap (in, 1): High to take the low bits without saturation, where ``right`` is LEFT_BITS;
        constant.
    cut (in, 1): High when what falls below is of no account; constant.
    whole (out, signed 34), up (out, 1): The result is their sum.
    over (out, 1): High when the result saturates instead,
    minus (out, 1): below zero when this is high.
    """

    latency = 3

    def __init__(self):
        super().__init__(
            {
                "value": In(signed(BITS)),
                "right": In(range(MOST + 1)),
                "wrap": In(1),
                "cut": In(1),
                "whole": Out(signed(GUARD_BITS)),
                "up": Out(1),
                "over": Out(1),
                "minus": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        names = ("word", "power", "below", "leaves", "sign")
        first = self._coarse(m)
        held = [Signal.like(v, name=n, reset_less=True) for n, v in zip(names, first, strict=True)]
        m.d.sync += [kept.eq(value) for kept, value in zip(held, first, strict=True)]
        word, power, below, leaves, sign = held
        moved = Signal(signed(len(word) + STEP - 1), reset_less=True)
        below2, leaves2, sign2 = (Signal(name=f"{n}2", reset_less=True) for n in names[2:])
        m.d.sync += [
            moved.eq(self._fine(m, word, power)),
            below2.eq(below),
            leaves2.eq(leaves),
            sign2.eq(sign),
        ]
        end = STEP - 1 + KEPT
        whole = Signal.like(self.whole, reset_less=True)
        half = Signal(reset_less=True)
        rest, beyond, minus = (Signal(name=n, reset_less=True) for n in ("rest", "beyond", "less"))
        some = Signal(reset_less=True)
        every = Signal(reset_less=True)
        above = moved[end - 1 :]  # the sign bit of `whole` and all above it
        m.d.sync += [
            Cat(half, whole).eq(moved[STEP - 1 : end]),
            rest.eq(below2 | moved[: STEP - 1].any()),
            beyond.eq(leaves2),
            some.eq(above.any()),
            every.eq(above.all()),
            minus.eq(sign2),
        ]
        m.d.comb += [
            self.whole.eq(whole),
            self.up.eq(half & (rest | whole[0]) & ~self.cut),  # round half to even
            self.over.eq((beyond | Mux(minus, ~every, some)) & ~self.wrap),
            self.minus.eq(minus),
        ]
        return m

    def _coarse(self, m):
        """The bits that the rest of the way may need, as a choice of one place in the value."""
        sign, width = self.value[-1], KEPT + STEP - 1
        places = [STEP * n - LEFT_BITS - 1 for n in range(MOST // STEP + 1)]
        chosen = Signal(len(places))
        beyond = Signal(len(places))
        passed = Signal(len(places) + 1, reset_less=True)
        fine = Signal(4, reset_less=True)
        m.d.sync += [
            chosen.eq(Cat(self.right[4:] == n for n in range(len(places)))),
            passed.eq(Cat(at_least(self.right[4:], n) for n in range(len(places) + 1))),
            fine.eq(self.right[:4]),
        ]
        m.d.comb += beyond.eq(chosen & sign.replicate(len(places)))
        terms = []
        for n, place in enumerate(places):
            end = place + width
            part = Cat(Const(0, max(0, -place)), self.value[max(0, place) : end])
            known = chosen[n].replicate(len(part)) & part
            terms.append(Cat(known, beyond[n].replicate(max(0, end - BITS))))
        # For each place: whether bits are lost below it, and whether bits above it differ from the
        # sign.
        below, leaves = [], []
        for n, place in enumerate(places):
            earlier = max(0, places[n - 1]) if n else 0
            if place > earlier:
                below.append(passed[n] & self.value[earlier:place].any())
            top, later = place + width, BITS if n + 1 == len(places) else places[n + 1] + width
            if top < BITS:
                near = ~passed[n + 1]
                bits = self.value[top : min(later, BITS)]
                differs = bits ^ sign.replicate(len(bits))
                leaves.append(near & differs.any())
        word = Signal(signed(width), name="coarse")
        m.d.comb += word.eq(reduce(or_, terms))
        power = Const(1 << (STEP - 1), STEP) >> fine
        return word, power, Cat(below).any(), Cat(leaves).any(), sign

    def _fine(self, m, word, power):
        """To the right by the rest, which is to the left by what is missing to STEP: a product with
        a power of two, which FPGAs have blocks for."""
        moved = 0
        for first in range(0, len(word), FACTOR_BITS):
            part = word[first : first + FACTOR_BITS]
            if first + FACTOR_BITS >= len(word):
                part = part.as_signed()
            product = Signal((part * power).shape(), name=f"product{first}")
            m.d.comb += product.eq(part * power)
            moved = moved | (
                product << first
            )  # products do not overlap, as all but one bit of the power are 0
        return moved
