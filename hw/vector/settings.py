"""What the lanes of the vector unit need to know of a segment."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.config import RESULT_BITS

from ..lib.instruction import OPERANDS, POSITION_BITS
from .decoder import CONTROL, LEFT_BITS, REGISTERS, STEP_BITS
from .lane.lane import SETTINGS
from .lane.table_argument import SINE_FIRST


class VectorSettings(wiring.Component):
    """Takes a segment's registers, and hands over to the lanes when its first word comes by.

    Ports
    -----
    operands (in, struct): The instruction.
    control (in, struct): The same, decoded.
    registers (in, struct): The next segment's registers, with ``take``.
    top (in, signed 32): Its `top`, with ``take``.
    place (in, 25): Position of its column, with ``take``.
    take (in, 1): Pulses when these three are there.
    hand (in, 1): Pulses for a segment's first word: two cycles later the lanes need ``base`` of
        ``settings``, and a cycle later the others.
    taken (out, struct): The registers that were taken last.
    settings (out, struct): What the lanes need to know of a segment,
        `hw.vector.lane.lane.SETTINGS`.
    """

    def __init__(self):
        super().__init__(
            {
                "operands": In(OPERANDS),
                "control": In(CONTROL),
                "registers": In(REGISTERS),
                "top": In(signed(RESULT_BITS)),
                "place": In(POSITION_BITS + 1),
                "take": In(1),
                "hand": In(1),
                "taken": Out(REGISTERS),
                "settings": Out(SETTINGS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        o, c, s = self.operands, self.control, self.settings
        top = Signal.like(self.top)
        place = Signal.like(self.place)
        with m.If(self.take):
            m.d.sync += [
                self.taken.eq(self.registers),
                top.eq(self.top),
                place.eq(self.place),
            ]
        # What follows from these registers, two cycles later. They cannot be read later than that:
        # behind a segment of one word the next one's registers come at once.
        factor = Signal(signed(RESULT_BITS))
        power = Signal(signed(10))
        tops = Signal.like(top)
        places = Signal.like(place)
        m.d.sync += [
            factor.eq(Mux(c.immediate, o.immediate, self.taken.factor)),
            power.eq(o.shift + Mux(c.amount, self.taken.amount, 0)),
            tops.eq(top),
            places.eq(place),
        ]
        distance = Signal.like(s.distance)
        minus = Signal.like(s.minus)
        base = Signal.like(tops)
        constant = Signal.like(s.constant)
        handed = Signal(SETTINGS)
        m.d.sync += [
            distance.eq(LEFT_BITS - power),
            minus.eq(-factor),
            base.eq(tops),
            constant.eq(Mux(c.scale, factor, places)),
        ]
        with m.If(~c.scaled):
            m.d.sync += power.eq(Mux(c.table, -STEP_BITS, 0))
        with m.If(self.hand):
            m.d.sync += [
                handed.base.eq(base),
                handed.distance.eq(distance),
                handed.minus.eq(minus),
                handed.constant.eq(constant),
            ]
            with m.If(~c.exp2):
                m.d.sync += handed.base.eq(Mux(c.sine, 1 << (SINE_FIRST - 1), 0))
            with m.If(~(c.scale | c.angle)):
                m.d.sync += handed.constant.eq(~c.relu)
        m.d.sync += s.base.eq(handed.base)
        for name in ("distance", "minus", "constant"):
            later = Signal.like(handed[name], name=f"later_{name}")
            m.d.sync += [later.eq(handed[name]), s[name].eq(later)]
        return m
