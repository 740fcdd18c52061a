"""The activation scratchpad: one bank for each column."""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out, Signature

from golden.config import AccelConfig


def bank_read(config: AccelConfig) -> Signature:
    """A read port of the scratchpad, seen from its user.

    Members
    -------
    enable (out, 1): High to read ``address``.
    address (out, log2(scratch_words)): The word to read, of every bank.
    data (in, 8 * bus_bytes, for each column): The word of each bank. It comes as many cycles later
        as `Scratchpad` says, and stays until the next read through any port.
    """
    return Signature(
        {
            "enable": Out(1),
            "address": Out(range(config.scratch_words)),
            "data": In(8 * config.bus_bytes).array(config.cols),
        }
    )


def write_one(config: AccelConfig) -> Signature:
    """A write port to a single bank, seen from its user.

    Members
    -------
    enable (out, 1): High to write ``data``.
    column (out, log2(cols)): The bank to write.
    address (out, log2(scratch_words)): The word to write.
    data (out, 8 * bus_bytes): What to write.
    """
    return Signature(
        {
            "enable": Out(1),
            "column": Out(range(max(2, config.cols))),
            "address": Out(range(config.scratch_words)),
            "data": Out(8 * config.bus_bytes),
        }
    )


def write_same(config: AccelConfig) -> Signature:
    """A write port that puts the same word into any banks, seen from its user.

    Members
    -------
    enable (out, cols): A bit for each bank: high to write ``data`` to it.
    address (out, log2(scratch_words)): The word to write.
    data (out, 8 * bus_bytes): What to write.
    """
    return Signature(
        {
            "enable": Out(config.cols),
            "address": Out(range(config.scratch_words)),
            "data": Out(8 * config.bus_bytes),
        }
    )


def write_each(config: AccelConfig) -> Signature:
    """A write port that puts a word of its own into each bank, seen from its user.

    Members
    -------
    enable (out, cols): A bit for each bank: high to write its word.
    address (out, log2(scratch_words)): The word to write, the same in every bank.
    data (out, 8 * bus_bytes, for each column): What to write to each bank.
    """
    return Signature(
        {
            "enable": Out(config.cols),
            "address": Out(range(config.scratch_words)),
            "data": Out(8 * config.bus_bytes).array(config.cols),
        }
    )


class Scratchpad(wiring.Component):
    """``cols`` banks of ``scratch_words`` words of ``bus_bytes``; all banks share the addresses.

    Instructions run one after the other, so that only one of the readers and only one of the
    writers is at work in a cycle. What is written through ``results`` can be read from the second
    cycle after the write on, all else from the third.

    Ports
    -----
    array (in, `bank_read`): Activations for the array; data a cycle after ``enable``.
    store (in, `bank_read`): Words for STORE; data two cycles after ``enable``.
    vector (in, `bank_read`): Words for VECTOR; data two cycles after ``enable``.
    load (in, `write_one`): Words from memory.
    elements (in, `write_same`): Words of the vector unit.
    results (in, `write_each`): Results of a matrix product.
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "array": In(bank_read(config)),
                "store": In(bank_read(config)),
                "vector": In(bank_read(config)),
                "load": In(write_one(config)),
                "elements": In(write_same(config)),
                "results": In(write_each(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        load, elements, results = self.load, self.elements, self.results
        # Registers between units all over the chip and banks all over the chip.
        reading = Signal()
        address = Signal.like(self.array.address)
        m.d.sync += [
            reading.eq(self.store.enable | self.vector.enable),
            address.eq(Mux(self.store.enable, self.store.address, self.vector.address)),
        ]
        # `common`: one word for all banks that are written, not a word for each.
        common = Signal()
        enables = Signal(config.cols)
        word = Signal.like(load.data, reset_less=True)
        word_address = Signal.like(load.address)
        place = Signal.like(results.address)
        m.d.sync += [
            common.eq(load.enable | elements.enable.any()),
            enables.eq((load.enable << load.column) | elements.enable),
            word.eq(Mux(load.enable, load.data, elements.data)),
            word_address.eq(Mux(load.enable, load.address, elements.address)),
            place.eq(Mux(common, word_address, results.address)),
        ]
        readers = (self.array, self.store, self.vector)
        for column in range(config.cols):
            bank = memory.Memory(shape=8 * config.bus_bytes, depth=config.scratch_words, init=[])
            m.submodules[f"bank{column}"] = bank
            write, read = bank.write_port(), bank.read_port()
            data = Signal.like(word, name=f"data{column}", reset_less=True)
            m.d.sync += [
                write.en.eq(enables[column] | results.enable[column]),
                data.eq(Mux(common, word, results.data[column])),
            ]
            m.d.comb += [
                write.data.eq(data),
                write.addr.eq(place),
                read.en.eq(self.array.enable | reading),
                read.addr.eq(Mux(reading, address, self.array.address)),
                *(port.data[column].eq(read.data) for port in readers),
            ]
        return m


def choose_bank(m, words, bank):
    """The one of ``words``, one for each bank, that is of the bank numbered ``bank``, two cycles
    later.

    Block RAM gives its words late in a cycle: one look-up table is all they pass before a register.
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
