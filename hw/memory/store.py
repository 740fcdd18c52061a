"""STORE: one bank of the scratchpad to external memory."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from golden.config import RESULT_BITS, AccelConfig

from ..lib.instruction import ADDRESS, COUNT, LANE_BITS, FailureSignature, UnitSignature
from ..lib.queue import ReadAhead, StreamQueue
from .axi import Bursts, axi4_write
from .scratchpad import bank_read, choose_bank

BUFFER_WORDS = 512
"""Words that the buffer before the bus holds: as many as one block RAM of their width."""
BUFFER_STORES = 64
"""STOREs whose words may wait in the buffer."""
BUFFER_BURSTS = 16
"""Bursts that may wait for their answers."""
READS_ON_THEIR_WAY = 5
"""Words that can still come after the buffer was found to have room."""


class Lane(data.Struct):
    """Which part of each beat a STORE writes; all of it where neither bit is set.

    Fields
    ------
    elements (1): One int32 element of each beat.
    bytes (1): One byte of each beat.
    number (7): Which byte of the beat, or which element.
    """

    elements: 1
    bytes: 1
    number: LANE_BITS


class Command(data.Struct):
    """A STORE whose words are in the buffer, or on their way to it.

    Fields
    ------
    address (32): Byte address of its first beat.
    count (16): Number of its beats.
    lane (`Lane`): What it writes of each beat.
    tag (32): Address of the instruction.
    """

    address: ADDRESS
    count: COUNT
    lane: Lane
    tag: ADDRESS


class StoreData(wiring.Component):
    """Makes the beats of a STORE of the words in the buffer.

    A STORE of whole beats sends word after word. One of elements or bytes sends element 0 of the
    first word, then every element of the words that follow, one in each beat, repeated over the
    whole beat; the strobes choose the lane.

    Ports
    -----
    start (in, 1): Pulses when ``lane`` and ``count`` are those of the next STORE.
    lane (in, `Lane`): What it writes of each beat.
    count (in, 16): Number of its beats.
    word (in, 8 * bus_bytes): The next word of the buffer.
    word_valid (in, 1): High when there is one.
    pop (out, 1): Pulses when ``word`` is used up.
    ready (out, 1): High when a beat can be made.
    take (in, 1): Pulses, while ``ready`` is high, to make the next beat.
    data (out, 8 * bus_bytes): The beat, from the cycle after ``take`` until the next one.
    strobes (out, bus_bytes): A bit for each byte of ``data``: high when memory is to take it.
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        width = 8 * config.bus_bytes
        super().__init__(
            {
                "start": In(1),
                "lane": In(Lane),
                "count": In(COUNT),
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
        left = Signal(COUNT)
        index = Signal(range(max(2, per_word)))
        whole = Signal()
        used_up = Signal()  # this beat is the last one that its word gives
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
    """Writes ``count`` beats from word ``src`` of bank ``column`` on to ``address`` on.

    With a shift, only part of each beat is written: the byte or element ``lane`` (see
    `StoreData`).

    Words go to a buffer, one each cycle as long as it has room, and from there to memory, one beat
    each cycle when that takes them.

    Ports
    -----
    run (in, `UnitSignature`): Pulses ``done`` when all words are read: the scratchpad may change,
        and the next STORE may start. They may still be on their way to memory.
    answered (out, 1): High when memory has answered all that was stored, so that it can be read.
    failure (out, `FailureSignature`): The memory answered a burst with an error.
    stop (in, 1): High: begin no other burst. The one under way is finished, as the bus demands.
    idle (out, 1): High when nothing is on its way on the bus.
    read (out, `bank_read`): Words of the scratchpad, two cycles after they are asked for.
    axi (out, `axi4_write`): The write channels of the bus.
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "run": In(UnitSignature),
                "answered": Out(1, init=1),
                "failure": Out(FailureSignature),
                "stop": In(1),
                "idle": Out(1),
                "read": Out(bank_read(config)),
                "axi": Out(axi4_write(config)),
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

        # The next STORE waits here, outside the queue, until all of the one before is sent.
        command = Signal(Command)
        waiting = Signal()
        tag = Signal(ADDRESS)
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
        pending = Signal(range(BUFFER_STORES + 2))  # STOREs whose bursts have not begun
        m.d.sync += pending.eq(pending + self.run.start - bursts.start)
        m.d.comb += sent_all.eq(~sending & ~self.axi.awvalid)
        m.d.sync += self.answered.eq(self.idle & (pending == 0) & ~bursts.busy & ~reading)
        return m

    def _read(self, m, command, words):
        """Scratchpad to buffer. Gives whether words are yet to be read."""
        config, o, read = self.config, self.run.operands, self.read
        lanes = exact_log2(config.results_per_word)
        by_byte = o.shift == exact_log2(config.bus_bytes)
        column = Signal(range(max(2, config.cols)))
        left = Signal(COUNT)
        coming = Signal(4)
        reading = Signal()
        more = Signal()
        room = Signal()
        m.d.comb += [
            command.payload.address.eq(o.address),
            command.payload.count.eq(o.count),
            command.payload.lane.bytes.eq(by_byte),
            command.payload.lane.elements.eq((o.shift != 0) & ~by_byte),
            command.payload.lane.number.eq(self.run.lane),
            command.payload.tag.eq(self.run.tag),
            command.valid.eq(self.run.start),
            read.enable.eq(more & room),
            words.w_data.eq(choose_bank(m, read.data, column)),
            words.w_en.eq(coming[-1]),
            # `done` only when there is room for the next STORE, which may start at once.
            self.run.done.eq(reading & ~more & command.ready),
        ]
        m.d.sync += room.eq(words.w_level < BUFFER_WORDS - READS_ON_THEIR_WAY)
        m.d.sync += coming.eq(Cat(read.enable, coming))
        with m.If(self.run.start):
            # With a shift, the first element has a word of its own.
            following = (o.count + (config.results_per_word - 2)) >> lanes
            m.d.sync += left.eq(Mux(o.shift != 0, following + 1, o.count))
            m.d.sync += [read.address.eq(o.src), column.eq(o.column)]
            m.d.sync += [reading.eq(1), more.eq(1)]
        with m.Elif(read.enable):
            m.d.sync += [read.address.eq(read.address + 1), left.eq(left - 1)]
            m.d.sync += more.eq(left != 1)
        with m.If(self.run.done):
            m.d.sync += reading.eq(0)
        return reading

    def _send(self, m, bursts, beats, tag):
        """Buffer to bus. Gives whether a burst is under way."""
        axi = self.axi
        # One burst at a time: its address, then all its data, before the next address.
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
        feeding = Signal()  # whether `fresh` is above 0
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
        # Errors show a cycle before `answered` can rise.
        m.d.sync += [
            self.failure.failed.eq(answered & axi.bresp[1]),
            self.failure.tag.eq(tags.r_data),
        ]
        m.d.comb += [
            answered.eq(axi.bvalid & axi.bready),
            tags.r_en.eq(answered),
            self.idle.eq(~sending & ~axi.awvalid & ~expecting),
        ]
        return sending
