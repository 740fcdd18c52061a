"""The vector unit: runs VECTOR instructions on the scratchpad."""

from functools import reduce
from itertools import pairwise
from operator import or_

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from golden.config import RESULT_BITS, AccelConfig
from golden.isa import SEGMENTS

from ..lib.adders import count_ones
from ..lib.instruction import POSITION_BITS, UnitSignature
from ..memory.scratchpad import bank_read, choose_bank, write_same
from .decoder import REGISTERS, WAITING, VectorDecoder, sideband
from .finish import VectorFinish
from .lane.lane import VectorLane
from .reader import VectorReader
from .reduce import VectorReduce, reduce_latency
from .settings import VectorSettings
from .tables import VectorTables
from .writer import VectorWriter

ELEMENTS_AT = 5
"""Cycles from a word's address to the cycle in which lanes have its elements."""


class VectorUnit(wiring.Component):
    """`golden.vector.execute`.

    Words go through a pipeline: address, word (2), three registers, lanes, then writer and sums.
    Columns and segments follow each other in it. At the end of a segment the scalar unit may have
    work to do; that overlaps with the next segment up to its last word.

    A segment takes 3 cycles, or one more while registers are being written, and one for each word
    that is read: one, two or, in ROTATE, four for a word of results. From its last address to the
    end of its sums are `drain` cycles, then come the cycles of `ScalarUnit` and one for a header,
    which waits for a cycle in which no other word is written. Where a division, a root, or both a
    register and a header are to come, the next segment's last word waits for them; where a register
    alone, it waits until it is `hw.vector.finish.SPACING` cycles behind. Before the first segment
    are 3 cycles; in ROTATE one more each time that the repeated words fit between the words of a
    pair.

    Ports
    -----
    run (in, `UnitSignature`): Pulses ``done`` when the last register has been written, and the last
        word given to the scratchpad.
    position (in, 24): Position of the token in column 0; constant until done.
    read (out, `bank_read`): Words of the scratchpad, two cycles after they are asked for.
    write (out, `write_same`): To the scratchpad.
    saturated (out, log2(results_per_word + 1)): How many elements of a word of results saturated to
        32 bits, a cycle after the word; that of the last one before ``done``.
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        self.drain = ELEMENTS_AT + VectorLane.latency + reduce_latency(config)
        assert self.drain <= 4 * (WAITING - 1)
        super().__init__(
            {
                "run": In(UnitSignature),
                "position": In(POSITION_BITS),
                "read": Out(bank_read(config)),
                "write": Out(write_same(config)),
                "saturated": Out(range(config.results_per_word + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        parts = {
            "decoder": VectorDecoder(config),
            "reader": VectorReader(config),
            "settings": VectorSettings(),
            "sums": VectorReduce(config),
            "writer": VectorWriter(config),
            "finish": VectorFinish(config),
        }
        for name, part in parts.items():
            m.submodules[name] = part
        decoder, reader, settings = (parts[n] for n in ("decoder", "reader", "settings"))
        sums, writer, finish = (parts[n] for n in ("sums", "writer", "finish"))
        for part in (decoder, reader, settings, writer, finish):
            m.d.comb += part.operands.eq(self.run.operands)
        for part in (reader, settings, writer, finish):
            m.d.comb += part.control.eq(decoder.control)
        for part in (reader, writer, finish):
            m.d.comb += part.start.eq(self.run.start)

        sidebands = self._sidebands(m, reader.sideband)
        lanes = self._lanes(m, sidebands, reader.bank, decoder.control, settings.settings)
        for n, lane in enumerate(lanes):
            m.d.comb += [
                writer.y[n].eq(lane.y),
                sums.y[n].eq(lane.y),
            ]
        saturated = count_ones(lane.saturated for lane in lanes)
        m.d.sync += self.saturated.eq(Mux(sidebands[-1].valid, saturated, 0))
        self._registers(m, reader, settings, finish)
        m.d.comb += [
            reader.position.eq(self.position),
            reader.pending.eq(finish.pending),
            self.read.enable.eq(reader.read_enable),
            self.read.address.eq(reader.read_address),
            settings.place.eq(reader.place),
            settings.take.eq(reader.take),
            settings.hand.eq(sidebands[ELEMENTS_AT - 1].step & sidebands[ELEMENTS_AT - 1].first),
            writer.sideband.eq(sidebands[-1]),
            sums.sideband.eq(sidebands[-1]),
            finish.leave.eq(reader.leave),
            finish.before.eq(settings.taken),
            finish.count.eq(reader.count),
            # So registers are never read in the cycle that writes them (`hw.verilog.APART`).
            reader.busy.eq(finish.set | finish.end),
            *(getattr(finish, n).eq(getattr(sums, n)) for n in ("end", "sum", "peak", "top")),
            writer.header.eq(finish.header),
            writer.exponent.eq(finish.exponent),
            writer.end.eq(sums.end),
            writer.top.eq(sums.top),
            writer.where.eq(sums.where),
            finish.taken.eq(writer.taken),
            self.write.enable.eq(writer.write_enable),
            self.write.address.eq(writer.write_address),
            self.write.data.eq(writer.write_data),
            self.run.done.eq(finish.done),
        ]
        return m

    def _sidebands(self, m, first):
        """The sideband of each cycle from a word's address to its results."""
        sidebands = [first]
        for number in range(1, ELEMENTS_AT + VectorLane.latency + 1):
            sidebands.append(Signal(sideband(self.config), name=f"sideband{number}"))
        for before, after in pairwise(sidebands):
            m.d.sync += after.eq(before)
        return sidebands

    def _lanes(self, m, sidebands, bank, control, settings):
        """Lanes, and the registers in which the words of a and b meet."""
        config = self.config
        count = config.results_per_word
        width = 8 * config.bus_bytes
        word = Signal(width, reset_less=True)
        later = choose_bank(m, self.read.data, bank)
        m.d.sync += word.eq(later)
        elements = [word.word_select(n, RESULT_BITS) for n in range(count)]
        product = ELEMENTS_AT + VectorLane.product_at
        here = sidebands[ELEMENTS_AT]
        lanes = []
        # ROTATE: the distance in lanes to the element that this one is turned with, if both are in
        # the same word.
        turned = control.rotate & here.second
        inner = Signal(exact_log2(count))
        m.d.comb += inner.eq(self.run.operands.k & turned.replicate(len(inner)))
        for n in range(count):
            m.submodules[f"lane{n}"] = lane = VectorLane(config)
            lanes.append(lane)
            a = Signal(signed(RESULT_BITS), name=f"a{n}")
            near = [n ^ 1 << bit for bit in range(len(inner))]
            terms = [elements[n] & (~inner.any()).replicate(RESULT_BITS)]
            for bit, other in enumerate(near):
                terms.append(elements[other] & inner[bit].replicate(RESULT_BITS))
            m.d.comb += a.eq(reduce(or_, terms))
            m.d.comb += [
                lane.a.eq(a),
                lane.b.eq(later.word_select(n, RESULT_BITS)),
                lane.control.eq(control),
                lane.settings.eq(settings),
                lane.step.eq(sidebands[product].step),
                lane.second.eq(sidebands[product].second),
                lane.keep.eq(sidebands[-2].mask[n]),
            ]
        m.submodules.tables = tables = VectorTables(count)
        for port, lane in enumerate(lanes):
            m.d.comb += [
                tables.address[port].eq(lane.address),
                lane.entry.eq(tables.entry[port]),
                lane.extra.eq(tables.extra[port]),
            ]
        return lanes

    def _registers(self, m, reader, settings, finish):
        """What instructions leave for later ones, for each column and segment."""
        depth = self.config.cols * SEGMENTS
        m.submodules.registers = kept = memory.Memory(shape=REGISTERS, depth=depth, init=[])
        m.submodules.tops = tops = memory.Memory(shape=signed(RESULT_BITS), depth=depth, init=[])
        for store, value, enable, target in (
            (kept, finish.registers, finish.set, settings.registers),
            (tops, finish.top, finish.end, settings.top),
        ):
            read, write = store.read_port(), store.write_port()
            m.d.comb += [
                read.addr.eq(Cat(reader.segment, reader.column)),
                read.en.eq(reader.load),
                target.eq(read.data),
                write.addr.eq(Cat(finish.segment, finish.column)),
                write.data.eq(value),
                write.en.eq(enable),
            ]
