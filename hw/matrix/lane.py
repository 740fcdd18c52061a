"""One lane: multiplies activations by decoded weights and accumulates, exactly."""

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out


class Lane(wiring.Component):
    """One lane: multiplies activations by decoded weights and accumulates, exactly.

    Product, then alignment and accumulation, a cycle each: the term of an activation of cycle n is
    in its bin after cycle n + `latency`.

    With one bin the accumulator is a register, cleared when its content is taken; a cycle without a
    term must follow the last one of a tile. With more bins they lie in a small memory of one read
    port, in two banks: one accumulates, and in cycles without a term the other can be read. Each
    bank has a word that is never written and holds zero: a bin's first term of a tile is added to
    that one, so that bins need not be cleared.

    Lanes with bins are for FPGAs, where a flip-flop comes with each table and a wire from the row
    to its lanes is as slow as the adder. So there everything of the row goes through a register of
    the lane first, and activations must come a cycle later (`delay`).

    Parameters
    ----------
    kind: what weights are; `hw.matrix.decode.TwoTerm` is one

    Ports
    -----
    weight (in, struct): The decoded weight of this cycle's activation.
    valid (in, 1): High when there is one.
    late (in, struct): ``weight`` of the cycle before, from the row (kept there once for all
        columns).
    write (in, 1): High when ``late`` is a term to accumulate.
    read_at, write_at (in, bank_bits + 1): Words of the memory, with more than one bin.
    take (in, 1): High: show the accumulator, or the bin at ``read_at``, from the next cycle on.
    enable (in, 1): High when this column takes part.
    x0, x1, ... (in, signed): Multiples of the activation, made once for all lanes of a column; they
        come `delay` cycles after their weight.
    held (out, signed bin_bits): What ``take`` asked for.
    """

    latency = 2

    def __init__(self, kind):
        self.kind = kind
        config = kind.config
        self.delay = delay(config)
        super().__init__(
            {
                "weight": In(kind.control),
                "valid": In(1),
                "late": In(kind.control),
                "write": In(1),
                "read_at": In(bank_bits(config) + 1),
                "write_at": In(bank_bits(config) + 1),
                "take": In(1),
                "enable": In(1),
                **{f"x{n}": In(signed(width)) for n, width in enumerate(kind.widths)},
                "held": Out(signed(config.bin_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        kind = self.kind
        width = kind.config.bin_bits
        row = {n: getattr(self, n) for n in ("weight", "late", "read_at", "write_at")}
        valid, write = self.enable & self.valid, self.enable & self.write
        take = self.take
        if self.delay:
            # The enables keep the copies of different columns apart, which synthesis would else
            # merge into one again.
            copies = {
                name: Signal.like(port, name=f"own_{name}", reset_less=True)
                for name, port in row.items()
            }
            with m.If(self.enable):
                m.d.sync += [copy.eq(row[name]) for name, copy in copies.items()]
            row = copies
            valid_here = Signal()
            write_here = Signal()
            take_here = Signal()
            m.d.sync += [
                valid_here.eq(valid),
                write_here.eq(write),
                take_here.eq(self.enable & take),
            ]
            valid, write, take = valid_here, write_here, take_here

        column = [getattr(self, f"x{n}") for n in range(len(kind.widths))]
        # Data registers need no reset: nothing reads them before a valid term has passed.
        product = Signal(signed(kind.product_bits), reset_less=True)
        new_product = kind.product(m, platform, column, row["weight"])
        with m.If(valid):
            m.d.sync += product.eq(new_product)

        if kind.config.bins == 1:
            total = Signal(signed(width))
            content = total
            new = kind.accumulate(m, platform, total, product, row["late"])
            with m.If(take):
                m.d.sync += total.eq(0)
            with m.Elif(write):
                m.d.sync += total.eq(new)
        else:
            depth = 2 << bank_bits(kind.config)
            m.submodules.bins = bins = memory.Memory(shape=signed(width), depth=depth, init=[])
            read, port = bins.read_port(domain="comb"), bins.write_port()
            content = read.data
            m.d.comb += [
                read.addr.eq(row["read_at"]),
                port.addr.eq(row["write_at"]),
                port.en.eq(write),
                port.data.eq(kind.accumulate(m, platform, content, product, row["late"])),
            ]
        held = Signal.like(self.held, reset_less=True)
        m.d.comb += self.held.eq(held)
        with m.If(take):
            m.d.sync += held.eq(content)
        return m


def bank_bits(config) -> int:
    """Address bits of one bank: its bins, and a word that stays zero."""
    return config.bins.bit_length() if config.bins > 1 else 0


def delay(config) -> int:
    """Cycles by which activations must come later than the weights of their row."""
    return 1 if config.bins > 1 else 0
