"""The requantiser: an exact dot product to a 32-bit fixed-point result."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.arith import GUARD_BITS
from golden.config import RESULT_BITS, AccelConfig

from ..lib.saturate import fits, limit, saturate


class Requantizer(wiring.Component):
    """``result = saturate(round_half_even(dot * 2**scale) + bias)``, `golden.arith.requantize`.

    Takes a value each cycle; its result comes `latency` cycles later.

    Ports
    -----
    valid (in, 1): High when there is a value to take.
    dot (in, signed acc_bits): A dot product.
    scale (in, signed 10): Sum of the exponents of its row, of the activations and of the
        instruction.
    bias (in, signed 32): Layer bias, in units of the result.
    result_valid (out, 1): High when ``result`` is one.
    result (out, signed 32): Fixed point with RESULT_FRAC fraction bits.
    saturated (out, 1): High when ``result`` is one that the exact value did not fit.
    """

    latency = 7

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "valid": In(1),
                "dot": In(signed(config.acc_bits)),
                "scale": In(signed(10)),
                "bias": In(signed(RESULT_BITS)),
                "result_valid": Out(1),
                "result": Out(signed(RESULT_BITS)),
                "saturated": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        width = self.config.acc_bits
        # Stage n takes what stage n - 1 registered; `valid[n]` goes with it.
        valid = [self.valid] + [Signal(name=f"valid{n}") for n in range(1, self.latency)]
        for before, after in zip(valid, [*valid[1:], self.result_valid], strict=True):
            m.d.sync += after.eq(before)

        def register(shape, name):
            return Signal(shape, name=name, reset_less=True)

        # Bias and left shift travel along with the value, stage by stage.
        bias = [self.bias] + [register(signed(RESULT_BITS), f"bias{n}") for n in range(1, 7)]
        left = [register(range(GUARD_BITS), f"left{n}") for n in range(2, 6)]
        for n in range(1, 7):
            with m.If(valid[n - 1]):
                m.d.sync += bias[n].eq(bias[n - 1])
        for n in range(1, 4):
            with m.If(valid[n + 1]):
                m.d.sync += left[n].eq(left[n - 1])

        # 1: registers. 2: the distance and direction of the shift, limited to where a larger one
        # would give the same.
        top = GUARD_BITS - 1
        right = register(range(width + 2), "right")
        scale = register(self.scale.shape(), "scale1")
        dots = [register(signed(width), f"dot{n}") for n in (1, 2)]
        with m.If(valid[0]):
            m.d.sync += [dots[0].eq(self.dot), scale.eq(self.scale)]
        with m.If(valid[1]):
            m.d.sync += dots[1].eq(dots[0])
            with m.If(scale < 0):
                m.d.sync += left[0].eq(0)
                m.d.sync += right.eq(Mux(scale < -(width + 1), width + 1, -scale))
            with m.Else():
                m.d.sync += right.eq(0)
                m.d.sync += left[0].eq(Mux(scale > top, top, scale))

        # 3 and 4: shift right by multiples of 8, then by the rest. The lowest bit kept is the half
        # bit; `below` says whether anything lies beneath it.
        extended = Cat(Const(0, 1), dots[1]).as_signed()
        coarse, fine = right >> 3, register(3, "fine")
        middle, below2 = register(signed(width + 1), "middle"), register(1, "below2")
        with m.If(valid[2]):
            m.d.sync += [
                middle.eq(extended >> (coarse << 3)),
                below2.eq(_any_below(extended, coarse, 8)),
                fine.eq(right[:3]),
            ]
        whole, half, below = register(signed(width), "whole"), register(1, "half"), register(1, "b")
        with m.If(valid[3]):
            m.d.sync += [
                Cat(half, whole).eq(middle >> fine),
                below.eq(below2 | _any_below(middle, fine, 1)),
            ]

        # 5: round half to even. 6: shift left. Of every value, one of the two changes nothing.
        rounded = Signal(signed(width + 1))
        small = register(signed(GUARD_BITS), "small")
        m.d.comb += rounded.eq(whole + (half & (below | whole[0])))
        with m.If(valid[4]):
            m.d.sync += small.eq(saturate(rounded, GUARD_BITS))
        shifted, leaves = register(signed(GUARD_BITS), "shifted"), register(1, "leaves")
        minus = register(1, "minus")
        # Bits that reach the sign's place must equal it: bit i does from left = top - i on.
        sign, reach = small[-1], register(top, "reach")
        with m.If(valid[4]):
            m.d.sync += reach.eq(Cat(left[2] >= top - i for i in range(top)))
        with m.If(valid[5]):
            m.d.sync += [
                shifted.eq(small << left[3]),
                leaves.eq(((small[:top] ^ sign.replicate(top)) & reach).any()),
                minus.eq(sign),
            ]
        scaled = Mux(leaves, limit(minus, GUARD_BITS), shifted.as_unsigned()).as_signed()

        # 7: saturate, add the layer bias.
        total = scaled + bias[6]
        m.d.sync += self.saturated.eq(valid[6] & ~fits(total, RESULT_BITS))
        with m.If(valid[6]):
            m.d.sync += self.result.eq(saturate(total, RESULT_BITS))
        return m


def _any_below(value, amount, unit: int):
    """Whether any bit below ``amount * unit`` is set."""
    cases = [value[: unit * n].any() for n in range(1 << len(amount))]
    return Cat(cases).bit_select(amount, 1)
