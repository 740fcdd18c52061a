"""How lanes multiply by weights of two terms: significand forms, decoders and the product."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from golden.config import AccelConfig
from golden.forms import Forms

from ..lib.adders import add_choice, add_subtract


class RowControl(data.Struct):
    """What all lanes of a row need to know of one weight.

    The product is ``(base +- term) * 2**(shift + bin * 2**align)``.

    Fields
    ------
    nonzero (1): High when the weight is not zero, and valid.
    negative (1): High when the product is to be negated.
    carry (1): What the accumulator adds for the negations of product and term.
    base (1): Which of two multiples of the activation is the first term.
    term (1): Which of two others is the second.
    second (1): High when there is a second term.
    subtract (1): High when it is subtracted.
    shift (5): How far the product is moved within its bin.
    bin (5): The bin that it is added to.
    """

    nonzero: 1
    negative: 1
    carry: 1
    base: 1
    term: 1
    second: 1
    subtract: 1
    shift: 5
    bin: 5


def by_code(code, bits):
    """One bit for each value of ``code``: a table that is a single look-up."""
    table = sum(int(bit) << index for index, bit in enumerate(bits))
    return Const(table, 1 << len(code)).bit_select(code, 1)


def control_of(m, control, forms: Forms, align: int, *, significand, exponent, negative, nonzero):
    """Drive ``control`` for a weight of the given significand code and exponent (unsigned)."""
    codes = forms.codes
    shift = Signal(range(forms.spread + 1))
    for bit in range(len(shift)):
        m.d.comb += shift[bit].eq(by_code(significand, [code.shift >> bit & 1 for code in codes]))
    place = Signal(len(exponent) + 1)
    m.d.comb += [
        place.eq(exponent + shift),
        control.nonzero.eq(nonzero),
        control.negative.eq(negative),
        control.base.eq(by_code(significand, [code.base for code in codes])),
        control.term.eq(by_code(significand, [(code.term or 0) for code in codes])),
        control.second.eq(by_code(significand, [code.term is not None for code in codes])),
        control.subtract.eq(by_code(significand, [code.subtract for code in codes])),
        control.carry.eq(control.negative ^ control.subtract),
        control.shift.eq(place & ((1 << align) - 1)),
        control.bin.eq(place >> align),
    ]


class Decoder(wiring.Component):
    """Decodes one RF8 code, in the same cycle (`latency` 0).

    Ports
    -----
    code (in, 8): An RF8 code.
    control (out, struct): The weight for the lanes, a `RowControl`; zero for an invalid code.
    invalid (out, 1): High for a byte that is no code, or whose exponent lies below the machine's
    span.
    """

    latency = 0

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {"code": In(8), "control": Out(RowControl), "invalid": Out(1)},
        )

    def elaborate(self, platform):
        m = Module()
        config, code = self.config, self.code
        mantissa, field = code[0:3], code[3:7]
        lowest = 16 - config.span
        exponent = Signal(range(config.span))
        nonzero = Signal()
        # Encoders for this span flush to zero what lies below it: such a code is an error.
        there = field >= lowest if lowest else code[0:7].any()
        m.d.comb += [
            exponent.eq(field - lowest),
            nonzero.eq(there & (mantissa != 7)),
            self.invalid.eq((code != 0) & ~nonzero),
        ]
        control_of(
            m,
            self.control,
            config.forms,
            config.align,
            significand=mantissa,
            exponent=exponent,
            negative=code[7],
            nonzero=nonzero,
        )
        return m


def multiple_of(x, factor: int):
    """``x * factor`` as shifts and adds."""
    parts, position = [(1, Const(0, 1))] if factor == 0 else [], 0
    while factor:
        # Digits of -1, 0 and 1, of which no two neighbours are set: the fewest terms.
        digit = 2 - (factor & 3) if factor & 1 else 0
        if digit:
            parts.append((digit, x << position))
        factor = (factor - digit) >> 1
        position += 1
    total = parts.pop()[1]  # the highest digit is positive
    for digit, part in reversed(parts):
        total = total + part if digit > 0 else total - part
    return total


class TwoTerm:
    """What `Array` is made of for a format of two-term significands; RF8 by default.

    ``config``: the sizes of the array and its lanes, a `golden.config.AccelConfig` or something
    with the same names. ``control``, ``widths`` (of the values that a column keeps),
    ``product_bits`` and the methods are what any kind of weights has; `hw.matrix.baselines` has
    others.
    """

    control = RowControl

    def __init__(self, config):
        self.config, self.forms = config, config.forms
        # Multiples of x in a column, and their width.
        self.multiples = (*self.forms.base, *self.forms.term)
        self.widths = [config.act_bits + (factor - 1).bit_length() for factor in self.multiples]
        self.product_bits = (self.forms.largest << (config.act_bits - 1)).bit_length() + 1

    def decoder(self):
        """A new decoder: ports `code`, `control`, `invalid`."""
        return Decoder(self.config)

    def column(self, x):
        """The multiples of an activation that a column keeps."""
        return [multiple_of(x, factor) for factor in self.multiples]

    def product(self, m, platform, column, weight):
        """Stage 1: the sum of base and term for the weight, less ``weight.subtract``."""
        bases, terms = column[:2], column[2:]
        if all(form.term is None for form in self.forms.codes):
            return bases[0]
        term = Signal(signed(self.product_bits))
        chosen = Signal(signed(self.product_bits))
        m.d.comb += chosen.eq(Mux(weight.term, terms[1], terms[0]))
        if self.forms.bare:
            chosen = chosen & weight.second.replicate(self.product_bits).as_signed()
        # A negative term is complemented here; the one that is missing to its negation is added by
        # the accumulator. So the bits below the lowest one of the bases need no adder.
        m.d.comb += term.eq(chosen ^ weight.subtract.replicate(self.product_bits).as_signed())
        low = min((factor & -factor).bit_length() - 1 for factor in self.forms.base)
        high = add_choice(
            m, platform, "multiply", bases[0] >> low, bases[1] >> low, weight.base, (term >> low)
        )
        return Cat(term[:low], high).as_signed()

    def accumulate(self, m, platform, total, product, late):
        """Stage 2: ``total`` plus the weight's product, at its place within the bin."""
        # product << shift, with ones coming in where a complemented term still lacks its one. It is
        # written as an arithmetic shift to the right from the far end, which simulators do faster
        # than a sign that is extended bit by bit.
        bits = self.config.align
        fill = late.subtract.replicate((1 << bits) - 1)
        aligned = Cat(fill, product).as_signed() >> ~late.shift[:bits] if bits else product
        return add_subtract(
            m, platform, "accumulate", total, aligned, subtract=late.negative, carry=late.carry
        )
