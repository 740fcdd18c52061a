"""The accelerator: wiring only."""

from amaranth.hdl import Cat, ClockDomain, ClockSignal, DomainRenamer, Module, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect

from golden.config import AccelConfig
from golden.isa import Flag

from .control.entry import Entry
from .control.fetch import InstructionFetch
from .control.host_registers import HostRegisters
from .control.sequencer import UNITS, Sequencer
from .lib.clock_gate import gated
from .lib.instruction import INDEXED, holds
from .lib.queue import StreamQueue
from .matrix.array import Array
from .matrix.matmul import Matmul
from .matrix.writeback import Writeback
from .memory.axi import AXI4_LITE, READ_CLIENTS, ReadManager, axi4_read, axi4_write
from .memory.load import Load
from .memory.scratchpad import Scratchpad
from .memory.store import Store
from .memory.weight_fetch import WeightFetch
from .vector.unit import VectorUnit


class Accelerator(wiring.Component):
    """RF8 accelerator: AXI4 manager ``m_axi_*``, AXI4-Lite subordinate ``s_axi_*``, and ``irq``.

    A reset lasts two cycles at least: that of the units follows a cycle later.
    """

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
        self.control, self.reader = HostRegisters(config), ReadManager(config)
        self.sequencer, self.scratchpad = Sequencer(config), Scratchpad(config)
        for name in ("control", "reader", "sequencer", "scratchpad"):
            m.submodules[name] = getattr(self, name)
        self.units = {
            "fetch": InstructionFetch(config),
            "queue": StreamQueue(Entry, config.queue),
            "weights": WeightFetch(config),
            "load": Load(config),
            "store": Store(config),
            "matmul": Matmul(config),
            "array": Array(config),
            "writeback": Writeback(config),
            "vector": VectorUnit(config),
        }
        # One register resets the units, at power-on as after an error: it goes everywhere.
        clear = self.sequencer.clear
        m.domains += ClockDomain("units", local=True)
        m.d.comb += [ClockSignal("units").eq(ClockSignal()), ResetSignal("units").eq(clear)]
        vector = self.sequencer.start_vector | self.sequencer.running_vector
        for name, unit in self.units.items():
            part = DomainRenamer("units")(unit)
            if name == "vector":
                part = gated(m, name, part, vector | clear, platform, resets="units")
            m.submodules[name] = part
        self._bus(m)
        self._instructions(m)
        self._operands(m)
        self._scratchpad(m)
        self._product(m)
        self._status(m)
        return m

    def _bus(self, m) -> None:
        """Outside: registers, memory. Reads: requests up, beats down."""
        config, control, reader, units = self.config, self.control, self.reader, self.units
        for name, member in AXI4_LITE.items():
            ours, theirs = getattr(self, f"s_axi_{name}"), getattr(control.axi, name)
            m.d.comb += theirs.eq(ours) if member.flow is In else ours.eq(theirs)
        for unit, members in ((reader, axi4_read(config)), (units["store"], axi4_write(config))):
            for name, member in members.items():
                ours, theirs = getattr(self, f"m_axi_{name}"), getattr(unit.axi, name)
                m.d.comb += theirs.eq(ours) if member.flow is In else ours.eq(theirs)
        m.d.comb += self.irq.eq(control.interrupt)
        m.d.comb += reader.stop.eq(self.sequencer.stop)
        for index, name in enumerate(READ_CLIENTS):
            unit = units[name]
            connect(m, unit.request, getattr(reader, f"request_{name}"))
            m.d.comb += [
                unit.beat.eq(reader.beat[index]),
                unit.data.eq(reader.data),
                unit.error.eq(reader.error),
            ]

    def _instructions(self, m) -> None:
        """Host, fetch, queue, sequencer, units."""
        control, sequencer, units = self.control, self.sequencer, self.units
        fetch, queue, weights = units["fetch"], units["queue"], units["weights"]
        connect(m, fetch.entries, queue.i)
        connect(m, queue.o, sequencer.entries)
        connect(m, fetch.weights, weights.descriptor)
        m.d.comb += [
            fetch.start.eq(control.start),
            fetch.program.eq(control.program),
            fetch.position.eq(control.position),
            *(fetch.tokens[c].eq(control.tokens[c]) for c in range(self.config.cols)),
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

    def _operands(self, m) -> None:
        """What each unit needs to know of the instruction under way."""
        sequencer, units = self.sequencer, self.units
        operands, lane = sequencer.operands, sequencer.lane
        load, store, matmul = units["load"], units["store"], units["matmul"]
        array, writeback, vector = units["array"], units["writeback"], units["vector"]
        active = Signal(self.config.cols)  # long before there is a slice
        m.d.sync += active.eq(Cat(operands.column > column for column in range(self.config.cols)))
        m.d.comb += [
            load.address.eq(operands.address),
            load.count.eq(operands.count),
            load.dst.eq(operands.dst),
            load.column.eq(operands.column),
            load.tag.eq(sequencer.address),
            load.lanes.eq(holds(operands.flags, INDEXED)),
            load.lane.eq(lane),
            store.address.eq(operands.address),
            store.count.eq(operands.count),
            store.src.eq(operands.src),
            store.column.eq(operands.column),
            store.shift.eq(operands.shift),
            store.lane.eq(lane),
            store.tag.eq(sequencer.address),
            store.stop.eq(sequencer.stop_stores),
            matmul.k.eq(operands.k),
            matmul.count.eq(operands.count),
            matmul.src.eq(operands.src),
            matmul.bias.eq(operands.flags & Flag.BIAS),
            array.active.eq(active),
            writeback.active.eq(active),
            writeback.shift.eq(operands.shift),
            writeback.start.eq(sequencer.start_matmul),
            writeback.dst.eq(operands.dst),
            writeback.count.eq(operands.count),
            vector.operands.eq(operands),
            vector.position.eq(self.control.position),
        ]

    def _scratchpad(self, m) -> None:
        """Readers and writers of the scratchpad."""
        scratchpad, units = self.scratchpad, self.units
        load, store, matmul = units["load"], units["store"], units["matmul"]
        writeback, vector = units["writeback"], units["vector"]
        m.d.comb += [
            scratchpad.x_enable.eq(matmul.x_enable),
            scratchpad.x_address.eq(matmul.x_address),
            scratchpad.store_enable.eq(store.read_enable),
            scratchpad.store_address.eq(store.read_address),
            scratchpad.vector_enable.eq(vector.read_enable),
            scratchpad.vector_address.eq(vector.read_address),
            scratchpad.load_enable.eq(load.write_enable),
            scratchpad.load_address.eq(load.write_address),
            scratchpad.load_column.eq(load.write_column),
            scratchpad.load_data.eq(load.write_data),
            scratchpad.elements_enable.eq(vector.write_enable),
            scratchpad.elements_address.eq(vector.write_address),
            scratchpad.elements_data.eq(vector.write_data),
            scratchpad.result_enable.eq(writeback.enable),
            scratchpad.result_address.eq(writeback.address),
        ]
        for column in range(self.config.cols):
            m.d.comb += [
                *(
                    port[column].eq(scratchpad.data[column])
                    for port in (matmul.x_word, store.read_data, vector.read_data)
                ),
                scratchpad.result_data[column].eq(writeback.data[column]),
            ]

    def _product(self, m) -> None:
        """The matrix product: weight stream, array, writeback."""
        weights, matmul = self.units["weights"], self.units["matmul"]
        array, writeback = self.units["array"], self.units["writeback"]
        m.d.comb += [
            matmul.weights_next.eq(weights.next_valid),
            matmul.weights_failed.eq(weights.failed),
            weights.ready.eq(matmul.weights_ready),
            weights.end.eq(matmul.weights_end),
            array.valid.eq(matmul.array_valid),
            array.last.eq(matmul.array_last),
            matmul.array_busy.eq(array.busy),
            matmul.array_stays.eq(array.stays),
            matmul.array_hold.eq(array.hold),
            matmul.array_next_hold.eq(array.next_hold),
            matmul.results_idle.eq(array.idle & writeback.idle),
            writeback.header.eq(matmul.header),
            writeback.plane.eq(matmul.plane),
            writeback.bare.eq(matmul.bare),
            writeback.take.eq(matmul.take),
            writeback.valid.eq(array.result_valid),
            writeback.next_row.eq(array.next_row),
        ]
        for row in range(self.config.rows):
            m.d.comb += [
                array.weights[row].eq(weights.slice[row]),
                writeback.slice[row].eq(weights.slice[row]),
            ]
        for column in range(self.config.cols):
            m.d.comb += [
                array.x[column].eq(matmul.x[column]),
                writeback.dot[column].eq(array.result[column]),
                writeback.exponent[column].eq(matmul.exponent[column]),
            ]

    def _status(self, m) -> None:
        """Errors, progress, counters."""
        control, reader, sequencer, units = self.control, self.reader, self.sequencer, self.units
        array, matmul, store, vector = (units[n] for n in ("array", "matmul", "store", "vector"))
        load = units["load"]
        columns = sequencer.operands.column
        m.d.comb += [
            sequencer.invalid_weight.eq(array.invalid),
            sequencer.another_load.eq(load.ready),
            sequencer.another_matmul.eq(matmul.streamed & ~units["writeback"].full),
            sequencer.answered.eq(store.answered),
            sequencer.failed_weight.eq(matmul.failed),
            sequencer.failed_load.eq(load.failed),
            sequencer.load_address.eq(load.failed_tag),
            sequencer.failed_store.eq(store.failed),
            sequencer.store_address.eq(store.failed_tag),
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
                    vector.read_enable | vector.write_enable.any(),
                ).any()
            ),
            control.count_cycles.eq(sequencer.busy),
            *(
                getattr(control, f"count_{unit}").eq(getattr(sequencer, f"running_{unit}"))
                for unit in UNITS.values()
            ),
            control.count_stall_weights.eq(matmul.stall_weights),
            control.count_stall_drain.eq(matmul.stall_drain),
            control.count_slices.eq(array.valid),
            control.count_column_slices.eq(array.valid.replicate(8) & columns),
            control.count_read_weights.eq(reader.beat[READ_CLIENTS.index("weights")]),
            control.count_read_other.eq(reader.beat[:2].any()),
            control.count_written.eq(self.m_axi_wvalid & self.m_axi_wready),
        ]
