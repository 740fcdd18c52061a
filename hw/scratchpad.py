"""The activation scratchpad: one bank for each column."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from golden.config import AccelConfig


class Scratchpad(wiring.Component):
    """``cols`` banks of ``scratch_words`` words of ``bus_bytes``; all banks share the addresses.

    Instructions run one after the other, so of the readers and of the writers only one is at work
    at a time.

    Ports
    -----
    x_enable, x_address: read for the array
    store_enable, store_address: read for STORE
    vector_enable, vector_address: read for VECTOR
    data: the word of each bank, latency 1; it stays until the next read
    load_enable, load_address, load_data, load_column: write one bank
    elements_enable (a bit for each bank), elements_address, elements_data: write the same to banks
    result_enable (a bit for each bank), result_address, result_data: write banks side by side
    """

    latency = 1

    def __init__(self, config: AccelConfig):
        self.config = config
        width, depth = 8 * config.bus_bytes, config.scratch_words
        super().__init__(
            {
                "x_enable": In(1),
                "x_address": In(range(depth)),
                "store_enable": In(1),
                "store_address": In(range(depth)),
                "vector_enable": In(1),
                "vector_address": In(range(depth)),
                "data": Out(width).array(config.cols),
                "load_enable": In(1),
                "load_column": In(range(max(2, config.cols))),
                "load_address": In(range(depth)),
                "load_data": In(width),
                "elements_enable": In(config.cols),
                "elements_address": In(range(depth)),
                "elements_data": In(width),
                "result_enable": In(config.cols),
                "result_address": In(range(depth)),
                "result_data": In(width).array(config.cols),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        read_address, write_address = Signal.like(self.x_address), Signal.like(self.load_address)
        loading, common = Signal(config.cols), Signal()
        word = Signal.like(self.load_data)
        m.d.comb += [
            read_address.eq(
                Mux(
                    self.store_enable,
                    self.store_address,
                    Mux(self.vector_enable, self.vector_address, self.x_address),
                )
            ),
            # One word for all banks, or one for each.
            loading.eq(self.load_enable << self.load_column),
            common.eq(self.load_enable | self.elements_enable.any()),
            word.eq(Mux(self.load_enable, self.load_data, self.elements_data)),
            write_address.eq(
                Mux(
                    self.load_enable,
                    self.load_address,
                    Mux(common, self.elements_address, self.result_address),
                )
            ),
        ]
        for column in range(config.cols):
            bank = memory.Memory(shape=8 * config.bus_bytes, depth=config.scratch_words, init=[])
            m.submodules[f"bank{column}"] = bank
            write, read = bank.write_port(), bank.read_port()
            enables = loading | self.elements_enable | self.result_enable
            m.d.comb += [
                write.en.eq(enables[column]),
                write.addr.eq(write_address),
                write.data.eq(Mux(common, word, self.result_data[column])),
                read.en.eq(self.x_enable | self.store_enable | self.vector_enable),
                read.addr.eq(read_address),
                self.data[column].eq(read.data),
            ]
        return m
