"""The shifter of a lane of the vector unit."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.arith import GUARD_BITS
from golden.vector import AMOUNT_MAX

from .requant import _bound
from .vector_control import LEFT_BITS

BITS = 64
MOST = LEFT_BITS + AMOUNT_MAX
"""How far a value moves right at most, from where LEFT_BITS zeros stand behind it."""


class VectorShifter(wiring.Component):
    """``result = value * 2**(LEFT_BITS - right)``, rounded half to even, saturated to GUARD_BITS.

    `golden.vector.scaled`: a value with zeros behind it is moved right only. Three cycles: by
    multiples of 16, by the rest, rounding.

    Ports
    -----
    value: signed
    right: 0 to MOST
    wrap: constant: where LEFT_BITS is moved right, the low bits, without saturation
    """

    latency = 3

    def __init__(self):
        super().__init__(
            {
                "value": In(signed(BITS)),
                "right": In(range(MOST + 1)),
                "wrap": In(1),
                "result": Out(signed(GUARD_BITS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        sign = self.value[-1]
        # The lowest bit that is kept is the half; `below`: some bit beneath it was set.
        word, below = Cat(Const(0, LEFT_BITS + 1), self.value).as_signed(), Const(0)
        leaves = Const(0)  # a bit above those kept differs from the sign
        right, kept = self.right, GUARD_BITS + 1

        for number, (low, high) in enumerate([(6, 7), (4, 6), (2, 4), (0, 2)]):
            if low == 2:
                registers = [Signal.like(v, reset_less=True) for v in (word, right[:4])]
                bits = [Signal(reset_less=True, name=f"bit{n}") for n in range(3)]
                m.d.sync += [r.eq(v) for r, v in zip(registers, (word, right[:4]), strict=True)]
                m.d.sync += [r.eq(v) for r, v in zip(bits, (below, leaves, sign), strict=True)]
                (word, right), (below, leaves, sign) = registers, bits
            by = right[low:high]
            width = kept + (1 << low) - 1  # what the levels behind this one may need
            steps = [n << low for n in range(1 << (high - low)) if n << low <= MOST]
            lost_low = [word[:n].any() for n in steps]
            lost_high = [_differs(word[min(n + width, len(word)) :], sign) for n in steps]
            moved = Signal(signed(width), name=f"moved{number}")
            m.d.comb += moved.eq(word >> (by << low))
            below = below | _pick(lost_low, by)
            leaves = leaves | _pick(lost_high, by)
            word = moved

        whole, half = Signal(signed(GUARD_BITS), reset_less=True), Signal(reset_less=True)
        inexact, over, minus = (Signal(reset_less=True, name=n) for n in ("inexact", "over", "neg"))
        m.d.sync += [
            Cat(half, whole).eq(word),
            inexact.eq(below),
            over.eq((leaves | (word[-1] ^ sign)) & ~self.wrap),
            minus.eq(sign),
        ]
        rounded = Signal(signed(GUARD_BITS))
        m.d.comb += rounded.eq(whole + (half & (inexact | whole[0])))
        # Rounding up may carry out of the positive numbers.
        carried = ~minus & rounded[-1] & ~self.wrap
        result = Signal.like(self.result, reset_less=True)
        m.d.sync += result.eq(Mux(over | carried, _bound(minus, GUARD_BITS), rounded))
        m.d.comb += self.result.eq(result)
        return m


def _differs(bits, sign):
    """Whether a bit is not the sign."""
    return Mux(sign, ~bits.all(), bits.any()) if len(bits) else Const(0)


def _pick(cases, index):
    cases = [*cases, *[cases[-1]] * ((1 << len(index)) - len(cases))]
    return Cat(cases).bit_select(index, 1)
