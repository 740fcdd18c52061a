"""The requantiser: an exact dot product to a 32-bit fixed-point result."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.arith import GUARD_BITS
from golden.config import RESULT_BITS, AccelConfig


def saturate(value, bits: int):
    """``value`` clamped to a two's-complement number of ``bits`` bits."""
    if len(value) <= bits:
        return value
    high, sign = value[bits - 1 : -1], value[-1]
    fits = (high == sign.replicate(len(high))).bool()
    bound = Cat((~sign).replicate(bits - 1), sign)
    return Mux(fits, value[:bits], bound).as_signed()


class Requantizer(wiring.Component):
    """``result = clamp(round_half_even(dot * 2**scale) + bias)``, `golden.arith.requantize`.

    Ports
    -----
    dot: signed ``acc_bits``, with ``valid``
    scale: signed, the exponents of row, activations and instruction added up
    bias: int32
    result: int32, with ``result_valid``

    Latency: `latency` cycles; takes a value each cycle.
    """

    latency = 4

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
            }
        )

    def elaborate(self, platform):
        m = Module()
        width = self.config.acc_bits
        valid = [Signal(name=f"valid{n}") for n in (1, 2, 3)]
        for before, after in zip([self.valid, *valid], [*valid, self.result_valid], strict=True):
            m.d.sync += after.eq(before)
        bias = [Signal(signed(RESULT_BITS), name=f"bias{n}", reset_less=True) for n in (1, 2, 3)]

        # 1: how far, and which way. Beyond these bounds nothing changes any more.
        right = Signal(range(width + 2), reset_less=True)
        left = Signal(range(GUARD_BITS + 1), reset_less=True)
        dot = Signal(signed(width), reset_less=True)
        with m.If(self.valid):
            m.d.sync += [dot.eq(self.dot), bias[0].eq(self.bias)]
            with m.If(self.scale < 0):
                m.d.sync += left.eq(0)
                m.d.sync += right.eq(Mux(self.scale < -(width + 1), width + 1, -self.scale))
            with m.Else():
                m.d.sync += right.eq(0)
                m.d.sync += left.eq(Mux(self.scale > GUARD_BITS, GUARD_BITS, self.scale))

        # 2: shift right; keep the half bit, and whether anything lies below it.
        whole = Signal(signed(width), reset_less=True)
        half, below, left2 = Signal(reset_less=True), Signal(reset_less=True), Signal.like(left)
        shifted = Signal(signed(width + 1))
        lost = Signal(width)
        m.d.comb += [
            shifted.eq(Cat(Const(0, 1), dot).as_signed() >> right),
            # Ones below the half bit: bits 0 to right - 2.
            lost.eq(dot & ~(Const(-1, signed(width + 2)) << right >> 1)),
        ]
        with m.If(valid[0]):
            m.d.sync += [
                whole.eq(shifted >> 1),
                half.eq(shifted[0] & (right != 0)),
                below.eq(lost.any() & (right != 0)),
                left2.eq(left),
                bias[1].eq(bias[0]),
            ]

        # 3: round half to even; shift left with saturation. One of the two changes nothing.
        rounded = Signal(signed(width + 1))
        small = Signal(signed(GUARD_BITS))
        scaled = Signal(signed(GUARD_BITS), reset_less=True)
        m.d.comb += [
            rounded.eq(whole + (half & (below | whole[0]))),
            small.eq(saturate(rounded, GUARD_BITS)),
        ]
        with m.If(valid[1]):
            m.d.sync += [scaled.eq(saturate(small << left2, GUARD_BITS)), bias[2].eq(bias[1])]

        # 4: add the layer bias.
        with m.If(valid[2]):
            m.d.sync += self.result.eq(saturate(scaled + bias[2], RESULT_BITS))
        return m
