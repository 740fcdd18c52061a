"""One lane: multiplies activations by decoded weights and accumulates, exactly."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from golden.config import AccelConfig

from .decode import RowControl, add_or_subtract, significand_product


class Lane(wiring.Component):
    """Significand product (cycle 1), then alignment and accumulation (cycle 2).

    A lane has `AccelConfig.bins` accumulators. With one of them (align 4) it is a register, and
    ``capture`` copies it aside, so that the next tile can start at once. With more of them they
    lie in two banks of a small memory: ``bank`` accumulates while the other is read.

    Ports
    -----
    weight: weight of this cycle's ``x``
    late: ``weight`` one cycle later, from the row (kept there once for all columns)
    fresh: the bin of ``late`` has not been written in this tile, so its content is void
    enable: this column takes part
    x: activation, sign-extended to ``act_bits + 5`` (once for all lanes of a column)
    bank, capture: see above
    read_bin: bin of the other bank to show on ``bin`` (combinational)

    Latency: the term of cycle n is in its bin after cycle n + `latency`.
    """

    latency = 2

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "weight": In(RowControl),
                "valid": In(1),
                "late": In(RowControl),
                "late_valid": In(1),
                "first": In(1),
                "fresh": In(1),
                "enable": In(1),
                "x": In(signed(config.act_bits + 5)),
                "bank": In(1),
                "capture": In(1),
                "read_bin": In(range(max(2, config.bins))),
                "bin": Out(signed(config.bin_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        width = self.config.bin_bits
        # Data registers need no reset: nothing reads them before a valid term has passed.
        product = Signal(signed(self.config.act_bits + 5), reset_less=True)
        with m.If(self.enable & self.valid):
            m.d.sync += product.eq(significand_product(self.x, self.weight))

        late = self.late
        # product << shift, as an arithmetic shift to the right from the far end: that keeps the
        # sign without spelling it out bit by bit, which simulators are slow at.
        bits = self.config.align
        far = Cat(Const(0, (1 << bits) - 1), product).as_signed()
        aligned = far >> ~late.shift[:bits] if bits else product
        if self.config.bins == 1:
            total = Signal(signed(width), reset_less=True)
            held = Signal(signed(width), reset_less=True)
            base = Mux(self.first, 0, total)
            with m.If(self.enable & self.late_valid & (self.first | late.nonzero)):
                term = Mux(late.nonzero, aligned, Const(0, signed(len(aligned))))
                m.d.sync += total.eq(add_or_subtract(base, term, late.negative))
            with m.If(self.enable & self.capture):
                m.d.sync += held.eq(total)
            m.d.comb += self.bin.eq(held)
            return m

        depth = 1 << (self.config.bins - 1).bit_length()
        m.submodules.bins = bins = memory.Memory(shape=signed(width), depth=2 * depth, init=[])
        write = bins.write_port()
        current = bins.read_port(domain="comb")
        other = bins.read_port(domain="comb")
        base = Mux(self.fresh, 0, current.data)
        bin_bits = (depth - 1).bit_length()
        m.d.comb += [
            current.addr.eq(late.bin[:bin_bits] | (self.bank << bin_bits)),
            write.addr.eq(current.addr),
            write.en.eq(self.enable & self.late_valid & late.nonzero),
            write.data.eq(add_or_subtract(base, aligned, late.negative)),
            other.addr.eq(self.read_bin | (~self.bank << bin_bits)),
            self.bin.eq(other.data),
        ]
        return m
