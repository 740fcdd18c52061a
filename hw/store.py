"""STORE: one bank of the scratchpad to external memory."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from golden.config import RESULT_BITS, AccelConfig

from .axi import Bursts, axi4_write


class Lane(data.Struct):
    """Which part of each beat is written: all, an element, or a byte; and which of them."""

    elements: 1
    bytes: 1
    number: 7


class StoreData(wiring.Component):
    """What a STORE sends, beat by beat.

    The bank is read ahead, and past the end. The first beat may be taken `latency` cycles after
    ``start``.

    Ports
    -----
    start: takes ``src``, ``column``, ``lane``
    take: `data` becomes the next beat
    data, strobes: a beat, and the bytes of it that are meant. Where it is an element or a byte:
        element 0 of the first word, then all of the words that follow, in every lane
    read_enable, read_address, read_data: the scratchpad, latency 1
    """

    latency = 3

    def __init__(self, config: AccelConfig):
        self.config = config
        width = 8 * config.bus_bytes
        super().__init__(
            {
                "start": In(1),
                "src": In(16),
                "column": In(range(max(2, config.cols))),
                "lane": In(Lane),
                "take": In(1),
                "data": Out(width),
                "strobes": Out(config.bus_bytes),
                "read_enable": Out(1),
                "read_address": Out(range(config.scratch_words)),
                "read_data": In(width).array(config.cols),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        per_word = config.results_per_word
        column, lane = Signal.like(self.column), Signal(Lane)

        # Two words are there ahead: one in a register, one on the read port.
        first, second = Signal(), Signal()
        word = Signal(8 * config.bus_bytes, reset_less=True)
        index, begins = Signal(range(max(2, per_word))), Signal()
        turn = Signal()
        whole = ~(lane.elements | lane.bytes)
        m.d.comb += [
            turn.eq(second | (self.take & (whole | begins | (index == per_word - 1)))),
            self.read_enable.eq(first | turn),
        ]
        m.d.sync += [first.eq(self.start), second.eq(first)]
        with m.If(turn):
            m.d.sync += word.eq(Array(self.read_data)[column])
        with m.If(self.start):
            m.d.sync += [self.read_address.eq(self.src), column.eq(self.column)]
            m.d.sync += [lane.eq(self.lane), begins.eq(1), index.eq(0)]
        with m.Elif(self.read_enable):
            m.d.sync += self.read_address.eq(self.read_address + 1)
        with m.If(self.take):
            m.d.sync += [begins.eq(0), index.eq(Mux(turn, 0, index + 1))]

        element = word.word_select(index, RESULT_BITS)
        part = Mux(lane.bytes, element[:8].replicate(RESULT_BITS // 8), element)
        with m.If(self.take):
            m.d.sync += self.data.eq(Mux(whole, word, part.replicate(per_word)))
        elements = [lane.number == n // (RESULT_BITS // 8) for n in range(config.bus_bytes)]
        bytes_ = [lane.number == n for n in range(config.bus_bytes)]
        m.d.sync += self.strobes.eq(
            Mux(lane.bytes, Cat(bytes_), Cat(elements)) | whole.replicate(config.bus_bytes)
        )
        return m


class Storer(wiring.Component):
    """Writes ``count`` beats from word ``src`` of bank ``column`` to ``address`` on.

    With ``indexed``, a beat is one byte or element of it, by ``shift``: only lane ``lane`` of each
    beat is written, ``bus_bytes >> shift`` bytes wide (see `StoreData`).

    One beat each cycle when the memory takes them. ``start`` takes the operands; ``done`` is high
    for one cycle once all data is sent, and the next may start. ``idle`` says that the memory has
    answered all bursts: what was stored can be read. ``failed``: an answer was an error, to the
    instruction that was started with ``failed_tag`` as its ``tag``. After ``stop`` the burst under
    way is finished, as the bus demands, and no other is begun.
    """

    most_bursts = 16
    """That wait for their answers."""

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "address": In(config.addr_bits),
                "count": In(16),
                "src": In(16),
                "column": In(range(max(2, config.cols))),
                "shift": In(8),
                "lane": In(7),
                "tag": In(32),
                "done": Out(1),
                "failed": Out(1),
                "failed_tag": Out(32),
                "stop": In(1),
                "idle": Out(1),
                "read_enable": Out(1),
                "read_address": Out(range(config.scratch_words)),
                "read_data": In(8 * config.bus_bytes).array(config.cols),
                "axi": Out(wiring.Signature(axi4_write(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, axi = self.config, self.axi
        m.submodules.bursts = bursts = Bursts(config)
        m.submodules.words = words = StoreData(config)
        by_byte = self.shift == exact_log2(config.bus_bytes)
        m.d.comb += [
            bursts.start.eq(self.start),
            bursts.address.eq(self.address),
            bursts.beats.eq(self.count),
            words.start.eq(self.start),
            words.src.eq(self.src),
            words.column.eq(self.column),
            words.lane.bytes.eq(by_byte),
            words.lane.elements.eq((self.shift != 0) & ~by_byte),
            words.lane.number.eq(self.lane),
            *(words.read_data[c].eq(self.read_data[c]) for c in range(config.cols)),
            self.read_enable.eq(words.read_enable),
            self.read_address.eq(words.read_address),
        ]

        # Addresses: one burst at a time, its data before the next.
        left, tag = Signal(9), Signal.like(self.tag)
        m.submodules.tags = tags = SyncFIFO(width=len(tag), depth=self.most_bursts)
        with m.If(axi.awready):
            m.d.sync += axi.awvalid.eq(0)
        m.d.comb += bursts.o.ready.eq((left == 0) & ~axi.awvalid & ~self.stop & tags.w_rdy)
        begun = Signal()
        m.d.comb += [
            begun.eq(bursts.o.valid & bursts.o.ready),
            tags.w_en.eq(begun),
            tags.w_data.eq(tag),
        ]
        with m.If(self.start):
            m.d.sync += tag.eq(self.tag)
        with m.If(begun):
            m.d.sync += [
                axi.awvalid.eq(1),
                axi.awaddr.eq(bursts.o.payload.address),
                axi.awlen.eq(bursts.o.payload.beats - 1),
                left.eq(bursts.o.payload.beats),
            ]

        # Data. A burst begins no sooner than the first beat is there.
        assert StoreData.latency <= 1 + Bursts.latency
        sent = Signal()
        fresh = Signal(9)  # beats of this burst still to be taken
        m.d.comb += [
            sent.eq(axi.wvalid & axi.wready),
            axi.wdata.eq(words.data),
            axi.wstrb.eq(words.strobes),
            axi.wlast.eq(left == 1),
            words.take.eq((fresh != 0) & (~axi.wvalid | axi.wready)),
        ]
        with m.If(begun):
            m.d.sync += fresh.eq(bursts.o.payload.beats)
        with m.If(words.take):
            m.d.sync += [fresh.eq(fresh - 1), axi.wvalid.eq(1)]
        with m.Elif(sent):
            m.d.sync += axi.wvalid.eq(0)
        with m.If(sent):
            m.d.sync += left.eq(left - 1)

        # Answers.
        answered, busy, sent_all = Signal(), Signal(), Signal()
        m.d.comb += [
            answered.eq(axi.bvalid & axi.bready),
            tags.r_en.eq(answered),
            self.failed.eq(answered & axi.bresp[1]),
            self.failed_tag.eq(tags.r_data),
            sent_all.eq((left == 0) & ~axi.awvalid),
            self.idle.eq(sent_all & ~tags.r_rdy),
            self.done.eq(busy & sent_all & ~bursts.busy),
        ]
        with m.If(self.start):
            m.d.sync += busy.eq(1)
        with m.Elif(self.done):
            m.d.sync += busy.eq(0)
        return m
