"""Weights of a significand times a power of two, on the lanes of RF8 with other tables.

FP8 profits from the same trick as RF8: all its significands are the sum or difference of two
multiples of x, of which a column makes those that are no powers of two.
"""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from golden.baselines import INTEGERS
from golden.forms import Forms, find_forms

from ...lib.adders import add_subtract
from ..decode import TwoTerm, control_of
from .shape import Shape


def _minifloat(m, code, mantissa_bits, highest):
    """(significand code, exponent, nonzero, invalid); the hidden bit leads the significand."""
    mantissa, field = code[:mantissa_bits], code[mantissa_bits:7]
    normal = Signal()
    exponent = Signal(len(field))
    significand = Signal(mantissa_bits + 1)
    m.d.comb += [
        normal.eq(field != 0),
        exponent.eq(Mux(normal, field - 1, 0)),
        significand.eq(mantissa | normal << mantissa_bits),
    ]
    invalid = code[:7] >= highest
    return significand, exponent, significand.any() & ~invalid, invalid


def _e4m3(m, code):
    return _minifloat(m, code, 3, 127)


def _e5m2(m, code):
    return _minifloat(m, code, 2, 124)


def _pot(m, code):
    exponent = Signal(4)
    m.d.comb += exponent.eq(code[:4] - 1)
    invalid = code[4:7].any() | (code == 0x80)
    return Signal(1), exponent, code[:4].any() & ~invalid, invalid


def _apot2(m, code):
    return code[:3], code[3:7], code[:7].any(), code == 0x80


DECODERS = {"e4m3": _e4m3, "e5m2": _e5m2, "pot": _pot, "apot2": _apot2}

# Significand code 0 is zero in the minifloats and never multiplied: any form does.
FORMS: dict[str, Forms] = {
    "e4m3": find_forms([1, *range(1, 16)], (4, 12), (1, 3)),
    "e5m2": find_forms([1, *range(1, 8)], (4, 4), (1, 3)),
    "pot": find_forms([1, 1], (1, 1), (0, 0), bare=True),
    # The second term of apot2 is shifted, not chosen: see `Apot2`.
    "apot2": find_forms([128] * 8, (128, 128), (0, 0), bare=True),
}
EXPONENTS = {"e4m3": 15, "e5m2": 30, "pot": 15, "apot2": 16}


class FloatDecoder(wiring.Component):
    """Decodes one code of a format, in the same cycle.

    Ports
    -----
    code (in, 8): A code.
    control (out, struct): The weight for the lanes; zero for an invalid code.
    invalid (out, 1): High for a byte that is no code of the format.
    """

    def __init__(self, kind):
        self.kind = kind
        super().__init__({"code": In(8), "control": Out(kind.control), "invalid": Out(1)})

    def elaborate(self, platform):
        m = Module()
        significand, exponent, nonzero, invalid = DECODERS[self.kind.name](m, self.code)
        m.d.comb += self.invalid.eq(invalid)
        self.kind.decode(m, self.control, significand, exponent, self.code[7], nonzero)
        return m


class Float(TwoTerm):
    """FP8 and power-of-two weights for `Array`; ``name`` as in `golden.baselines`."""

    def __init__(self, name, *, rows, cols, act_bits, max_k, align):
        self.name = name
        forms, exponents = FORMS[name], EXPONENTS[name]
        largest = forms.largest_in_bin(exponents, align)
        if name == "apot2":
            largest *= 2  # less than twice as much, by the second term
        super().__init__(
            Shape(
                rows=rows,
                cols=cols,
                act_bits=act_bits,
                max_k=max_k,
                largest=int(abs(INTEGERS[name]).max()),
                largest_term=largest,
                bins=-(-(exponents + forms.spread) // (1 << align)),
                align=align,
                forms=forms,
            )
        )

    def decoder(self):
        return FloatDecoder(self)

    def decode(self, m, control, significand, exponent, negative, nonzero):
        """Drive ``control`` for a decoded weight."""
        control_of(
            m,
            control,
            self.forms,
            self.config.align,
            significand=significand,
            exponent=exponent,
            negative=negative,
            nonzero=nonzero,
        )


class ApotControl(data.Struct):
    """What lanes need to know of a sum of two powers of two; see `hw.matrix.decode.RowControl`."""

    nonzero: 1
    negative: 1
    carry: 1
    subtract: 1
    distance: 3
    shift: 5
    bin: 5


class Apot2(Float):
    """Sums of two powers of two for `Array`: the second term is shifted to its place."""

    control = ApotControl

    def __init__(self, **sizes):
        super().__init__("apot2", **sizes)
        act_bits = sizes["act_bits"]
        self.multiples, self.widths = (1,), [act_bits]
        self.product_bits = act_bits + 8

    def decode(self, m, control, significand, exponent, negative, nonzero):
        align = self.config.align
        m.d.comb += [
            control.nonzero.eq(nonzero),
            control.negative.eq(negative),
            control.carry.eq(negative),
            control.distance.eq(significand),
            control.shift.eq(exponent & ((1 << align) - 1)),
            control.bin.eq(exponent >> align),
        ]

    def product(self, m, platform, column, weight):
        """Stage 1: ``128 x + (128 x >> distance)``."""
        (x,) = column
        first = Signal(signed(self.product_bits))
        second = Signal(signed(self.product_bits))
        m.d.comb += [first.eq(x << 7), second.eq((x << 7) >> weight.distance)]
        there = weight.distance != 0
        return add_subtract(m, platform, "multiply", first, second, subtract=0, carry=0, keep=there)
