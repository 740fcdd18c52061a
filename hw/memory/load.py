"""LOAD: external memory to one bank of the scratchpad."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Shape, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from golden.config import RESULT_BITS, AccelConfig
from golden.format import EXPONENTS, SIGNIFICANDS

from ..lib.instruction import (
    ADDRESS,
    COUNT,
    INDEXED,
    WORD,
    FailureSignature,
    UnitSignature,
    holds,
)
from .axi import Bursts, read_port
from .scratchpad import write_one


class CodeValue(wiring.Component):
    """The integer that an RF8 code stands for (`golden.format.INTEGERS`).

    Ports
    -----
    code (in, 8): An RF8 code.
    value (out, signed 32): Its integer, `latency` cycles later; 0 where the code is invalid.
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


class Outstanding(data.Struct):
    """A LOAD whose beats have yet to come.

    Fields
    ------
    dst (16): Word of the scratchpad for its first beat.
    column (8): Bank to write.
    single (1): High when there is only one beat.
    before_last (16): Index of the last beat but one, where there are more.
    tag (32): Address of the instruction.
    """

    dst: WORD
    column: 8
    single: 1
    before_last: COUNT
    tag: ADDRESS


class Load(wiring.Component):
    """Reads ``count`` beats from ``address`` on and writes them to bank ``column`` of the
    scratchpad, from word ``dst`` on, one beat each cycle.

    Without an index a beat becomes a word. With one, only byte ``lane`` of each beat counts: that
    of the first beat is a number, which becomes the first element of a word of its own; those of
    the others are RF8 codes, whose integers follow as elements, with zeros after the last.

    LOADs without an index are asked for while those before them are still to come, up to `most`.

    Ports
    -----
    run (in, `UnitSignature`): Pulses ``done`` when the last word of all LOADs that were started is
        written.
    ready (out, 1): High when another LOAD without an index may start before this one is done.
    failure (out, `FailureSignature`): The memory flagged the beat of the cycle before.
    memory (out, `read_port`): To the bus.
    write (out, `write_one`): To the scratchpad.
    """

    most = 8

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "run": In(UnitSignature),
                "ready": Out(1),
                "failure": Out(FailureSignature),
                "memory": Out(read_port(config)),
                "write": Out(write_one(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        run, o, memory = self.run, self.run.operands, self.memory
        m.submodules.bursts = bursts = Bursts(self.config)
        connect(m, bursts.o, flipped(memory.request))
        coming = Signal(Outstanding)
        depth = self.most
        m.submodules.queue = queue = SyncFIFO(width=Shape.cast(Outstanding).width, depth=depth)
        head = Outstanding(queue.r_data)
        indexed = Signal()
        lane = Signal(exact_log2(self.config.bus_bytes))
        # Index of the beat in its LOAD, and whether it is the first or the last one. Whether a beat
        # is the last is found a beat ahead.
        number = Signal(COUNT)
        begins = Signal(init=1)
        ends = Signal()
        final = Signal()
        m.d.comb += [
            bursts.start.eq(run.start),
            bursts.address.eq(o.address),
            bursts.beats.eq(o.count),
            coming.dst.eq(o.dst),
            coming.column.eq(o.column[: len(self.write.column)]),
            coming.tag.eq(run.tag),
            coming.single.eq(o.count == 1),
            coming.before_last.eq(o.count - 2),
            queue.w_data.eq(coming),
            queue.w_en.eq(run.start),
            queue.r_en.eq(memory.beat & ends),
            self.ready.eq(queue.w_rdy & ~bursts.busy & ~indexed),
            ends.eq(Mux(begins, head.single, final)),
        ]
        m.d.sync += [
            self.failure.failed.eq(memory.beat & memory.error),
            self.failure.tag.eq(head.tag),
        ]
        with m.If(run.start):
            m.d.sync += [indexed.eq(holds(o.flags, INDEXED)), lane.eq(run.lane)]
        with m.If(memory.beat):
            m.d.sync += number.eq(Mux(ends, 0, number + 1))
            m.d.sync += [begins.eq(ends), final.eq(number == head.before_last)]
        there, full, last = self._fill(m, indexed, lane, begins, ends)
        self._write(m, queue, head, indexed, begins, ends, there, full, last)
        return m

    def _fill(self, m, indexed, lane, begins, ends):
        """The word to write: a beat, or elements one by one.

        Gives, for an indexed LOAD: whether there is an element, whether it fills its word, and
        whether it is the last of all.
        """
        memory, word = self.memory, self.write.data
        m.submodules.decoder = decoder = CodeValue()
        # The byte of the lane, a cycle later its value, and beside them three bits: whether there
        # is one, whether it is the first, whether it is the last.
        stages = Cat(memory.beat & indexed, begins, ends)
        code = Signal(8)
        late_code = Signal(8)
        m.d.sync += [code.eq(memory.data.word_select(lane, 8)), late_code.eq(code)]
        m.d.comb += decoder.code.eq(code)
        for stage in range(1 + CodeValue.latency):
            later = Signal(3, name=f"stage{stage}")
            m.d.sync += later.eq(stages)
            stages = later
        there, first, last = stages  # the three bits of the last stage
        value = Signal(signed(8))
        m.d.sync += value.eq(late_code)

        per_word = self.config.results_per_word
        place = Signal(range(max(2, per_word)))
        full = Signal()
        m.d.comb += full.eq(first | last | (place == per_word - 1))
        with m.If(~indexed):
            m.d.sync += word.eq(memory.data)
        with m.Elif(there):
            m.d.sync += place.eq(Mux(full, 0, place + 1))
            for n in range(per_word):
                element = word[RESULT_BITS * n : RESULT_BITS * (n + 1)]
                with m.If(place == n):
                    m.d.sync += element.eq(Mux(first, value, decoder.value))
                with m.Elif(place == 0):
                    m.d.sync += element.eq(0)
        with m.If(self.run.start):
            m.d.sync += place.eq(0)
        return there, full, last

    def _write(self, m, queue, head, indexed, begins, ends, there, full, last) -> None:
        """Where words go: an indexed LOAD is alone, and its late words follow the place of the
        first; else a word comes with each beat."""
        beat, write = self.memory.beat, self.write
        finished = Signal()
        m.d.sync += [
            write.enable.eq(Mux(indexed, there & full, beat)),
            finished.eq(Mux(indexed, there & last, beat & ends)),
        ]
        m.d.comb += self.run.done.eq(finished & ~queue.r_rdy)
        with m.If(beat & begins):
            m.d.sync += [write.address.eq(head.dst), write.column.eq(head.column)]
        with m.Elif(write.enable):
            m.d.sync += write.address.eq(write.address + 1)
