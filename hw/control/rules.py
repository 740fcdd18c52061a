"""The rules of `golden.isa.check` that look at one field or two, without places and sums."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from golden.config import RESULT_BITS, AccelConfig
from golden.isa import (
    FIELDS,
    FLAGS,
    SEGMENTS,
    USES,
    WINDOWED,
    After,
    Flag,
    Function,
    Opcode,
    Output,
)

from ..lib.instruction import INDEXED, OPERANDS, holds


class Rules(wiring.Component):
    """The rules of `golden.isa.check` that look at one field or two.

    Ports
    -----
    operands (in, struct): The instruction.
    refused (out, 1): High when ``operands``, which have been there for `latency` cycles, break a
    rule.
    """

    latency = 3

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__({"operands": In(OPERANDS), "refused": Out(1)})

    def elaborate(self, platform):
        m = Module()
        o = self.operands
        k_less = Signal.like(o.k)
        m.d.sync += k_less.eq(o.k - 1)
        broken = {
            Opcode.MATMUL: self._placed() + self._columns() + self._matmul(),
            Opcode.LOAD: self._placed() + self._move(),
            Opcode.STORE: self._placed() + self._move(),
            Opcode.VECTOR: self._columns() + self._vector(k_less),
            Opcode.FENCE: [],
            Opcode.HALT: [],
        }
        shifts = {Opcode.LOAD: self._shifts()[-1:], Opcode.STORE: self._shifts()}
        for opcode, allowed in shifts.items():
            other = ~Cat(o.shift == shift for shift in allowed).any()
            broken[opcode].append(holds(o.flags, INDEXED) & other)

        # Three registers deep: k - 1; the answer of each rule; whether the opcode has that rule.
        nonzero = Signal(len(FIELDS))
        m.d.sync += nonzero.eq(Cat(o[name] != 0 for name in FIELDS))
        refused = []
        for opcode, rules in broken.items():
            name = opcode.name.lower()
            is_it = Signal(name=f"is_{name}")
            breaks = Signal(len(rules) + 1, name=f"breaks_{name}")
            extra = (o.flags & (0xFF & ~int(FLAGS[opcode]))) != 0
            m.d.sync += [is_it.eq(o.opcode == opcode), breaks.eq(Cat(extra, *rules))]
            unused = [n for n, f in enumerate(FIELDS) if f not in (*USES[opcode], "opcode")]
            foreign = Cat(nonzero[n] for n in unused).any() if unused else 0
            refused.append(~is_it | breaks.any() | foreign)
        m.d.sync += self.refused.eq(Cat(refused).all())
        return m

    def _placed(self) -> list:
        o, config = self.operands, self.config
        misplaced = (o.address & (config.bus_bytes - 1)) != 0
        return [o.count == 0, misplaced | ((o.address >> config.addr_bits) != 0)]

    def _columns(self) -> list:
        o = self.operands
        return [o.count == 0, (o.column == 0) | (o.column > self.config.cols)]

    def _matmul(self) -> list:
        return [(self.operands.k == 0) | (self.operands.k > self.config.max_k)]

    def _shifts(self) -> list[int]:
        """By how much indices may be shifted; a LOAD takes the last."""
        config = self.config
        return [0, exact_log2(config.results_per_word), exact_log2(config.bus_bytes)]

    def _move(self) -> list:
        o = self.operands
        indexed = holds(o.flags, INDEXED)
        both = (o.flags & int(INDEXED)) == int(INDEXED)
        plain = (o.shift != 0) | (o.k != 0) | (o.immediate != 0)
        return [
            o.column >= self.config.cols,
            ~indexed & plain,
            both | (indexed & holds(o.flags, Flag.LENGTH)),
            indexed & (o.immediate <= 0),
        ]

    def _vector(self, k_less) -> list:
        o = self.operands
        rotate = o.function == Function.ROTATE
        no_pairs = (o.k == 0) | ((o.k & k_less) != 0)
        rest = (o.count & (o.k | k_less)) != 0
        period = (o.immediate <= 0) | (o.immediate > self.config.scratch_words)
        apart = ~Cat(o.function == function for function in WINDOWED).any()
        no_window = apart | ~holds(o.flags, Flag.LENGTH) | (o.immediate <= 0)
        for kind in (Function, After, Output):
            assert list(kind) == list(range(len(kind)))
        return [
            o.function >= len(Function),
            o.after >= len(After),
            o.output >= len(Output),
            (o.segments == 0) | (o.segments > SEGMENTS),
            rotate & (no_pairs | rest | period),
            ~rotate & ((o.k < 2) | (o.k > RESULT_BITS)),
            holds(o.flags, Flag.WINDOW) & no_window,
            (o.output == Output.TOP) & (rotate | (self.config.results_per_word == 1)),
        ]
