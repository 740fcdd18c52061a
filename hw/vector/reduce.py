"""Sum, largest magnitude and largest of a segment's results."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from golden.config import RESULT_BITS, AccelConfig
from golden.vector import SUM_BITS

from ..lib.adders import add_subtract
from .decoder import place_bits, sideband


def reduce_latency(config: AccelConfig) -> int:
    """Cycles from results to the cycle in which their sums are there."""
    return 2 + exact_log2(config.results_per_word)


class VectorReduce(wiring.Component):
    """Reduces the results of all lanes to sum, peak and top, a word each cycle; `reduce_latency`
    cycles later.

    Ports
    -----
    sideband (in, struct): What goes with the word of results on ``y``.
    y (in, signed 56, for each lane): Results; zero, and of no account, where the mask of the
        sideband is.
    end (out, 1): Pulses when the outputs below are those of a whole segment; they stay until the
        next one's first results.
    sum (out, signed 56): The sum.
    peak (out, 32): The largest magnitude.
    top (out, signed 32): The largest.
    where (out, place_bits): The place of the first element that is as large.
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        lanes = config.results_per_word
        super().__init__(
            {
                "sideband": In(sideband(config)),
                "y": In(signed(SUM_BITS)).array(lanes),
                "end": Out(1),
                "sum": Out(signed(SUM_BITS)),
                "peak": Out(RESULT_BITS),
                "top": Out(signed(RESULT_BITS)),
                "where": Out(place_bits(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        nodes = []
        for n, (y, seen) in enumerate(zip(self.y, self.sideband.mask, strict=True)):
            low = y[:RESULT_BITS].as_signed()
            minus = low[-1]
            magnitude = add_subtract(
                m, platform, f"peak{n}", Const(0, RESULT_BITS), low, subtract=minus, carry=minus
            )
            nodes.append(self._registered(m, (y, magnitude, low, seen, Const(0, 0)), f"lane{n}"))
        level = 0
        while len(nodes) > 1:
            level += 1
            nodes = [
                self._registered(m, self._joined(a, b), f"level{level}_{n}")
                for n, (a, b) in enumerate(zip(nodes[::2], nodes[1::2], strict=True))
            ]
        total, peak, top, seen, lane = nodes[0]

        names = ("valid", "first", "last", "index")
        now = [self.sideband[name] for name in names]
        for number in range(reduce_latency(self.config) - 1):
            kept = [Signal(v.shape(), name=f"{n}{number}") for n, v in zip(names, now, strict=True)]
            m.d.sync += [k.eq(v) for k, v in zip(kept, now, strict=True)]
            now = kept
        valid, first, last, index = now
        m.d.sync += self.end.eq(valid & last)
        sums = add_subtract(m, platform, "total", total, self.sum, subtract=0, carry=0, keep=~first)
        with m.If(valid):
            m.d.sync += self.sum.eq(sums)
        with m.If(valid & (first | (self.peak < peak))):
            m.d.sync += self.peak.eq(peak)
        # With a window the first words may have no element: what they leave as top is none yet.
        some = Signal()
        with m.If(valid):
            m.d.sync += some.eq(seen | (some & ~first))
        with m.If(valid & (first | ~some | (seen & (self.top < top)))):
            m.d.sync += [self.top.eq(top), self.where.eq(Cat(lane, index))]
        return m

    @staticmethod
    def _joined(a, b):
        # Written with `<` throughout: synthesis makes `>` twice as large.
        later = b[3] & (~a[3] | (a[2] < b[2]))
        return (
            (a[0] + b[0])[:SUM_BITS].as_signed(),
            Mux(a[1] < b[1], b[1], a[1]),
            Mux(later, b[2], a[2]),
            a[3] | b[3],
            Cat(Mux(later, b[4], a[4]), later),  # bits of the number of the lane
        )

    @staticmethod
    def _registered(m, node, name):
        shapes = (signed(SUM_BITS), RESULT_BITS, signed(RESULT_BITS), 1, len(node[4]))
        kept = tuple(
            Signal(shape, name=f"{name}_{part}", reset_less=True)
            for shape, part in zip(shapes, ("sum", "peak", "top", "seen", "lane"), strict=True)
        )
        m.d.sync += [k.eq(v) for k, v in zip(kept, node, strict=True)]
        return kept
