"""Instructions on their way from the fetch to the sequencer."""

from amaranth.lib import data

from ..lib.instruction import LANE_BITS, OPERANDS


class Entry(data.Struct):
    """An instruction that waits for its turn. The first of the three error bits that is set stops
    the machine.

    Fields
    ------
    failed (1): The memory answered the read of the instruction with an error.
    illegal (1): It breaks a rule of `golden.isa.check`.
    far (1): The position or a token is beyond what the instruction has room for.
    lane (7): Of an indexed LOAD or STORE, which byte or element of each beat it uses.
    chained (1): A MATMUL right after another one, for as many columns, whose results it does not
        read: it may begin while those are being written.
    operands (struct): The instruction; ``count``, ``k`` and ``address`` are resolved for the
        position (`golden.positions`).
    """

    failed: 1
    illegal: 1
    far: 1
    lane: LANE_BITS
    chained: 1
    operands: OPERANDS
