"""The activation scratchpad: one bank for each column."""

from amaranth.hdl import Array, Module, Mux, Signal
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
    data: the word of each bank, a cycle after ``x_enable`` and two after the others; it stays until
        the next read
    load_enable, load_address, load_data, load_column: write one bank
    elements_enable (a bit for each bank), elements_address, elements_data: write the same to banks
    result_enable (a bit for each bank), result_address, result_data: write banks side by side

    Results can be read from the second cycle after they are written on, all else from the third.
    """

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
        # What comes from all over the machine, and goes to banks all over it, waits halfway.
        reading = Signal()
        address = Signal.like(self.x_address)
        m.d.sync += [
            reading.eq(self.store_enable | self.vector_enable),
            address.eq(Mux(self.store_enable, self.store_address, self.vector_address)),
        ]
        # One word for all banks, or one for each.
        common = Signal()
        enables = Signal(config.cols)
        word = Signal.like(self.load_data, reset_less=True)
        word_address = Signal.like(self.load_address)
        place = Signal.like(self.result_address)
        m.d.sync += [
            common.eq(self.load_enable | self.elements_enable.any()),
            enables.eq((self.load_enable << self.load_column) | self.elements_enable),
            word.eq(Mux(self.load_enable, self.load_data, self.elements_data)),
            word_address.eq(Mux(self.load_enable, self.load_address, self.elements_address)),
            place.eq(Mux(common, word_address, self.result_address)),
        ]
        for column in range(config.cols):
            bank = memory.Memory(shape=8 * config.bus_bytes, depth=config.scratch_words, init=[])
            m.submodules[f"bank{column}"] = bank
            write, read = bank.write_port(), bank.read_port()
            data = Signal.like(word, name=f"data{column}", reset_less=True)
            m.d.sync += [
                write.en.eq(enables[column] | self.result_enable[column]),
                data.eq(Mux(common, word, self.result_data[column])),
            ]
            m.d.comb += [
                write.data.eq(data),
                write.addr.eq(place),
                read.en.eq(self.x_enable | reading),
                read.addr.eq(Mux(reading, address, self.x_address)),
                self.data[column].eq(read.data),
            ]
        return m


def choose_bank(m, words, bank):
    """The word of the bank with that number, two cycles later.

    Block RAM gives its words late in a cycle: one table is all they pass before a register.
    """
    words = [*words]
    pairs = []
    for n in range(0, len(words), 2):
        pair = Signal.like(words[n], name=f"pair{n}", reset_less=True)
        m.d.sync += pair.eq(Mux(bank[0], words[min(n + 1, len(words) - 1)], words[n]))
        pairs.append(pair)
    upper = Signal(max(1, len(bank) - 1), name="upper", reset_less=True)
    word = Signal.like(words[0], name="chosen", reset_less=True)
    m.d.sync += [upper.eq(bank >> 1), word.eq(Array(pairs)[upper])]
    return word
