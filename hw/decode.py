"""RF8 code to the control signals of a lane."""

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from golden.config import AccelConfig
from golden.rf8 import SIGNIFICANDS


def two_terms(significand: int) -> tuple[int, int | None, bool]:
    """A significand as ``(1 << base) + or - (1 << term)``: (base, term or None, subtract)."""
    base = 4 if significand <= 24 else 5
    rest = significand - (1 << base)
    return base, (abs(rest).bit_length() - 1 if rest else None), rest < 0


def _by_mantissa(mantissa, bits):
    """One bit for each mantissa code: a table that is a single look-up in any target."""
    table = sum(int(bit) << code for code, bit in enumerate(bits))
    return Const(table, 8).bit_select(mantissa, 1)


class RowControl(data.Struct):
    """What all lanes of a row need to know of one weight.

    The product is ``((x << 4 or 5) +- (x << term)) << exponent``, negated if `negative`; `shift`
    and `bin` are the low and high part of the exponent (see `golden.config.AccelConfig.align`).
    """

    nonzero: 1
    negative: 1
    base5: 1
    second: 1
    subtract: 1
    term: 2
    shift: 4
    bin: 4


class Decoder(wiring.Component):
    """Decodes one RF8 code; combinational (latency 0).

    A code that is invalid, or whose exponent lies below the machine's span, gives zero and raises
    `invalid`.
    """

    latency = 0

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {"code": In(8), "control": Out(RowControl), "invalid": Out(1)},
        )

    def elaborate(self, platform):
        m = Module()
        code, c = self.code, self.control
        mantissa, field = code[0:3], code[3:7]
        lowest = 16 - self.config.span

        exponent = Signal(4)
        # Encoders for this span flush what lies below it, so such a code is a broken one.
        below = (field < lowest) & (code != 0) if lowest else 0
        m.d.comb += [
            exponent.eq(field - lowest),
            self.invalid.eq((mantissa == 7) | (code == 0x80) | below),
            c.nonzero.eq((code != 0) & ~self.invalid),
            c.negative.eq(code[7]),
            c.shift.eq(exponent & ((1 << self.config.align) - 1)),
            c.bin.eq(exponent >> self.config.align),
        ]
        terms = [two_terms(significand) for significand in SIGNIFICANDS]
        m.d.comb += [
            c.base5.eq(_by_mantissa(mantissa, [base == 5 for base, _, _ in terms])),
            c.second.eq(_by_mantissa(mantissa, [term is not None for _, term, _ in terms])),
            c.term[0].eq(_by_mantissa(mantissa, [(term or 0) & 1 for _, term, _ in terms])),
            c.term[1].eq(_by_mantissa(mantissa, [(term or 0) >> 1 for _, term, _ in terms])),
            c.subtract.eq(_by_mantissa(mantissa, [subtract for _, _, subtract in terms])),
        ]
        return m


def add_or_subtract(a, b, subtract):
    """``a - b`` where ``subtract`` is set, else ``a + b``, modulo 2**len(a) and with one adder.

    ``b`` is signed, or has the width of ``a``. Every operand is used once: synthesis then needs
    one carry chain, and a simulator evaluates nothing for a lane that stands still.
    """
    mask = subtract.replicate(len(b))
    inverted = b ^ (mask.as_signed() if b.shape().signed else mask)
    return (a + inverted + subtract)[: len(a)].as_signed()


def significand_product(x, control):
    """The significand of a weight times the activation ``x``: one add or subtract.

    ``x`` is sign-extended by five bits, so that the product has its width and is exact.
    """
    width = len(x)

    base = ((x << 4) << control.base5)[:width]
    term = (x << control.term)[:width]
    return add_or_subtract(base, Mux(control.second, term, 0), control.subtract)
