"""Control registers and counters on AXI4-Lite."""

from functools import reduce
from operator import or_

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, Signature

from golden.config import AccelConfig
from golden.isa import ErrorCode
from golden.registers import COUNTERS, IDENTITY, REGISTERS, counter_offset

from ..lib.instruction import POSITION_BITS, JobSignature, StatusSignature
from ..memory.axi import AXI4_LITE

COUNTER_BITS = 48

CountsSignature = Signature({name: Out(8) for name in COUNTERS})
"""What the counters count, by their names in `golden.registers.COUNTERS`; each member (out, 8) is
what is added to that counter, two cycles later."""


class HostRegisters(wiring.Component):
    """The register map of `golden.registers`, on AXI4-Lite.

    An unknown address reads as zero; writes to it are ignored. A write is taken when its address
    and data are both there. It changes the bytes that its strobes choose; without any it is
    answered and does nothing.

    Ports
    -----
    axi (out, `AXI4_LITE`): The bus to the host.
    job (out, `JobSignature`): What the host wants.
    position (out, 24): Position of the token in column 0, as written.
    tokens (out, 24, for each column): The tokens, as written.
    status (in, `StatusSignature`): Shown in the registers.
    counts (in, `CountsSignature`): What is counted.
    interrupt (out, 1): High while interrupts are enabled and the machine is at rest after HALT or
        an error.
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "axi": Out(AXI4_LITE),
                "job": Out(JobSignature),
                "position": Out(POSITION_BITS),
                "tokens": Out(POSITION_BITS).array(config.cols),
                "status": In(StatusSignature),
                "counts": In(CountsSignature),
                "interrupt": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, status = self.config, self.status
        failed = status.error != ErrorCode.NONE
        enabled = Signal()
        m.d.comb += self.interrupt.eq(enabled & ~status.busy & (status.finished | failed))

        counters = {}
        for name in COUNTERS:
            counters[name] = counter = Signal(COUNTER_BITS, name=f"counter_{name}")
            # A register, as counts come from all over the chip: counters are a cycle late.
            count = Signal(8, name=f"counted_{name}")
            m.d.sync += count.eq(getattr(self.counts, name))
            with m.If(self.job.start):
                m.d.sync += counter.eq(0)
            with m.Else():
                m.d.sync += counter.eq(counter + count)

        token_column = Signal(8)
        readable = {
            "ID": Const(IDENTITY, 32),
            "CONFIG": Cat(
                Const(config.rows, 8),
                Const(config.cols, 8),
                Const(config.act_bits, 8),
                Const(config.bus_bytes, 8),
            ),
            "STATUS": Cat(status.busy, status.finished, failed, Const(0, 5), status.error),
            "ERROR_ADDRESS": status.error_address,
            "PROGRAM": self.job.program,
            "WATCHDOG": self.job.watchdog,
            "INTERRUPT": enabled,
            "POSITION": self.position,
            "TOKEN_COLUMN": token_column,
            "TOKEN": Mux(token_column < config.cols, Array(self.tokens)[token_column], 0),
        }

        self._read(m, readable, counters)
        self._write(m, enabled, token_column)
        return m

    def _read(self, m, readable, counters) -> None:
        """One at a time: which it is, then the answer."""
        axi = self.axi
        words = {REGISTERS[name][0]: value for name, value in readable.items()}
        for name, counter in counters.items():
            words |= {counter_offset(name): counter[:32], counter_offset(name) + 4: counter[32:]}
        asked = Signal()
        chosen = Signal(len(words))
        m.d.comb += axi.arready.eq(~axi.rvalid & ~asked)
        m.d.sync += [
            asked.eq(axi.arvalid & axi.arready),
            chosen.eq(Cat(axi.araddr[2:] == offset >> 2 for offset in words)),
        ]
        with m.If(axi.rready):
            m.d.sync += axi.rvalid.eq(0)
        with m.If(asked):
            known = zip(words.values(), chosen, strict=True)
            terms = [Cat(word, Const(0, 32 - len(word))) & it.replicate(32) for word, it in known]
            m.d.sync += [axi.rvalid.eq(1), axi.rdata.eq(reduce(or_, terms))]

    def _write(self, m, enabled, token_column) -> None:
        """One at a time: address and data, once both are there, then what they do."""
        axi, config = self.axi, self.config
        taken = Signal()
        write = Signal()
        controls = Signal()
        address = Signal(10, reset_less=True)
        word = Signal(32, reset_less=True)
        strobes = Signal(4, reset_less=True)
        control = REGISTERS["CONTROL"][0] >> 2
        m.d.comb += [
            taken.eq(axi.awvalid & axi.wvalid & ~axi.bvalid & ~write),
            axi.awready.eq(taken),
            axi.wready.eq(taken),
            # Made of registers alone, as these two go all over the chip.
            self.job.start.eq(controls & word[0] & ~self.status.busy),
            self.job.abort.eq(controls & word[1]),
        ]
        m.d.sync += [
            write.eq(taken),
            controls.eq(taken & (axi.awaddr[2:] == control) & axi.wstrb[0]),
            address.eq(axi.awaddr[2:]),
            word.eq(axi.wdata),
            strobes.eq(axi.wstrb),
        ]

        def put(register) -> None:
            for first in range(0, len(register), 8):
                byte = register[first : first + 8]
                with m.If(strobes[first // 8]):
                    m.d.sync += byte.eq(word[first:])

        with m.If(axi.bready):
            m.d.sync += axi.bvalid.eq(0)
        with m.If(write):
            m.d.sync += axi.bvalid.eq(1)
            with m.Switch(address):
                with m.Case(REGISTERS["PROGRAM"][0] >> 2):
                    put(self.job.program)
                with m.Case(REGISTERS["WATCHDOG"][0] >> 2):
                    put(self.job.watchdog)
                with m.Case(REGISTERS["INTERRUPT"][0] >> 2):
                    put(enabled)
                with m.Case(REGISTERS["POSITION"][0] >> 2):
                    put(self.position)
                with m.Case(REGISTERS["TOKEN_COLUMN"][0] >> 2):
                    put(token_column)
                with m.Case(REGISTERS["TOKEN"][0] >> 2):
                    m.d.sync += token_column.eq(token_column + strobes.any())
                    for column in range(config.cols):
                        with m.If(token_column == column):
                            put(self.tokens[column])
