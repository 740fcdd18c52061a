"""Writeback: dot products leave the array, are scaled, packed and written to the scratchpad."""

from itertools import pairwise

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, Signature
from amaranth.utils import exact_log2

from golden.config import BIAS_PLANES, RESULT_BITS, AccelConfig

from ..lib.adders import count_ones
from ..lib.instruction import OPERANDS
from ..memory.scratchpad import write_each
from ..memory.weight_fetch import slice_signature
from .array import array_results
from .requantize import Requantizer


def headers(config: AccelConfig) -> Signature:
    """Header slices and exponents, seen from `Matmul`.

    Members
    -------
    valid (out, 1): High when the slice of this cycle is a header slice of the coming tile.
    plane (out, 3): Which one: 0 has row exponents, 1 to 4 are bytes of the layer bias.
    bare (out, 1): High when tiles have no bias planes; constant while an instruction is under way.
    take (out, 1): Pulses when the tile whose header came last is complete: its header is needed
        from now on.
    exponent (out, signed 8, for each column): Shared exponent of the column's activations; constant
        until ``take`` of the last tile.
    """
    return Signature(
        {
            "valid": Out(1),
            "plane": Out(range(BIAS_PLANES)),
            "bare": Out(1),
            "take": Out(1),
            "exponent": Out(signed(8)).array(config.cols),
        }
    )


class Writeback(wiring.Component):
    """Requantises the results of one row for all columns, each cycle at most, and writes them.

    A word is written `latency` cycles after its last dot product came.

    Ports
    -----
    start (in, 1): Pulses when a MATMUL starts, with its ``operands``. Results of the one before may
        be still to come, unless ``full`` is high.
    operands (in, struct): The MATMUL that was started last.
    full (out, 1): High when one MATMUL is being written and another waits: no third may start.
    headers (in, `headers`): Headers of tiles.
    slice (in, `slice_signature`): The weight slice that may be a header.
    results (in, `array_results`): Dot products of the array.
    active (in, cols): A bit for each column: high when it takes part. Constant while results are to
        come.
    write (out, `write_each`): To the scratchpad.
    saturated (out, log2(cols + 1)): How many results saturated, `latency` cycles after their dot
        products came.
    idle (out, 1): High when nothing is under way.
    """

    latency = Requantizer.latency + 2

    def __init__(self, config: AccelConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "operands": In(OPERANDS),
                "full": Out(1),
                "headers": In(headers(config)),
                "slice": In(slice_signature(config)),
                "results": In(array_results(config)),
                "active": In(config.cols),
                "write": Out(write_each(config)),
                "saturated": Out(range(config.cols + 1)),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        taken = Signal()
        m.d.sync += taken.eq(self.headers.take)
        picked = self._headers(m, taken)

        per_word = self.config.results_per_word
        delayed = [self.results.valid] + [Signal(name=f"valid{n}") for n in range(self.latency - 1)]
        for before, after in pairwise(delayed):
            m.d.sync += after.eq(before)
        place = Signal(range(max(2, per_word)))
        full = Signal()
        write = Signal()
        m.d.comb += full.eq(delayed[-1] & (place == per_word - 1))
        with m.If(delayed[-1]):
            m.d.sync += place.eq(place + 1)
            with m.If(full):
                m.d.sync += place.eq(0)
        m.d.sync += write.eq(full)
        self._places(m, write)
        m.d.comb += [
            self.idle.eq(~(Cat(delayed).any() | write)),
            self.write.enable.eq(write.replicate(self.config.cols) & self.active),
        ]
        self._requantize(m, taken, picked)
        return m

    def _headers(self, m, taken):
        """The planes of the header of the row that comes in the next cycle.

        One wide register for each plane, row r in byte r. `coming` is filled while the tile before
        is still leaving the array; the next tile's last slice may come while the last row of the
        tile before is still in the combiner, hence a cycle of delay.
        """
        headers = self.headers
        # Registers on the way to those of the headers, which are many and far away.
        header = Signal()
        plane_in = Signal.like(headers.plane)
        slice_in = Signal(8 * self.config.rows, reset_less=True)
        m.d.sync += [
            header.eq(headers.valid),
            plane_in.eq(headers.plane),
            slice_in.eq(Cat(self.slice.bytes)),
        ]
        picked = []
        for plane in range(BIAS_PLANES):
            coming = Signal.like(slice_in, name=f"coming{plane}", reset_less=True)
            current = Signal.like(slice_in, name=f"current{plane}", reset_less=True)
            with m.If(header & (plane_in == plane)):
                m.d.sync += coming.eq(slice_in)
            with m.If(taken):
                m.d.sync += current.eq(Mux(headers.bare, 0, coming) if plane else coming)
            pick = Signal(8, name=f"picked{plane}", reset_less=True)
            m.d.sync += pick.eq(current.word_select(self.results.next_row, 8))
            picked.append(pick)
        return picked

    def _requantize(self, m, taken, picked) -> None:
        """Each column's results, packed to words."""
        row_exponent = picked[0].as_signed()
        saturated = []
        for column in range(self.config.cols):
            m.submodules[f"requant{column}"] = requant = Requantizer(self.config)
            scale = Signal(signed(9), name=f"scale{column}")
            with m.If(taken):
                m.d.sync += scale.eq(self.headers.exponent[column] + self.operands.shift)
            m.d.sync += [
                requant.valid.eq(self.results.valid & self.active[column]),
                requant.dot.eq(self.results.dot[column]),
                requant.scale.eq(row_exponent + scale),
                requant.bias.eq(Cat(picked[1:]).as_signed()),
            ]
            word = Signal(8 * self.config.bus_bytes, name=f"word{column}", reset_less=True)
            with m.If(requant.result_valid):
                m.d.sync += word.eq(Cat(word[RESULT_BITS:], requant.result))
            m.d.comb += self.write.data[column].eq(word)
            saturated.append(requant.saturated)
        m.d.sync += self.saturated.eq(count_ones(saturated))

    def _places(self, m, write) -> None:
        """Where the next word goes: one place on, or where the next instruction's begin."""
        config = self.config
        dst = self.operands.dst[: len(self.write.address)]
        words = self.operands.count << exact_log2(config.rows // config.results_per_word)
        left = Signal(len(words))
        next_left = Signal(len(words))
        next_address = Signal.like(self.write.address)
        ends = Signal()
        m.d.comb += ends.eq(write & (left == 1))
        with m.If(write):
            m.d.sync += [left.eq(left - 1), self.write.address.eq(self.write.address + 1)]
        with m.If(self.start):
            m.d.sync += [next_address.eq(dst), next_left.eq(words)]
        with m.If(ends | (left == 0)):
            m.d.sync += [
                self.write.address.eq(Mux(self.full, next_address, dst)),
                left.eq(Mux(self.full, next_left, Mux(self.start, words, 0))),
                self.full.eq(0),
            ]
        with m.Elif(self.start):
            m.d.sync += self.full.eq(1)
