"""STORE: one bank of the scratchpad to external memory."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from golden.config import RESULT_BITS, AccelConfig

from ..lib.queue import ReadAhead, StreamQueue
from .axi import Bursts, axi4_write
from .scratchpad import choose_bank

BUFFER_WORDS = 512
"""Words that wait for the bus: as many as block RAM holds that is as wide as they are."""
BUFFER_STORES = 64
"""STOREs that do."""
BUFFER_BURSTS = 16
"""Bursts that wait for their answers."""


class Lane(data.Struct):
    """Which part of each beat is written: all, an element, or a byte; and which of them."""

    elements: 1
    bytes: 1
    number: 7


class Command(data.Struct):
    """A STORE whose words are in the buffer, or on their way to it."""

    address: 32
    count: 16
    lane: Lane
    tag: 32


class StoreData(wiring.Component):
    """Makes beats of the words in the buffer.

    Ports
    -----
    start: ``lane`` and ``count``, the beats, are those of the next STORE
    word, word_valid, pop: what comes next out of the buffer
    take: `data` becomes the next beat, if it is ``ready``
    data, strobes: a beat, and the bytes of it that are meant. Where it is an element or a byte:
        element 0 of the first word, then all of the words that follow, in every lane
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        width = 8 * config.bus_bytes
        super().__init__(
            {
                "start": In(1),
                "lane": In(Lane),
                "count": In(16),
                "word": In(width),
                "word_valid": In(1),
                "pop": Out(1),
                "ready": Out(1),
                "take": In(1),
                "data": Out(width),
                "strobes": Out(config.bus_bytes),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        per_word = config.results_per_word
        lane = Signal(Lane)
        left = Signal(16)
        index = Signal(range(max(2, per_word)))
        whole = Signal()
        used_up = Signal()  # by this beat: its word
        m.d.comb += [self.ready.eq(self.word_valid), self.pop.eq(self.take & used_up)]
        with m.If(self.start):
            m.d.sync += whole.eq(~(self.lane.elements | self.lane.bytes))
            m.d.sync += [lane.eq(self.lane), left.eq(self.count), used_up.eq(1), index.eq(0)]
        with m.Elif(self.take):
            following = Mux(used_up, 0, index + 1)
            ends = following == per_word - 1
            m.d.sync += [left.eq(left - 1), index.eq(following)]
            m.d.sync += used_up.eq(whole | ends | (left == 2))

        element = self.word.word_select(index, RESULT_BITS)
        part = Mux(lane.bytes, element[:8].replicate(RESULT_BITS // 8), element)
        with m.If(self.take):
            m.d.sync += self.data.eq(Mux(whole, self.word, part.replicate(per_word)))
        elements = [lane.number == n // (RESULT_BITS // 8) for n in range(config.bus_bytes)]
        bytes_ = [lane.number == n for n in range(config.bus_bytes)]
        m.d.sync += self.strobes.eq(
            Mux(lane.bytes, Cat(bytes_), Cat(elements)) | whole.replicate(config.bus_bytes)
        )
        return m


class Store(wiring.Component):
    """Writes ``count`` beats from word ``src`` of bank ``column`` to ``address`` on.

    With ``indexed``, a beat is one byte or element of it, by ``shift``: only lane ``lane`` of each
    beat is written, ``bus_bytes >> shift`` bytes wide (see `StoreData`).

    Words go to a buffer, one each cycle as long as it has room, and from there to memory, one beat
    each cycle when that takes them. After ``stop`` the burst under way is finished, as the bus
    demands, and no other is begun.

    Ports
    -----
    start: takes the operands
    done: for one cycle once all words are read: the scratchpad may change, the next may start
    answered: the memory has answered everything: what was stored can be read
    failed: an answer was an error, to what was started with ``failed_tag`` as its ``tag``
    idle: nothing is on its way on the bus
    read_enable, read_address, read_data: the scratchpad, latency 2
    """

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
                "answered": Out(1, init=1),
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
        width = 8 * self.config.bus_bytes
        m.submodules.commands = commands = StreamQueue(Command, BUFFER_STORES)
        m.submodules.words = words = SyncFIFOBuffered(width=width, depth=BUFFER_WORDS)
        m.submodules.bursts = bursts = Bursts(self.config)
        m.submodules.beats = beats = StoreData(self.config)
        reading = self._read(m, commands.i, words)

        m.submodules.ahead = ahead = ReadAhead(width)
        m.d.comb += [
            ahead.r_data.eq(words.r_data),
            ahead.r_rdy.eq(words.r_rdy),
            words.r_en.eq(ahead.r_en),
            ahead.take.eq(beats.pop),
            beats.word.eq(ahead.word),
            beats.word_valid.eq(ahead.valid),
        ]

        # The next STORE, once all of the one before is sent; it waits outside the queue.
        command = Signal(Command)
        waiting = Signal()
        tag = Signal(32)
        sent_all = Signal()
        ready = Signal()
        m.d.sync += ready.eq(~bursts.busy & sent_all & ~bursts.start)
        m.d.comb += commands.o.ready.eq(~waiting)
        with m.If(commands.o.valid & commands.o.ready):
            m.d.sync += [command.eq(commands.o.payload), waiting.eq(1)]
        with m.Elif(bursts.start):
            m.d.sync += waiting.eq(0)
        m.d.comb += [
            bursts.start.eq(waiting & ready),
            bursts.address.eq(command.address),
            bursts.beats.eq(command.count),
            beats.start.eq(bursts.start),
            beats.lane.eq(command.lane),
            beats.count.eq(command.count),
        ]
        with m.If(bursts.start):
            m.d.sync += tag.eq(command.tag)
        sending = self._send(m, bursts, beats, tag)
        pending = Signal(range(BUFFER_STORES + 2))  # not given to the bus
        m.d.sync += pending.eq(pending + self.start - bursts.start)
        m.d.comb += sent_all.eq(~sending & ~self.axi.awvalid)
        m.d.sync += self.answered.eq(self.idle & (pending == 0) & ~bursts.busy & ~reading)
        return m

    def _read(self, m, command, words):
        """Scratchpad to buffer."""
        config = self.config
        lanes = exact_log2(config.results_per_word)
        by_byte = self.shift == exact_log2(config.bus_bytes)
        column = Signal.like(self.column)
        left = Signal(16)
        coming = Signal(4)
        reading = Signal()
        more = Signal()
        room = Signal()
        m.d.comb += [
            command.payload.address.eq(self.address),
            command.payload.count.eq(self.count),
            command.payload.lane.bytes.eq(by_byte),
            command.payload.lane.elements.eq((self.shift != 0) & ~by_byte),
            command.payload.lane.number.eq(self.lane),
            command.payload.tag.eq(self.tag),
            command.valid.eq(self.start),
            self.read_enable.eq(more & room),
            words.w_data.eq(choose_bank(m, self.read_data, column)),
            words.w_en.eq(coming[-1]),
            # The next STORE may come at once.
            self.done.eq(reading & ~more & command.ready),
        ]
        # Five words may be on their way besides.
        m.d.sync += room.eq(words.w_level < BUFFER_WORDS - 5)
        m.d.sync += coming.eq(Cat(self.read_enable, coming))
        with m.If(self.start):
            # The first element has a word of its own.
            following = (self.count + (config.results_per_word - 2)) >> lanes
            m.d.sync += left.eq(Mux(self.shift != 0, following + 1, self.count))
            m.d.sync += [self.read_address.eq(self.src), column.eq(self.column)]
            m.d.sync += [reading.eq(1), more.eq(1)]
        with m.Elif(self.read_enable):
            m.d.sync += [self.read_address.eq(self.read_address + 1), left.eq(left - 1)]
            m.d.sync += more.eq(left != 1)
        with m.If(self.done):
            m.d.sync += reading.eq(0)
        return reading

    def _send(self, m, bursts, beats, tag):
        """Buffer to bus. Gives whether a burst is under way."""
        axi = self.axi
        # Addresses: one burst at a time, its data before the next.
        left = Signal(9)
        sending = Signal()
        begun = Signal()
        m.submodules.tags = tags = SyncFIFO(width=len(tag), depth=BUFFER_BURSTS)
        with m.If(axi.awready):
            m.d.sync += axi.awvalid.eq(0)
        m.d.comb += [
            bursts.o.ready.eq(~sending & ~axi.awvalid & ~self.stop & tags.w_rdy),
            begun.eq(bursts.o.valid & bursts.o.ready),
            tags.w_en.eq(begun),
            tags.w_data.eq(tag),
        ]
        with m.If(begun):
            m.d.sync += [
                axi.awvalid.eq(1),
                axi.awaddr.eq(bursts.o.payload.address),
                axi.awlen.eq(bursts.o.payload.beats - 1),
                left.eq(bursts.o.payload.beats),
                sending.eq(1),
            ]

        sent = Signal()
        fresh = Signal(9)  # beats of this burst still to be taken
        feeding = Signal()  # ... if there are any
        m.d.comb += [
            sent.eq(axi.wvalid & axi.wready),
            axi.wdata.eq(beats.data),
            axi.wstrb.eq(beats.strobes),
            axi.wlast.eq(left == 1),
            beats.take.eq(feeding & (~axi.wvalid | axi.wready) & beats.ready),
        ]
        with m.If(begun):
            m.d.sync += [fresh.eq(bursts.o.payload.beats), feeding.eq(1)]
        with m.If(beats.take):
            m.d.sync += [fresh.eq(fresh - 1), feeding.eq(fresh != 1), axi.wvalid.eq(1)]
        with m.Elif(sent):
            m.d.sync += axi.wvalid.eq(0)
        with m.If(sent):
            m.d.sync += [left.eq(left - 1), sending.eq(~axi.wlast)]

        answered = Signal()
        expecting = Signal()
        with m.If(begun):
            m.d.sync += expecting.eq(1)
        with m.Elif(answered & (tags.level == 1)):
            m.d.sync += expecting.eq(0)
        # A cycle before it can count as answered.
        m.d.sync += [self.failed.eq(answered & axi.bresp[1]), self.failed_tag.eq(tags.r_data)]
        m.d.comb += [
            answered.eq(axi.bvalid & axi.bready),
            tags.r_en.eq(answered),
            self.idle.eq(~sending & ~axi.awvalid & ~expecting),
        ]
        return sending
