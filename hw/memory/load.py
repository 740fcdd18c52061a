"""LOAD: external memory to one bank of the scratchpad."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Shape, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from golden.config import RESULT_BITS, AccelConfig
from golden.format import EXPONENTS, SIGNIFICANDS

from .axi import Burst, Bursts


class CodeValue(wiring.Component):
    """The integer that an RF8 code stands for (`golden.format.INTEGERS`): 0 where it is invalid.

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
        magnitude = Signal(bits + EXPONENTS - 1)
        negative = Signal()
        m.d.sync += [
            magnitude.eq(Mux(code[:7] == 0, 0, table[code[:3]] << code[3:7])),
            negative.eq(code[7]),
            self.value.eq(Mux(negative, -magnitude, magnitude)),
        ]
        return m


class Coming(data.Struct):
    """A LOAD whose beats are to come: where they go, whether there is but one, else the number of
    the last but one, and whose they are."""

    dst: 16
    column: 8
    single: 1
    before_last: 16
    tag: 32


class Load(wiring.Component):
    """Reads ``count`` beats from ``address`` on and writes them from word ``dst`` of bank
    ``column`` on.

    With ``lanes`` it is the byte ``lane`` of each beat that counts. The first is a number, which
    becomes the first element of a word of its own; the others are RF8 codes, whose integers follow
    as elements, with zeros after the last.

    ``start`` takes the operands. One beat each cycle; LOADs without lanes are asked for while those
    before them are still to come, up to `most`.

    Ports
    -----
    ready: another LOAD without lanes may start before this one is done
    done: the last word of all that were started is written, for one cycle
    failed: the memory flagged the beat before, of the LOAD that was started with ``failed_tag`` as
        its ``tag``
    """

    most = 8

    def __init__(self, config: AccelConfig):
        self.config = config
        width = 8 * config.bus_bytes
        super().__init__(
            {
                "start": In(1),
                "address": In(config.addr_bits),
                "count": In(16),
                "dst": In(16),
                "column": In(range(max(2, config.cols))),
                "lanes": In(1),
                "lane": In(exact_log2(config.bus_bytes)),
                "tag": In(32),
                "ready": Out(1),
                "done": Out(1),
                "failed": Out(1),
                "failed_tag": Out(32),
                "request": Out(stream.Signature(Burst)),
                "beat": In(1),
                "data": In(width),
                "error": In(1),
                "write_enable": Out(1),
                "write_column": Out(range(max(2, config.cols))),
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
        coming = Signal(Coming)
        m.submodules.queue = queue = SyncFIFO(width=Shape.cast(Coming).width, depth=self.most)
        head = Coming(queue.r_data)
        lanes = Signal()
        lane = Signal.like(self.lane)
        # Of the beat, in its LOAD; whether it is the last is known a beat ahead.
        number = Signal(16)
        begins = Signal(init=1)
        ends = Signal()
        final = Signal()
        m.d.comb += [
            bursts.start.eq(self.start),
            bursts.address.eq(self.address),
            bursts.beats.eq(self.count),
            *(coming[name].eq(getattr(self, name)) for name in ("dst", "column", "tag")),
            coming.single.eq(self.count == 1),
            coming.before_last.eq(self.count - 2),
            queue.w_data.eq(coming),
            queue.w_en.eq(self.start),
            queue.r_en.eq(self.beat & ends),
            self.ready.eq(queue.w_rdy & ~bursts.busy & ~lanes),
            ends.eq(Mux(begins, head.single, final)),
        ]
        m.d.sync += [self.failed.eq(self.beat & self.error), self.failed_tag.eq(head.tag)]
        with m.If(self.start):
            m.d.sync += [lanes.eq(self.lanes), lane.eq(self.lane)]
        with m.If(self.beat):
            m.d.sync += number.eq(Mux(ends, 0, number + 1))
            m.d.sync += [begins.eq(ends), final.eq(number == head.before_last)]

        # Lanes: a byte, its value, and where it goes. What comes with it: is it there, the first,
        # the last?
        stages = Cat(self.beat & lanes, begins, ends)
        code = Signal(8)
        late_code = Signal(8)
        m.d.sync += [code.eq(self.data.word_select(lane, 8)), late_code.eq(code)]
        m.d.comb += decoder.code.eq(code)
        for stage in range(1 + CodeValue.latency):
            later = Signal(3, name=f"stage{stage}")
            m.d.sync += later.eq(stages)
            stages = later
        there, first, last = stages  # bit by bit
        value = Signal(signed(8))
        m.d.sync += value.eq(late_code)

        per_word = config.results_per_word
        word = self.write_data
        place = Signal(range(max(2, per_word)))
        full = Signal()
        m.d.comb += full.eq(first | last | (place == per_word - 1))
        with m.If(~lanes):
            m.d.sync += word.eq(self.data)
        with m.Elif(there):
            m.d.sync += place.eq(Mux(full, 0, place + 1))
            for n in range(per_word):
                element = word[RESULT_BITS * n : RESULT_BITS * (n + 1)]
                with m.If(place == n):
                    m.d.sync += element.eq(Mux(first, value, decoder.value))
                with m.Elif(place == 0):
                    m.d.sync += element.eq(0)

        # Where words go: a LOAD with lanes is alone, and its late words follow the place of the
        # first; else a word comes with each beat.
        finished = Signal()
        m.d.sync += [
            self.write_enable.eq(Mux(lanes, there & full, self.beat)),
            finished.eq(Mux(lanes, there & last, self.beat & ends)),
        ]
        m.d.comb += self.done.eq(finished & ~queue.r_rdy)
        with m.If(self.beat & begins):
            m.d.sync += [self.write_address.eq(head.dst), self.write_column.eq(head.column)]
        with m.Elif(self.write_enable):
            m.d.sync += self.write_address.eq(self.write_address + 1)
        with m.If(self.start):
            m.d.sync += place.eq(0)
        return m
