"""Tables of the vector unit in block RAM: values, and differences to the next."""

import numpy as np
from amaranth.hdl import Cat, Module, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from golden.isa import Function

from .vector_control import TABLES

INDEX_BITS = 11
ENTRY = data.StructLayout({"low": signed(18), "step": signed(10)})
"""A value and the difference to the next; of EXP2 their low bits, the others being in `EXTRA`."""
EXTRA = data.StructLayout({"low": 7, "step": 6})
LATENCY = 1

SHORT_BITS = 9
"""EXP2 and SINE have shorter tables, the second of which follows the first."""


def _entries(function: Function) -> list[tuple[int, int]]:
    values = TABLES[function].values
    return list(zip(values[:-1].tolist(), np.diff(values).tolist(), strict=True))


def _fits(value: int, bits: int) -> bool:
    return -1 << (bits - 1) <= value < 1 << (bits - 1)


def _packed(low: int, step: int, layout: data.StructLayout) -> dict[str, int]:
    widths = {name: field.width for name, field in layout}
    return {"low": low % (1 << widths["low"]), "step": step % (1 << widths["step"])}


def _rows() -> list[tuple[int, int]]:
    rows = []
    for function in (Function.GELU, Function.GELU_TANH, Function.SILU):
        entries = _entries(function)
        assert len(entries) == 1 << INDEX_BITS and TABLES[function].values[-1] == 0
        rows += entries
    exp2, sine = _entries(Function.EXP2), _entries(Function.SINE)
    assert len(exp2) == len(sine) == 1 << SHORT_BITS
    assert all(_fits(v, 18) and _fits(d, 10) for v, d in rows + sine)
    assert all(0 <= v < 1 << 25 and _fits(d, 16) for v, d in exp2)
    return rows + exp2 + sine


class VectorTables(wiring.Component):
    """The tables for ``ports`` lanes, which share one memory.

    Ports
    -----
    address: the index, and above it the table, or 3 for EXP2 and, 512 above it, SINE
    low, step: of the entry, `LATENCY` cycles later; those of EXP2 need ``extra`` above them
    """

    def __init__(self, ports: int):
        self.ports = ports
        super().__init__(
            {
                "address": In(INDEX_BITS + 2).array(ports),
                "entry": Out(ENTRY).array(ports),
                "extra": Out(EXTRA).array(ports),
            }
        )

    def elaborate(self, platform):
        m = Module()
        entries = [_packed(low, step, ENTRY) for low, step in _rows()]
        extras = [_packed(low >> 18, step >> 10, EXTRA) for low, step in _entries(Function.EXP2)]
        as_word = [e["low"] | e["step"] << 18 for e in entries]
        as_extra = [e["low"] | e["step"] << 7 for e in extras]
        m.submodules.main = main = memory.Memory(
            shape=28, depth=4 << INDEX_BITS, init=as_word + [0] * ((4 << INDEX_BITS) - len(as_word))
        )
        m.submodules.more = more = memory.Memory(shape=13, depth=1 << SHORT_BITS, init=as_extra)
        for n in range(self.ports):
            address = self.address[n]
            for rom, target in ((main, self.entry[n]), (more, self.extra[n])):
                port = rom.read_port()
                m.d.comb += [
                    port.addr.eq(address[: len(port.addr)]),
                    port.en.eq(1),
                    Cat(target.as_value()).eq(port.data),
                ]
        return m
