"""Tables of the vector unit in block RAM: values, and differences to the next."""

from itertools import pairwise, product

import numpy as np
from amaranth.hdl import Cat, Module, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from golden.isa import Function
from golden.layers import EXP_FRAC

from .decoder import CURVES, ROW_BITS, TABLES

INDEX_BITS = 11
ENTRY = data.StructLayout({"low": signed(18), "step": signed(9)})
"""A value and the difference to the next; of EXP2 and TANH their low bits, the others being in
`EXTRA`."""
EXTRA = data.StructLayout({"low": signed(8), "step": signed(7)})
LATENCY = 1
CUTS = (0, 16, 26)
"""Where entries are cut: memories of these widths take as few blocks of ECP5 as can be, without
multiplexers."""

READERS = 8
"""At most so many ports read one memory. Yosys weighs all ways to spread them over the two ports of
block RAMs, which grows exponentially: 8 are mapped in a second, 16 need more than 4 GB."""

SHORT_BITS = 9
"""EXP2, TANH and SINE have shorter tables. They are one part: these three, then SINE's negative."""


def _entries(function: Function) -> list[tuple[int, int]]:
    values = TABLES[function].values
    return list(zip(values[:-1].tolist(), np.diff(values).tolist(), strict=True))


def _fits(value: int, bits: int) -> bool:
    return -1 << (bits - 1) <= value < 1 << (bits - 1)


def _packed(low: int, step: int, layout: data.StructLayout) -> int:
    first, second = (field.width for _, field in layout)
    return low % (1 << first) | step % (1 << second) << first


def _rows() -> list[tuple[int, int]]:
    rows = []
    for function in CURVES:
        entries = _entries(function)
        assert len(entries) == 1 << INDEX_BITS and TABLES[function].values[-1] == 0
        rows += entries
    exp2, tanh, sine = (_entries(f) for f in (Function.EXP2, Function.TANH, Function.SINE))
    assert len(exp2) == len(tanh) == len(sine) == 1 << SHORT_BITS
    assert all(_fits(v, 18) and _fits(d, 9) for v, d in rows + sine)
    assert all(0 <= v < 1 << 25 and _fits(d, 16) for v, d in exp2 + tanh)
    return rows + exp2 + tanh + sine + [(-v, -d) for v, d in sine]


class VectorTables(wiring.Component):
    """The tables of functions for ``ports`` lanes, in block RAM: each two ports share a copy.

    Ports
    -----
    address (in, INDEX_BITS + ROW_BITS, for each lane): The index and, above it, the number of the
        table in CURVES, or the next one for the short tables.
    entry (out, struct, for each lane): Value and difference to the next, `LATENCY` cycles later.
    extra (out, struct, for each lane): Their upper bits in EXP2 and TANH, likewise.
    """

    def __init__(self, ports: int):
        self.ports = ports
        super().__init__(
            {
                "address": In(INDEX_BITS + ROW_BITS).array(ports),
                "entry": Out(ENTRY).array(ports),
                "extra": Out(EXTRA).array(ports),
            }
        )

    def elaborate(self, platform):
        m = Module()
        main, more = ENTRY.size, EXTRA.size
        low, step = (field.width for _, field in ENTRY)
        assert low + EXTRA["low"].width > EXP_FRAC + 1
        words = [_packed(v, d, ENTRY) for v, d in _rows()]
        large = _entries(Function.EXP2) + _entries(Function.TANH)
        extras = [_packed(v >> low, d >> step, EXTRA) for v, d in large]
        parts = [(words, a, b) for a, b in pairwise((*CUTS, main))] + [(extras, 0, more)]
        found = [[] for _ in range(self.ports)]
        lanes = list(zip(self.address, found, strict=True))
        groups = [lanes[i : i + READERS] for i in range(0, self.ports, READERS)]
        for number, (group, (content, first, end)) in enumerate(product(groups, parts)):
            depth = 1 << (len(content) - 1).bit_length()
            mask = (1 << (end - first)) - 1
            init = [word >> first & mask for word in content] + [0] * (depth - len(content))
            rom = memory.Memory(shape=end - first, depth=depth, init=init)
            m.submodules[f"part{number}"] = rom
            for address, bits in group:
                port = rom.read_port()
                m.d.comb += [port.addr.eq(address[: len(port.addr)]), port.en.eq(1)]
                bits.append(port.data)
        for entry, extra, bits in zip(self.entry, self.extra, found, strict=True):
            m.d.comb += [entry.as_value().eq(Cat(bits[:-1])), extra.as_value().eq(bits[-1])]
        return m
