"""Instruction check: is it legal, what of it is to be done, and where?"""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from golden.config import BIAS_PLANES, AccelConfig
from golden.isa import HEADED, READS_OTHER, Flag, Function, Opcode, Output

from ..lib.instruction import BEATS, COUNT, INDEXED, OPERANDS, POSITION_BITS, WORD, K, holds
from .positions import Positions
from .rules import Rules


class Step(enum.IntEnum, shape=2):
    """What the one adder of `Checker` sums up: where an operand ends in the scratchpad, or a
    product."""

    SOURCE = 0
    OTHER = 1
    TARGET = 2
    PRODUCT = 3


class Sum(data.Struct):
    """A sum to make: ``base + part + carry + times * factor``.

    Fields
    ------
    base (32), part (20), carry (1): Terms.
    times (25), factor (16): Factors of the product.
    bound (1): High when the sum must be the address of a word of the scratchpad.
    """

    base: 32
    part: 20
    carry: 1
    times: POSITION_BITS + 1
    factor: 16
    bound: 1


class Sums(wiring.Component):
    """The terms of each `Step` for an instruction.

    Ports
    -----
    operands (in, struct): The instruction; hold it for a cycle before reading ``o``, as what
        follows from it alone is a register.
    count (in, 16), k (in, 16), index (in, 25): What `Positions` makes of it.
    step (in, 2): Which sum; ``o`` follows it in the same cycle.
    o (out, struct): The terms, a `Sum`.
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "operands": In(OPERANDS),
                "count": In(COUNT),
                "k": In(K),
                "index": In(POSITION_BITS + 1),
                "step": In(Step),
                "o": Out(Sum),
            }
        )

    def elaborate(self, platform):
        m = Module()
        o, config, out = self.operands, self.config, self.o
        per_word, per_act = exact_log2(config.results_per_word), exact_log2(config.acts_per_word)
        is_matmul, is_vector, is_load = (
            self._known(m, f"is_{opcode.name.lower()}", o.opcode == opcode)
            for opcode in (Opcode.MATMUL, Opcode.VECTOR, Opcode.LOAD)
        )
        moves = self._known(m, "moves", (o.opcode == Opcode.LOAD) | (o.opcode == Opcode.STORE))
        lanes = self._known(m, "lanes", holds(o.flags, INDEXED) & (o.shift != 0))
        rotate = self._known(m, "rotate", o.function == Function.ROTATE)
        reads_other = self._known(
            m, "reads_other", Cat(o.function == function for function in READS_OTHER).any()
        )
        # n elements take (n - 1) // (elements of a word) words beside the first one.
        last = self._known(m, "last", (o.count - 1)[:16])
        last_k = self._known(m, "last_k", (o.k - 1)[:16])
        last_sine = self._known(m, "last_sine", (o.immediate - 1)[:16])
        segments = self._known(m, "more_segments", (o.segments - 1)[:4])
        lane_words = self._known(m, "lane_words", o.count + (config.results_per_word - 2))
        writes = self._known(m, "writes", o.output != Output.NONE)
        headed = self._known(m, "headed", Cat(o.output == kind for kind in HEADED).any())
        written = []  # (whether it is written so, log2 of the elements of a word)
        for elements, kinds in (
            (config.results_per_word, (Output.WORDS, Output.ROW)),
            (config.acts_per_word, (Output.BLOCK, Output.MANTISSAS)),
            (config.bus_bytes, (Output.CODES,)),
        ):
            name = f"writes_{kinds[0].name.lower()}"
            is_it = self._known(m, name, Cat(o.output == kind for kind in kinds).any())
            written.append((is_it, exact_log2(elements)))

        with m.Switch(self.step):
            with m.Case(Step.SOURCE):
                m.d.comb += [
                    out.base.eq(Mux(is_load, o.dst, o.src)),
                    out.part.eq(Mux(lanes, lane_words[:17] >> per_word, last)),
                    out.factor.eq(o.src_stride),
                    out.times.eq(Mux(is_vector, segments, 0)),
                    out.bound.eq(moves | is_matmul | is_vector),
                ]
                with m.If(is_matmul):
                    m.d.comb += [out.part.eq(last_k >> per_act), out.carry.eq(1)]
                with m.If(is_vector):
                    m.d.comb += out.part.eq(last >> per_word)
            with m.Case(Step.OTHER):
                m.d.comb += [
                    out.base.eq(o.other),
                    out.part.eq(Mux(rotate, (last_sine << 1) | 1, last >> per_word)),
                    out.factor.eq(o.other_stride),
                    out.times.eq(segments),
                    out.bound.eq(reads_other),
                ]
            with m.Case(Step.TARGET):
                m.d.comb += [
                    out.base.eq(o.dst),
                    out.factor.eq(o.dst_stride),
                    out.times.eq(segments),
                    out.bound.eq(writes),
                ]
                m.d.comb += out.carry.eq(headed)
                for kind, shift in written:
                    with m.If(kind):
                        m.d.comb += out.part.eq(last >> shift)
                with m.If(is_matmul):
                    tile = exact_log2(config.rows // config.results_per_word)
                    words = (last << tile) | ((1 << tile) - 1)
                    m.d.comb += [out.part.eq(words), out.carry.eq(0), out.times.eq(0)]
            with m.Case(Step.PRODUCT):
                # The length of a weight stream, or an address, in beats.
                bias = holds(o.flags, Flag.BIAS)
                header = Mux(bias, BIAS_PLANES, 1)
                m.d.comb += [
                    out.base.eq(Mux(is_matmul, config.slices_per_beat - 1, self.address())),
                    out.factor.eq(Mux(is_matmul, self.k + header, o.k)),
                    out.times.eq(Mux(is_matmul, self.count, self.index)),
                ]
        return m

    def address(self):
        """Where the operands point to, in beats."""
        return self.operands.address >> exact_log2(self.config.bus_bytes)

    def _known(self, m, name: str, value):
        """A register for what is known a cycle after the operands."""
        register = Signal(value.shape(), name=name)
        m.d.sync += register.eq(value)
        return register


class Checker(wiring.Component):
    """Judges instructions, one after the other.

    One adder does all sums, and products bit by bit: where operands end in the scratchpad, then the
    length of a weight stream, or the address of an indexed move. From ``start`` to ``done``: 4
    cycles for a plain LOAD or STORE, 8 and a cycle for each bit of `count` for a MATMUL, 8 to 20
    for a VECTOR, 6 and a cycle for each bit of the index where there is one.

    Ports
    -----
    start (in, 1): Pulses in the cycle before ``operands`` has the instruction.
    operands (in, struct): The instruction; keep it for as long as the answers are wanted.
    position (in, 24): Position of the token in column 0.
    tokens (in, 24, for each column): The tokens.
    done (out, 1): Pulses in the cycle before the answers below are there; they stay until
        ``start``.
    legal (out, 1): High when no rule of `golden.isa.check` is broken.
    far (out, 1): High when the position or a token is beyond what the instruction has room for.
    lane (out, 7): Of an indexed LOAD or STORE, which byte or element of each beat it uses.
    resolved (out, struct): The instruction with ``count``, ``k`` and ``address`` as they follow
        from the position.
    beats (out, 32): Bus beats of a MATMUL's weight stream.
    taken (in, 1): Pulses in the cycle after the instruction was handed on.
    first (in, 1): Pulses when a program begins: the next instruction has none before it.
    chained (out, 1): High for a MATMUL right after another one, for as many columns, whose source
        lies apart from what that one writes.
    """

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "operands": In(OPERANDS),
                "position": In(POSITION_BITS),
                "tokens": In(POSITION_BITS).array(config.cols),
                "done": Out(1),
                "legal": Out(1),
                "far": Out(1),
                "lane": Out(7),
                "resolved": Out(OPERANDS),
                "beats": Out(BEATS),
                "taken": In(1),
                "first": In(1),
                "chained": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, o = self.config, self.operands
        m.submodules.rules = rules = Rules(config)
        m.submodules.places = places = Positions(config)
        m.submodules.sums = sums = Sums(config)
        is_matmul = Signal()
        is_vector = Signal()
        indexed = Signal()
        m.d.sync += [
            is_matmul.eq(o.opcode == Opcode.MATMUL),
            is_vector.eq(o.opcode == Opcode.VECTOR),
            indexed.eq(holds(o.flags, INDEXED)),
        ]
        # The terms of the next step are found while those of this one are summed up.
        step = Signal(Step)
        ahead = Signal(Step)
        terms = Signal(Sum)
        m.d.sync += terms.eq(sums.o)
        total = Signal(BEATS)
        bound = Signal()
        m.d.comb += [
            *(unit.operands.eq(o) for unit in (rules, places, sums)),
            *(places.tokens[c].eq(self.tokens[c]) for c in range(config.cols)),
            places.position.eq(self.position),
            *(getattr(sums, name).eq(getattr(places, name)) for name in ("count", "k", "index")),
            sums.step.eq(ahead),
            self.resolved.eq(o),
            self.resolved.count.eq(places.count),
            self.resolved.k.eq(places.k),
            self.lane.eq(places.lane),
            self.far.eq(places.far),
            self.beats.eq(total >> exact_log2(config.slices_per_beat)),
        ]
        with m.If(indexed):
            m.d.comb += self.resolved.address.eq(total << exact_log2(config.bus_bytes))

        added = self._sum_up(m, terms, step, ahead, total, bound, is_matmul, is_vector, indexed)
        ends = {Step.SOURCE: Signal(WORD, name="source"), Step.TARGET: Signal(WORD, name="target")}
        for what, end in ends.items():
            with m.If(added & (step == what)):
                m.d.sync += end.eq(total)
        fits = self._fits(m, total, bound, added, step, is_matmul, ends[Step.SOURCE])
        m.d.comb += self.legal.eq(fits & ~rules.refused)
        self._chain(m, is_matmul, *ends.values())
        return m

    def _sum_up(self, m, terms, step, ahead, total, bound, is_matmul, is_vector, indexed):
        """Step after step: a sum, then a product bit by bit, added to it. Gives the signal that
        pulses when ``total`` is that of ``step``."""
        added = Signal()
        factor = Signal(BEATS)
        times = Signal.like(terms.times)
        with m.FSM():
            with m.State("IDLE"), m.If(self.start):
                m.d.sync += ahead.eq(Step.SOURCE)
                m.next = "DECODE"
            with m.State("DECODE"):
                m.next = "TERMS"
            with m.State("TERMS"):
                m.next = "SUM"
            with m.State("SUM"):
                m.d.sync += [
                    # base + part + carry with one adder: the carry comes in as a bit below both.
                    total.eq((Cat(1, terms.base) + Cat(terms.carry, terms.part)) >> 1),
                    factor.eq(terms.factor),
                    times.eq(terms.times),
                    bound.eq(terms.bound),
                    step.eq(ahead),
                ]
                with m.If(ahead == Step.SOURCE):
                    after = Mux(is_matmul, Step.TARGET, Step.PRODUCT)
                    m.d.sync += ahead.eq(Mux(is_vector, Step.OTHER, after))
                with m.Else():
                    m.d.sync += ahead.eq(Mux(ahead == Step.OTHER, Step.TARGET, Step.PRODUCT))
                m.next = "MULTIPLY"
            with m.State("MULTIPLY"):
                m.d.sync += [factor.eq(factor << 1), times.eq(times >> 1)]
                m.d.comb += added.eq(times == 0)
                with m.If(times[0]):
                    m.d.sync += total.eq(total + factor)
                with m.If(added):
                    m.next = "SUM"
                    with m.Switch(step):
                        with m.Case(Step.SOURCE):
                            m.d.comb += self.done.eq(~(is_vector | is_matmul | indexed))
                        with m.Case(Step.TARGET):
                            m.d.comb += self.done.eq(is_vector)
                        with m.Case(Step.PRODUCT):
                            m.d.comb += self.done.eq(1)
                    with m.If(self.done):
                        m.next = "IDLE"
        return added

    def _chain(self, m, is_matmul, source_end, target_end) -> None:
        """Whether a MATMUL needs nothing of the instruction before it but the array."""
        o = self.operands
        before = Signal()
        columns = Signal.like(o.column)
        first = Signal.like(o.dst)
        last = Signal.like(o.dst)
        with m.If(self.first):
            m.d.sync += before.eq(0)
        with m.Elif(self.taken):
            m.d.sync += [before.eq(is_matmul), columns.eq(o.column)]
            m.d.sync += [first.eq(o.dst), last.eq(target_end)]
        apart = (source_end < first) | (o.src > last)
        m.d.sync += self.chained.eq(before & is_matmul & (o.column == columns) & apart)

    def _fits(self, m, total, bound, added, step, is_matmul, source_end) -> Signal:
        """Whether all places so far exist, and a MATMUL's do not overlap."""
        config, o = self.config, self.operands
        fits = Signal()
        before = Signal()
        outside = bound & (total >> exact_log2(config.scratch_words)).any()
        overlap = is_matmul & (step == Step.TARGET) & ~before & (total[:16] >= o.src)
        m.d.sync += before.eq(source_end < o.dst)
        with m.If(self.start):
            m.d.sync += fits.eq(1)
        with m.Elif(added):
            m.d.sync += fits.eq(fits & ~outside & ~overlap)
        return fits
