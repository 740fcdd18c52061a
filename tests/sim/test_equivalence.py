"""What counts as the same netlist: names and modules do not, gates, wires and start values do."""

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from sim.equivalence import TOP, Different, compare, make_rtlil, read_netlist


class Adder(wiring.Component):
    """A register of a sum, with knobs for what may differ."""

    def __init__(self, *, other=False, nested=False, init=0, swap=False, subtract=False, depth=4):
        self.other, self.nested, self.init = other, nested, init
        self.swap, self.subtract, self.depth = swap, subtract, depth
        super().__init__({"a": In(8), "b": In(8), "s": In(1), "y": Out(8)})

    def elaborate(self, platform):
        m = inner = Module()
        if self.nested:
            m.submodules.part = inner = Module()
        name = "renamed" if self.other else "total"
        total = Signal(8, name=name, init=self.init)
        a, b = (self.b, self.a) if self.swap else (self.a, self.b)
        inner.d.sync += total.eq(Mux(self.s, a - b if self.subtract else a + b, total))
        bank = memory.Memory(shape=8, depth=self.depth, init=[1, 2])
        m.submodules["store" if self.other else "bank"] = bank
        write, read = bank.write_port(), bank.read_port()
        m.d.comb += [
            write.data.eq(total), write.addr.eq(a), write.en.eq(self.s), read.addr.eq(b),
            self.y.eq(read.data),
        ]  # fmt: skip
        return m


def netlist(**knobs):
    return read_netlist(rtlil.convert(Adder(**knobs), name=TOP, emit_src=False))


@pytest.fixture(scope="module")
def plain():
    return netlist()


def test_names_and_modules_do_not_matter(plain):
    counts = compare(plain, netlist(other=True, nested=True))
    assert counts.total() == len(plain.cells) > 0


@pytest.mark.parametrize(
    "knobs", [{"init": 1}, {"swap": True}, {"subtract": True}, {"depth": 8}], ids=str
)
def test_a_difference_is_found(plain, knobs):
    with pytest.raises(Different):
        compare(plain, netlist(**knobs))


def test_a_folder_without_sources_is_refused(tmp_path):
    """Else the installed sources would be compared with themselves."""
    with pytest.raises(ValueError, match=r"is no checkout of this project: it has no hw/top\.py"):
        make_rtlil(tmp_path, "tiny")
