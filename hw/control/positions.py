"""Positions: how much of an instruction is done, and where, as position and tokens say."""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from golden.config import AccelConfig
from golden.isa import Flag, Opcode

from ..lib.instruction import COLUMN, COUNT, INDEXED, OPERANDS, POSITION_BITS, K, holds


class Positions(wiring.Component):
    """`golden.positions.resolve`: what of an instruction follows from the position and the tokens.

    Outputs belong to the ``operands`` of `latency` cycles before, and mean something where those
    are legal.

    Ports
    -----
    operands (in, struct): The instruction.
    position (in, 24): Position of the token in column 0.
    tokens (in, 24, for each column): The tokens.
    count (out, 16): The instruction's `count`; with LENGTH as much of it as is used.
    k (out, 16): The instruction's `k`; with LENGTH_K as much of it as is used.
    index (out, 25): Of an indexed LOAD or STORE: how many rows of memory lie before its own.
    lane (out, log2(bus_bytes)): Of these: which byte or element of each beat it uses.
    far (out, 1): High when the position or a token is beyond what the instruction has room for.
    """

    latency = 3

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "operands": In(OPERANDS),
                "position": In(POSITION_BITS),
                "tokens": In(POSITION_BITS).array(config.cols),
                "count": Out(COUNT),
                "k": Out(K),
                "index": Out(POSITION_BITS + 1),
                "lane": Out(exact_log2(config.bus_bytes)),
                "far": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        o, config = self.operands, self.config
        bus, word = exact_log2(config.bus_bytes), exact_log2(config.results_per_word)

        # The highest position: of the last column (MATMUL, VECTOR), or of the column that is moved.
        is_matmul = Signal()
        is_load = Signal()
        by_token = Signal()
        column = Signal(COLUMN)
        token = Signal(POSITION_BITS)
        together = (o.opcode == Opcode.MATMUL) | (o.opcode == Opcode.VECTOR)
        m.d.sync += [
            is_matmul.eq(o.opcode == Opcode.MATMUL),
            is_load.eq(o.opcode == Opcode.LOAD),
            by_token.eq(holds(o.flags, Flag.TOKEN)),
            column.eq(o.column - together),
            token.eq(Array(self.tokens)[o.column]),
        ]
        place = Signal(POSITION_BITS + 1)
        m.d.sync += place.eq(Mux(by_token, token, self.position + column))

        # The same in units of `count`: tiles of a MATMUL, words of a LOAD, elements of a VECTOR.
        unit = Signal.like(place)
        with m.If(is_matmul):
            m.d.comb += unit.eq(place >> exact_log2(config.rows))
        with m.Elif(is_load):
            m.d.comb += unit.eq(place >> word)
        with m.Else():
            m.d.comb += unit.eq(place)
        by_length, by_length_k = holds(o.flags, Flag.LENGTH), holds(o.flags, Flag.LENGTH_K)
        # The vector unit finds the lengths of its columns itself, as they differ.
        m.d.sync += [
            self.count.eq(Mux(by_length & (o.opcode != Opcode.VECTOR), unit + 1, o.count)),
            self.k.eq(Mux(by_length_k, place + 1, o.k)),
            self.far.eq(
                (by_length & (unit >= o.count))
                | (by_length_k & (place >= o.k))
                | (holds(o.flags, INDEXED) & (place >= o.immediate))
            ),
            self.lane.eq(place),
            self.index.eq(place >> bus),
        ]
        with m.If(o.shift == 0):
            m.d.sync += [self.lane.eq(0), self.index.eq(place)]
        with m.Elif(o.shift == word):
            m.d.sync += [self.lane.eq(place[:word]), self.index.eq(place >> word)]
        return m
