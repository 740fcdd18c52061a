"""The activation scratchpad: one bank for each column."""

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from golden.config import AccelConfig


class Scratchpad(wiring.Component):
    """``cols`` banks of ``scratch_words`` words of ``bus_bytes``; all banks share the addresses.

    Instructions run one after the other, so of the two readers and of the two writers only one is
    at work at a time.

    Ports
    -----
    x_address: read for the array while ``store_enable`` is low; ``data`` follows
    store_enable, store_address: read for STORE; ``data`` follows and then stays
    data: the word of each bank, latency 1
    load_enable, load_column, load_address, load_data: write one bank
    result_enable (a bit for each bank), result_address, result_data: write banks side by side
    """

    latency = 1

    def __init__(self, config: AccelConfig):
        self.config = config
        width, depth = 8 * config.bus_bytes, config.scratch_words
        super().__init__(
            {
                "x_address": In(range(depth)),
                "x_enable": In(1),
                "store_enable": In(1),
                "store_address": In(range(depth)),
                "data": Out(width).array(config.cols),
                "load_enable": In(1),
                "load_column": In(range(max(2, config.cols))),
                "load_address": In(range(depth)),
                "load_data": In(width),
                "result_enable": In(config.cols),
                "result_address": In(range(depth)),
                "result_data": In(width).array(config.cols),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        for column in range(config.cols):
            bank = memory.Memory(shape=8 * config.bus_bytes, depth=config.scratch_words, init=[])
            m.submodules[f"bank{column}"] = bank
            write, read = bank.write_port(), bank.read_port()
            loading = Signal(name=f"loading{column}")
            m.d.comb += [
                loading.eq(self.load_enable & (self.load_column == Const(column))),
                write.en.eq(loading | self.result_enable[column]),
                write.addr.eq(Mux(self.load_enable, self.load_address, self.result_address)),
                write.data.eq(Mux(self.load_enable, self.load_data, self.result_data[column])),
                read.en.eq(self.x_enable | self.store_enable),
                read.addr.eq(Mux(self.store_enable, self.store_address, self.x_address)),
                self.data[column].eq(read.data),
            ]
        return m
