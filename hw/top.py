"""The accelerator: wiring only."""

from amaranth.hdl import Cat, ClockDomain, ClockSignal, DomainRenamer, Module, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect

from golden.config import AccelConfig

from .control.entry import Entry
from .control.fetch import InstructionFetch
from .control.host_registers import HostRegisters
from .control.sequencer import Sequencer
from .lib.clock_gate import gated
from .lib.instruction import UNITS
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
    """The RF8 accelerator.

    A reset lasts two cycles at least: that of the units follows a cycle later. Bus and memory are
    reset with the machine: the answer to a burst of before would be taken for one to the next run.

    Ports
    -----
    m_axi_* (out, `axi4_read` and `axi4_write`): AXI4 manager, to external memory.
    s_axi_* (in, `AXI4_LITE`): AXI4-Lite subordinate, for the host.
    irq (out, 1): High while an interrupt is enabled and its cause is there.
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        manager = {**axi4_read(config).members, **axi4_write(config).members}
        super().__init__(
            {
                **{f"m_axi_{name}": member for name, member in manager.items()},
                **{f"s_axi_{name}": member for name, member in AXI4_LITE.members.items()},
                "irq": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        # Parts that keep their state when the sequencer clears the units after an error.
        stays = {
            "control": HostRegisters(config),
            "reader": ReadManager(config),
            "sequencer": Sequencer(config),
            "scratchpad": Scratchpad(config),
        }
        units = {
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
        for name, part in stays.items():
            m.submodules[name] = part
        # The reset of all units is one register, as its wires go all over the chip.
        sequencer = stays["sequencer"]
        m.domains += ClockDomain("units", local=True)
        m.d.comb += [
            ClockSignal("units").eq(ClockSignal()),
            ResetSignal("units").eq(sequencer.clear),
        ]
        wanted = sequencer.vector.start | sequencer.running_vector | sequencer.clear
        for name, unit in units.items():
            part = DomainRenamer("units")(unit)
            if name == "vector":
                part = gated(m, name, part, wanted, platform, resets="units")
            m.submodules[name] = part
        for connects in (self._bus, self._instructions, self._product, self._status):
            connects(m, **stays, **units)
        return m

    def _bus(self, m, *, control, reader, store, fetch, load, weights, **_) -> None:
        """Host and external memory."""
        self._expose(m, "s_axi_", control.axi)
        self._expose(m, "m_axi_", reader.axi)
        self._expose(m, "m_axi_", store.axi)
        for name, client in zip(READ_CLIENTS, (fetch, load, weights), strict=True):
            connect(m, client.memory, getattr(reader, name))
        m.d.comb += self.irq.eq(control.interrupt)

    def _expose(self, m, prefix: str, bus) -> None:
        """Connects an interface to ports of this component that have its names after ``prefix``."""
        for name, member in bus.signature.members.items():
            outer, inner = getattr(self, prefix + name), getattr(bus, name)
            m.d.comb += outer.eq(inner) if member.flow is Out else inner.eq(outer)

    def _instructions(
        self, m, *, control, fetch, queue, weights, sequencer, scratchpad, load, store, **units
    ) -> None:
        """From the host through fetch, queue and sequencer to the units, and to their words."""
        matmul, vector = units["matmul"], units["vector"]
        connect(m, control.job, fetch.job, sequencer.job)
        connect(m, sequencer.status, control.status)
        connect(m, fetch.entries, queue.i)
        connect(m, queue.o, sequencer.entries)
        connect(m, fetch.weights, weights.descriptor)
        for name, unit in zip(UNITS.values(), (matmul, load, store, vector), strict=True):
            connect(m, getattr(sequencer, name), unit.run)
        connect(m, load.failure, sequencer.failed_load)
        connect(m, store.failure, sequencer.failed_store)
        connect(m, load.write, scratchpad.load)
        connect(m, store.read, scratchpad.store)
        connect(m, vector.read, scratchpad.vector)
        connect(m, vector.write, scratchpad.elements)
        m.d.comb += [
            fetch.position.eq(control.position),
            vector.position.eq(control.position),
            *(ours.eq(its) for ours, its in zip(fetch.tokens, control.tokens, strict=True)),
        ]

    def _product(self, m, *, weights, matmul, array, writeback, scratchpad, sequencer, **_) -> None:
        """The matrix product: weight stream, array, writeback."""
        connect(m, weights.control, matmul.slices)
        connect(m, weights.slice, array.slice, writeback.slice)
        connect(m, matmul.read, scratchpad.array)
        connect(m, matmul.feed, array.feed)
        connect(m, matmul.headers, writeback.headers)
        connect(m, array.results, writeback.results)
        connect(m, writeback.write, scratchpad.results)
        columns = sequencer.matmul.operands.column
        active = Signal(
            self.config.cols
        )  # a register: the column is known long before the first slice
        m.d.sync += active.eq(Cat(columns > column for column in range(self.config.cols)))
        m.d.comb += [
            array.active.eq(active),
            writeback.active.eq(active),
            writeback.start.eq(sequencer.matmul.start),
            writeback.operands.eq(sequencer.matmul.operands),
            matmul.results_idle.eq(array.idle & writeback.idle),
        ]

    def _status(self, m, *, control, reader, sequencer, load, store, **units) -> None:
        """Errors, progress, counters."""
        matmul, array, writeback = units["matmul"], units["array"], units["writeback"]
        fetch, weights, vector = units["fetch"], units["weights"], units["vector"]
        counts, columns = control.counts, sequencer.matmul.operands.column
        # The unit's clock stands still when it is stopped, and with it what it counts.
        elements = vector.saturated & sequencer.running_vector.replicate(len(vector.saturated))
        m.d.comb += [
            fetch.quiet.eq(sequencer.quiet),
            fetch.stop.eq(sequencer.stop),
            reader.stop.eq(sequencer.stop),
            store.stop.eq(sequencer.stop_stores),
            sequencer.invalid_weight.eq(array.invalid),
            sequencer.another_load.eq(load.ready),
            sequencer.another_matmul.eq(matmul.streamed & ~writeback.full),
            sequencer.answered.eq(store.answered),
            sequencer.failed_weight.eq(matmul.failed),
            sequencer.bus_idle.eq(reader.idle & store.idle),
            sequencer.progress.eq(
                Cat(
                    self.m_axi_arvalid & self.m_axi_arready,
                    self.m_axi_rvalid,
                    self.m_axi_awvalid & self.m_axi_awready,
                    self.m_axi_wvalid & self.m_axi_wready,
                    self.m_axi_bvalid,
                    array.feed.valid | matmul.headers.valid,
                    array.results.valid,
                    vector.read.enable | vector.write.enable.any(),
                ).any()
            ),
            counts.cycles.eq(sequencer.status.busy),
            *(
                getattr(counts, unit).eq(getattr(sequencer, f"running_{unit}"))
                for unit in UNITS.values()
            ),
            counts.stall_weights.eq(matmul.stall_weights),
            counts.stall_drain.eq(matmul.stall_drain),
            counts.slices.eq(array.feed.valid),
            counts.column_slices.eq(array.feed.valid.replicate(8) & columns),
            counts.read_weights.eq(weights.memory.beat),
            counts.read_other.eq(Cat(fetch.memory.beat, load.memory.beat).any()),
            counts.written.eq(self.m_axi_wvalid & self.m_axi_wready),
            counts.saturated.eq(writeback.saturated + elements),
        ]
