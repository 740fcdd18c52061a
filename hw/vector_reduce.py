"""Sum, largest magnitude and largest of a segment's results."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from golden.config import RESULT_BITS, AccelConfig
from golden.vector import SUM_BITS

from .vector_control import token


class VectorReduce(wiring.Component):
    """Reduces the results of all lanes, a word each cycle.

    Ports
    -----
    token, y, high: results, 0 where the token's mask is; with ``wide``, ``high`` is above y
    end: sum, peak, top are those of a whole segment; they stay until the next one's first results

    Latency: `latency` cycles from results to where they count.
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        lanes = config.results_per_word
        self.latency = 2 + exact_log2(lanes)
        super().__init__(
            {
                "token": In(token(config)),
                "wide": In(1),
                "y": In(signed(RESULT_BITS)).array(lanes),
                "high": In(SUM_BITS - RESULT_BITS).array(lanes),
                "end": Out(1),
                "sum": Out(signed(SUM_BITS)),
                "peak": Out(RESULT_BITS),
                "top": Out(signed(RESULT_BITS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lowest = Const(-1 << (RESULT_BITS - 1), signed(RESULT_BITS))
        nodes = []
        for y, high, mask in zip(self.y, self.high, self.token.mask, strict=True):
            above = Mux(self.wide, high & mask.replicate(len(high)), y[-1].replicate(len(high)))
            node = (Cat(y, above).as_signed(), Mux(y[-1], -y, y)[:RESULT_BITS])
            nodes.append((*node, Mux(mask, y, lowest)))
        nodes = [self._registered(m, node, f"lane{n}") for n, node in enumerate(nodes)]
        level = 0
        while len(nodes) > 1:
            level += 1
            pairs = zip(nodes[::2], nodes[1::2], strict=True)
            nodes = [
                self._registered(m, self._joined(a, b), f"level{level}_{n}")
                for n, (a, b) in enumerate(pairs)
            ]

        valid, first, last = (self.token[name] for name in ("valid", "first", "last"))
        for number in range(self.latency - 1):
            kept = [Signal(name=f"{name}{number}") for name in ("valid", "first", "last")]
            m.d.sync += [k.eq(v) for k, v in zip(kept, (valid, first, last), strict=True)]
            valid, first, last = kept
        total, found = (self.sum, self.peak, self.top), self._joined(nodes[0], self._kept())
        m.d.sync += self.end.eq(valid & last)
        with m.If(valid):
            m.d.sync += [
                kept.eq(Mux(first, new, both))
                for kept, new, both in zip(total, nodes[0], found, strict=True)
            ]
        return m

    def _kept(self):
        return self.sum, self.peak, self.top

    @staticmethod
    def _joined(a, b):
        return (
            (a[0] + b[0])[:SUM_BITS].as_signed(),
            Mux(a[1] > b[1], a[1], b[1]),
            Mux(a[2] > b[2], a[2], b[2]),
        )

    @staticmethod
    def _registered(m, node, name):
        shapes = (signed(SUM_BITS), RESULT_BITS, signed(RESULT_BITS))
        kept = tuple(
            Signal(shape, name=f"{name}_{part}", reset_less=True)
            for shape, part in zip(shapes, ("sum", "peak", "top"), strict=True)
        )
        m.d.sync += [k.eq(v) for k, v in zip(kept, node, strict=True)]
        return kept
