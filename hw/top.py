"""The accelerator: wiring only."""

from amaranth.hdl import Cat, Module, ResetInserter
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect

from golden.config import AccelConfig
from golden.isa import Flag

from .array import Array
from .axi import AXI4_LITE, READ_CLIENTS, ReadMaster, axi4_read, axi4_write
from .control import Control
from .fetch import Entry, InstructionFetch
from .load import Loader
from .matmul import MatmulControl
from .queue import StreamQueue
from .scratchpad import Scratchpad
from .sequencer import UNITS, Sequencer
from .store import Storer
from .weight_fetch import WeightFetch
from .writeback import Writeback


class Accelerator(wiring.Component):
    """RF8 accelerator: AXI4 manager ``m_axi_*``, AXI4-Lite subordinate ``s_axi_*``, and ``irq``."""

    def __init__(self, config: AccelConfig):
        self.config = config
        members = {**axi4_read(config), **axi4_write(config)}
        super().__init__(
            {
                **{f"m_axi_{name}": member for name, member in members.items()},
                **{f"s_axi_{name}": member for name, member in AXI4_LITE.items()},
                "irq": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config

        # What the sequencer clears after an error, and what stays.
        m.submodules.control = control = Control(config)
        m.submodules.reader = reader = ReadMaster(config)
        m.submodules.sequencer = sequencer = Sequencer(config)
        units = {
            "fetch": InstructionFetch(config),
            "queue": StreamQueue(Entry, config.queue),
            "weights": WeightFetch(config),
            "load": Loader(config),
            "store": Storer(config),
            "matmul": MatmulControl(config),
            "array": Array(config),
            "writeback": Writeback(config),
        }
        for name, unit in units.items():
            m.submodules[name] = ResetInserter(sequencer.clear)(unit)
        fetch, weights, load, store = (units[n] for n in ("fetch", "weights", "load", "store"))
        matmul, array, writeback = (units[n] for n in ("matmul", "array", "writeback"))
        queue = units["queue"]
        m.submodules.scratchpad = scratchpad = Scratchpad(config)
        operands = sequencer.operands

        # Outside: registers, bus.
        for name, member in AXI4_LITE.items():
            ours, theirs = getattr(self, f"s_axi_{name}"), getattr(control.axi, name)
            m.d.comb += theirs.eq(ours) if member.flow is In else ours.eq(theirs)
        for unit, members in ((reader, axi4_read(config)), (store, axi4_write(config))):
            for name, member in members.items():
                ours, theirs = getattr(self, f"m_axi_{name}"), getattr(unit.axi, name)
                m.d.comb += theirs.eq(ours) if member.flow is In else ours.eq(theirs)
        m.d.comb += self.irq.eq(control.interrupt)

        # Reads: requests up, beats down.
        clients = {"fetch": fetch, "load": load, "weights": weights}
        for index, name in enumerate(READ_CLIENTS):
            connect(m, clients[name].request, getattr(reader, f"request_{name}"))
            m.d.comb += [
                clients[name].beat.eq(reader.beat[index]),
                clients[name].error.eq(reader.error),
            ]
        m.d.comb += [
            reader.stop.eq(sequencer.stop),
            fetch.data.eq(reader.data),
            weights.data.eq(reader.data),
        ]

        # Instructions: fetch, queue, sequencer, units.
        connect(m, fetch.entries, queue.i)
        connect(m, queue.o, sequencer.entries)
        connect(m, fetch.weights, weights.descriptor)
        m.d.comb += [
            fetch.start.eq(control.start),
            fetch.program.eq(control.program),
            fetch.quiet.eq(sequencer.quiet),
            fetch.stop.eq(sequencer.stop),
            sequencer.start.eq(control.start),
            sequencer.abort.eq(control.abort & control.busy),
            sequencer.program.eq(control.program),
            sequencer.watchdog.eq(control.watchdog),
            control.busy.eq(sequencer.busy),
            control.finished.eq(sequencer.finished),
            control.error.eq(sequencer.error),
            control.error_address.eq(sequencer.error_address),
        ]
        for name in UNITS.values():
            m.d.comb += [
                units[name].start.eq(getattr(sequencer, f"start_{name}")),
                getattr(sequencer, f"done_{name}").eq(units[name].done),
            ]
        m.d.comb += [
            load.address.eq(operands.address),
            load.count.eq(operands.count),
            load.dst.eq(operands.dst),
            store.address.eq(operands.address),
            store.count.eq(operands.count),
            store.src.eq(operands.src),
            store.column.eq(operands.column),
            store.stop.eq(sequencer.stop),
            matmul.k.eq(operands.k),
            matmul.count.eq(operands.count),
            matmul.src.eq(operands.src),
            matmul.bias.eq(operands.flags & Flag.BIAS),
        ]

        # Scratchpad.
        m.d.comb += [
            scratchpad.x_enable.eq(matmul.x_enable),
            scratchpad.x_address.eq(matmul.x_address),
            scratchpad.store_enable.eq(store.read_enable),
            scratchpad.store_address.eq(store.read_address),
            scratchpad.load_enable.eq(load.write_enable),
            scratchpad.load_address.eq(load.write_address),
            scratchpad.load_column.eq(operands.column),
            scratchpad.load_data.eq(reader.data),
            scratchpad.result_enable.eq(writeback.enable),
            scratchpad.result_address.eq(writeback.address),
        ]
        active = [operands.column > column for column in range(config.cols)]
        m.d.comb += [array.active.eq(Cat(active)), writeback.active.eq(Cat(active))]
        for column in range(config.cols):
            m.d.comb += [
                matmul.x_word[column].eq(scratchpad.data[column]),
                store.read_data[column].eq(scratchpad.data[column]),
                scratchpad.result_data[column].eq(writeback.data[column]),
                array.x[column].eq(matmul.x[column]),
                writeback.dot[column].eq(array.result[column]),
                writeback.exponent[column].eq(matmul.exponent[column]),
            ]

        # Matrix product: weight stream, array, writeback.
        m.d.comb += [
            matmul.weights_valid.eq(weights.valid),
            matmul.weights_failed.eq(weights.failed),
            weights.ready.eq(matmul.weights_ready),
            weights.end.eq(matmul.weights_end),
            array.valid.eq(matmul.array_valid),
            array.last.eq(matmul.array_last),
            matmul.array_busy.eq(array.busy),
            matmul.array_hold.eq(array.hold),
            matmul.results_idle.eq(array.idle & writeback.idle),
            writeback.header.eq(matmul.header),
            writeback.plane.eq(matmul.plane),
            writeback.bare.eq(matmul.bare),
            writeback.take.eq(matmul.take),
            writeback.shift.eq(operands.shift),
            writeback.valid.eq(array.result_valid),
            writeback.row.eq(array.result_row),
            writeback.start.eq(sequencer.start_matmul),
            writeback.dst.eq(operands.dst),
        ]
        for row in range(config.rows):
            m.d.comb += [
                array.weights[row].eq(weights.slice[row]),
                writeback.slice[row].eq(weights.slice[row]),
            ]

        # Errors, progress, counters.
        m.d.comb += [
            sequencer.invalid_weight.eq(array.invalid),
            sequencer.failed_read.eq(matmul.failed | load.failed),
            sequencer.failed_write.eq(store.failed),
            sequencer.bus_idle.eq(reader.idle & store.idle),
            sequencer.progress.eq(
                Cat(
                    self.m_axi_arvalid & self.m_axi_arready,
                    self.m_axi_rvalid,
                    self.m_axi_awvalid & self.m_axi_awready,
                    self.m_axi_wvalid & self.m_axi_wready,
                    self.m_axi_bvalid,
                    array.valid | matmul.header,
                    array.result_valid,
                ).any()
            ),
            control.count_cycles.eq(sequencer.busy),
            control.count_matmul.eq(sequencer.running_matmul),
            control.count_load.eq(sequencer.running_load),
            control.count_store.eq(sequencer.running_store),
            control.count_stall_weights.eq(matmul.stall_weights),
            control.count_stall_drain.eq(matmul.stall_drain),
            control.count_slices.eq(array.valid),
            control.count_column_slices.eq(array.valid.replicate(8) & operands.column),
            control.count_read_weights.eq(reader.beat[READ_CLIENTS.index("weights")]),
            control.count_read_other.eq(reader.beat[:2].any()),
            control.count_written.eq(self.m_axi_wvalid & self.m_axi_wready),
        ]
        return m
