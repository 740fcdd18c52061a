"""Configurations of the accelerator: every size has its one home here.

A configuration is a frozen value with a name. The golden machine, the hardware generator, the
simulator and the compiler all take one, so that an image compiled for a configuration can be
checked against the machine that is asked to run it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from golden.format import SIGNIFICANDS, SPANS
from golden.forms import SHARED, SHIFTED, Forms

INSTRUCTION_BYTES = 32
"""Size of an encoded instruction; its slot in memory is one bus beat when that is wider."""

RESULT_BITS = 32
"""Width of a result element: two's-complement fixed point."""

RESULT_FRAC = 16
"""Fraction bits of a result element: values up to 32,768 at a resolution of 2**-16."""

BIAS_PLANES = 5
"""Header slices of a tile with a layer bias: one of row exponents, four of int32 bytes."""

MAX_SIGNIFICAND = max(SIGNIFICANDS)


def signed_bits(magnitude: int) -> int:
    """Bits of a two's-complement number that holds every value in [-magnitude, magnitude]."""
    return magnitude.bit_length() + 1


def _power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


@dataclass(frozen=True, kw_only=True)
class AccelConfig:
    """One accelerator.

    Raises
    ------
    ValueError
        On construction, when a field cannot exist; the message names field, value and choices.
    """

    name: str
    rows: int
    """Output channels that are computed side by side; one weight byte each per cycle."""
    cols: int
    """Tokens that are computed side by side; each has a bank of the scratchpad."""
    bus_bytes: int
    """Bytes of one beat of the external memory bus: ``rows`` times 1, 2 or 4."""
    act_bits: int = 16
    """Bits of an activation mantissa: 8 or 16."""
    align: int = 4
    """Low exponent bits that a lane shifts by (f); the bits above choose the bin."""
    span: int = 16
    """Exponents that a lane keeps."""
    max_k: int = 4096
    """Longest dot product that the accumulators are proven for."""
    scratch_words: int = 1024
    """Depth of each scratchpad bank, in words of ``bus_bytes``."""
    fifo_beats: int = 512
    """Depth of the weight FIFO, in beats: how far the fetch runs ahead of the array."""
    burst_beats: int = 16
    """Longest burst on the bus; bursts end on multiples of it, so none crosses 4 KiB."""
    queue: int = 4
    """Instructions that wait, decoded, for their turn."""
    addr_bits: int = 32
    """Width of an address on the external bus."""

    def __post_init__(self) -> None:
        def need(ok: bool, field: str, allowed: str) -> None:
            if not ok:
                value = getattr(self, field)
                raise ValueError(f"config {self.name!r}: {field} is {value!r}, must be {allowed}")

        need(_power_of_two(self.rows) and 2 <= self.rows <= 128, "rows", "a power of two, 2 to 128")
        need(1 <= self.cols <= 16, "cols", "1 to 16")
        need(
            self.bus_bytes in (self.rows, 2 * self.rows, 4 * self.rows)
            and 4 <= self.bus_bytes <= 128,
            "bus_bytes",
            f"rows x 1, 2 or 4 (rows is {self.rows}), and 4 to 128",
        )
        need(self.act_bits in (8, 16), "act_bits", "8 or 16")
        need(0 <= self.align <= 4, "align", "0 to 4")
        need(self.span in SPANS, "span", "one of " + ", ".join(map(str, SPANS)))
        need(1 <= self.max_k <= 32768, "max_k", "1 to 32768")
        need(
            _power_of_two(self.scratch_words) and 16 <= self.scratch_words <= 32768,
            "scratch_words",
            "a power of two, 16 to 32768",
        )
        need(
            _power_of_two(self.burst_beats)
            and 1 <= self.burst_beats <= 256
            and self.burst_beats * self.bus_bytes <= 4096,
            "burst_beats",
            f"a power of two, 1 to {min(256, 4096 // self.bus_bytes)}",
        )
        need(
            _power_of_two(self.fifo_beats) and self.fifo_beats >= 2 * self.burst_beats,
            "fifo_beats",
            f"a power of two, at least two bursts ({2 * self.burst_beats})",
        )
        need(2 <= self.queue <= 64, "queue", "2 to 64")
        need(16 <= self.addr_bits <= 32, "addr_bits", "16 to 32")

    # Shapes that follow from the fields.

    @property
    def slices_per_beat(self) -> int:
        """Weight slices (``rows`` bytes each) in one bus beat."""
        return self.bus_bytes // self.rows

    @property
    def acts_per_word(self) -> int:
        """Activation mantissas in one scratchpad word."""
        return self.bus_bytes * 8 // self.act_bits

    @property
    def results_per_word(self) -> int:
        """Results in one scratchpad word."""
        return self.bus_bytes * 8 // RESULT_BITS

    @property
    def slot_bytes(self) -> int:
        """Bytes from one instruction of a program to the next."""
        return max(INSTRUCTION_BYTES, self.bus_bytes)

    @property
    def forms(self) -> Forms:
        """How lanes make products."""
        return SHARED if self.span <= 1 << self.align else SHIFTED

    @property
    def bins(self) -> int:
        """Accumulators ("bins") of one lane."""
        return -(-(self.span + self.forms.spread) // (1 << self.align))

    @property
    def bin_bits(self) -> int:
        """Width of a bin: it holds ``max_k`` terms of one bin at their largest, no more."""
        largest = self.forms.largest_in_bin(self.span, self.align)
        return signed_bits(self.max_k * largest << (self.act_bits - 1))

    @property
    def acc_bits(self) -> int:
        """Width of a whole dot product: ``max_k`` terms at their largest."""
        return signed_bits(self.max_k * (MAX_SIGNIFICAND << (self.span - 1)) << (self.act_bits - 1))

    @property
    def result_shift(self) -> int:
        """What an instruction adds to row and activation exponents so that results come out with
        ``RESULT_FRAC`` fraction bits: codes weigh 2**-4, and a narrow span drops low zeros."""
        return RESULT_FRAC - 4 + (16 - self.span)

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
        return asdict(self)

    def replace(self, **changes: Any) -> AccelConfig:
        """A configuration that differs in the given fields."""
        return replace(self, **changes)


CONFIGS: dict[str, AccelConfig] = {
    config.name: config
    for config in (
        # Small enough for cocotb and formal proofs; odd on purpose: bins and columns in play.
        AccelConfig(
            name="tiny",
            rows=4,
            cols=2,
            bus_bytes=4,
            align=2,
            span=16,
            max_k=1024,
            scratch_words=1024,
            fifo_beats=32,
            burst_beats=8,
        ),
        # A mid-size FPGA without DSP blocks: narrow bins in LUT-RAM, a 128-bit bus.
        AccelConfig(
            name="ecp5",
            rows=16,
            cols=4,
            bus_bytes=16,
            align=1,
            span=8,
            max_k=4096,
            scratch_words=2048,
            fifo_beats=512,
            burst_beats=64,
        ),
        # Fast to simulate: one wide accumulator a lane, a cache-line-wide bus.
        AccelConfig(
            name="sim",
            rows=64,
            cols=4,
            bus_bytes=64,
            align=4,
            span=16,
            max_k=16384,
            scratch_words=2048,
            fifo_beats=512,
            burst_beats=64,
        ),
    )
}


def get_config(name: str) -> AccelConfig:
    """The named configuration.

    Raises
    ------
    ValueError
        Where there is none of that name; the message lists those there are.
    """
    if name not in CONFIGS:
        raise ValueError(f"no config {name!r}; there are: {', '.join(CONFIGS)}")
    return CONFIGS[name]
