"""LOAD: external memory to one bank of the scratchpad."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from golden.config import RESULT_BITS, AccelConfig
from golden.rf8 import EXPONENTS, SIGNIFICANDS

from .axi import Burst, Bursts


class CodeValue(wiring.Component):
    """The integer that an RF8 code stands for (`golden.rf8.INTEGERS`): 0 where it is invalid.

    Latency: `latency` cycles.
    """

    latency = 2

    def __init__(self):
        super().__init__({"code": In(8), "value": Out(signed(RESULT_BITS))})

    def elaborate(self, platform):
        m = Module()
        code = self.code
        bits = max(SIGNIFICANDS).bit_length()
        table = Array(Const(value, bits) for value in (*SIGNIFICANDS, 0))
        magnitude, negative = Signal(bits + EXPONENTS - 1), Signal()
        m.d.sync += [
            magnitude.eq(Mux(code[:7] == 0, 0, table[code[:3]] << code[3:7])),
            negative.eq(code[7]),
            self.value.eq(Mux(negative, -magnitude, magnitude)),
        ]
        return m


class Loader(wiring.Component):
    """Reads ``count`` beats from ``address`` on and writes them from word ``dst`` on.

    With ``lanes`` it is the byte ``lane`` of each beat that counts. The first is a number, which
    becomes the first element of a word of its own; the others are RF8 codes, whose integers follow
    as elements, with zeros after the last.

    ``start`` takes the operands; ``done`` is high for one cycle when the last word is written,
    ``failed`` before it when the memory flagged a beat. One beat each cycle.
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        width = 8 * config.bus_bytes
        super().__init__(
            {
                "start": In(1),
                "address": In(config.addr_bits),
                "count": In(16),
                "dst": In(16),
                "lanes": In(1),
                "lane": In(exact_log2(config.bus_bytes)),
                "done": Out(1),
                "failed": Out(1),
                "request": Out(stream.Signature(Burst)),
                "beat": In(1),
                "data": In(width),
                "error": In(1),
                "write_enable": Out(1),
                "write_address": Out(range(config.scratch_words)),
                "write_data": Out(width),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.bursts = bursts = Bursts(config)
        m.submodules.decoder = decoder = CodeValue()
        connect(m, bursts.o, flipped(self.request))
        left, lanes, lane = Signal(16), Signal(), Signal.like(self.lane)
        begins, ends = Signal(), Signal()
        m.d.comb += [
            bursts.start.eq(self.start),
            bursts.address.eq(self.address),
            bursts.beats.eq(self.count),
            self.failed.eq(self.beat & self.error),
            ends.eq(left == 1),
        ]
        with m.If(self.start):
            m.d.sync += [left.eq(self.count), begins.eq(1)]
            m.d.sync += [lanes.eq(self.lanes), lane.eq(self.lane)]
        with m.Elif(self.beat):
            m.d.sync += [left.eq(left - 1), begins.eq(0)]

        # Lanes: a byte, its value, and where it goes. What comes with it: is it there, the first,
        # the last?
        coming = Cat(self.beat & lanes, begins, ends)
        code, number = Signal(8), Signal(8)
        m.d.sync += [code.eq(self.data.word_select(lane, 8)), number.eq(code)]
        m.d.comb += decoder.code.eq(code)
        for stage in range(1 + CodeValue.latency):
            later = Signal(3, name=f"coming{stage}")
            m.d.sync += later.eq(coming)
            coming = later
        there, first, last = coming  # bit by bit
        later_number = Signal(signed(8))
        m.d.sync += later_number.eq(number)

        per_word = config.results_per_word
        word = self.write_data
        place, full = Signal(range(max(2, per_word))), Signal()
        m.d.comb += full.eq(first | last | (place == per_word - 1))
        with m.If(~lanes):
            m.d.sync += word.eq(self.data)
        with m.Elif(there):
            m.d.sync += place.eq(Mux(full, 0, place + 1))
            for n in range(per_word):
                element = word[RESULT_BITS * n : RESULT_BITS * (n + 1)]
                with m.If(place == n):
                    m.d.sync += element.eq(Mux(first, later_number, decoder.value))
                with m.Elif(place == 0):
                    m.d.sync += element.eq(0)

        finished = Signal()
        m.d.sync += [
            self.write_enable.eq(Mux(lanes, there & full, self.beat)),
            finished.eq(Mux(lanes, there & last, self.beat & ends)),
        ]
        m.d.comb += self.done.eq(finished)
        with m.If(self.start):
            m.d.sync += [self.write_address.eq(self.dst), place.eq(0)]
        with m.Elif(self.write_enable):
            m.d.sync += self.write_address.eq(self.write_address + 1)
        return m
