"""RF8 code to the control signals of a lane."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from golden.config import AccelConfig
from golden.rf8 import SIGNIFICANDS


def two_terms(significand: int) -> tuple[int, int | None, bool]:
    """A significand as ``(1 << base) + or - (1 << term)``: (base, term or None, subtract)."""
    base = 4 if significand <= 24 else 5
    rest = significand - (1 << base)
    return base, (abs(rest).bit_length() - 1 if rest else None), rest < 0


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
        reserved = Signal()
        below = Signal()
        m.d.comb += [
            exponent.eq(field - lowest),
            reserved.eq((mantissa == 7) | (code == 0x80)),
            # Encoders for this span flush what lies below it, so such a code is a broken one.
            below.eq((field < lowest) & (code != 0)),
            self.invalid.eq(reserved | below),
            c.nonzero.eq((code != 0) & ~self.invalid),
            c.negative.eq(code[7]),
            c.shift.eq(exponent & ((1 << self.config.align) - 1)),
            c.bin.eq(exponent >> self.config.align),
        ]
        with m.Switch(mantissa):
            for index, significand in enumerate(SIGNIFICANDS):
                base, term, subtract = two_terms(int(significand))
                with m.Case(index):
                    m.d.comb += [
                        c.base5.eq(base == 5),
                        c.second.eq(term is not None),
                        c.term.eq(term or 0),
                        c.subtract.eq(subtract),
                    ]
        return m


def add_or_subtract(a, b, subtract):
    """``a - b`` where ``subtract`` is set, else ``a + b``, modulo 2**len(a) and with one adder.

    Every operand is used once and all have the result's width: synthesis then needs one carry
    chain, and a simulator evaluates nothing for a lane that stands still.
    """
    assert len(a) == len(b)
    return (a + (b ^ subtract.replicate(len(b))) + subtract)[: len(a)].as_signed()


def significand_product(x, control):
    """The significand of a weight times the activation ``x``: one add or subtract.

    ``x`` is sign-extended by five bits, so that the product has its width and is exact.
    """
    width = len(x)

    def shifted(by):
        return (x << by)[:width]

    base = Mux(control.base5, shifted(5), shifted(4))
    term = Mux(
        control.term[1],
        Mux(control.term[0], shifted(3), shifted(2)),
        Mux(control.term[0], shifted(1), shifted(0)),
    )
    return add_or_subtract(base, Mux(control.second, term, 0), control.subtract)
