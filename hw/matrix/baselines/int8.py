"""INT8 weights: three ways to multiply that a good engineer would try on an FPGA."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...lib.adders import add_subtract
from .shape import Shape


class Digit(data.Struct):
    """A radix-4 digit of -2 to 2, as a choice of multiples: 0, x or 2x, and a sign."""

    there: 1
    two: 1
    negative: 1


class IntControl(data.Struct):
    """A weight as the styles want it: bits, or Booth's digits and an overall sign."""

    nonzero: 1
    negative: 1
    weight: 8
    digits: data.ArrayLayout(Digit, 4)


class IntDecoder(wiring.Component):
    """Recodes an INT8 weight, in the same cycle.

    Ports
    -----
    code (in, 8): A weight.
    control (out, struct): The weight for the lanes, an `IntControl`.
    invalid (out, 1): Always low: every byte is a weight.
    """

    def __init__(self):
        super().__init__({"code": In(8), "control": Out(IntControl), "invalid": Out(1)})

    def elaborate(self, platform):
        m = Module()
        c = self.control
        # The lowest digit is made positive, as it has no adder of its own that could subtract: the
        # accumulator does it for the whole product.
        flip = Signal()
        m.d.comb += [c.weight.eq(self.code), c.nonzero.eq(self.code != 0), flip.eq(self.code[1])]
        m.d.comb += c.negative.eq(flip)
        padded = Cat(0, self.code)
        for n in range(4):
            low, middle, high = padded[2 * n], padded[2 * n + 1], padded[2 * n + 2]
            m.d.comb += [
                c.digits[n].there.eq(~((low == middle) & (middle == high))),
                c.digits[n].two.eq(low == middle),
                c.digits[n].negative.eq(high ^ flip),
            ]
        return m


class Int8:
    """INT8 weights for `hw.matrix.array.Array`.

    ``style``: "booth" (radix 4, four rows of multiples, an adder each but for the first), "rows"
    (one row for each bit of the weight) or "multiply" (the operator ``*``, as synthesis makes it;
    a DSP block where there are some).
    """

    control = IntControl
    styles = ("booth", "rows", "multiply")

    def __init__(self, *, rows, cols, act_bits, max_k, style):
        self.style = style
        self.config = Shape(
            rows=rows, cols=cols, act_bits=act_bits, max_k=max_k, largest=128, largest_term=128
        )
        self.widths = [act_bits]
        self.product_bits = act_bits + 8

    def decoder(self):
        return IntDecoder()

    def column(self, x):
        return [x]

    def product(self, m, platform, column, weight):
        (x,) = column
        if self.style == "multiply":
            return x * weight.weight.as_signed()
        if self.style == "rows":
            return self._rows(m, platform, x, weight.weight)
        return self._booth(m, platform, x, weight.digits)

    def _rows(self, m, platform, x, weight):
        """Each adder takes x where the weight's bit is set, and passes its lowest bit on."""
        first = Signal(signed(len(x)))
        m.d.comb += first.eq(x & weight[0].replicate(len(x)).as_signed())
        done, total = [first[0]], first[1:].as_signed()
        for n in range(1, 8):
            wide = Signal(signed(len(x) + 1), name=f"row{n}")
            m.d.comb += wide.eq(total)
            top = int(n == 7)  # the sign bit counts negative
            part = add_subtract(
                m, platform, f"row{n}", wide, x, subtract=top, carry=top, keep=weight[n]
            )
            done.append(part[0])
            total = part[1:].as_signed()
        return Cat(*done, total).as_signed()

    def _booth(self, m, platform, x, digits):
        multiples = []
        for n in range(4):
            multiple = Signal(signed(len(x) + 1), name=f"multiple{n}")
            chosen = Mux(digits[n].two, x << 1, x)
            m.d.comb += multiple.eq(chosen & digits[n].there.replicate(len(x) + 1).as_signed())
            multiples.append(multiple)
        total, done = multiples[0], []
        for n in range(1, 4):
            # The two bits below the next row of multiples are final.
            wide = Signal(signed(len(x) + 2), name=f"sum{n}")
            m.d.comb += wide.eq(total[2:].as_signed())
            done.append(total[:2])
            negative = digits[n].negative
            total = add_subtract(
                m, platform, f"digit{n}", wide, multiples[n], subtract=negative, carry=negative
            )
        return Cat(*done, total).as_signed()

    def accumulate(self, m, platform, total, product, late):
        negative = late.negative if self.style == "booth" else 0
        return add_subtract(
            m, platform, "accumulate", total, product, subtract=negative, carry=negative
        )
