"""Instructions as hardware sees them, and what every unit that executes them has in common."""

from amaranth.hdl import signed
from amaranth.lib import data
from amaranth.lib.wiring import In, Out, Signature

from golden.isa import FIELDS, ErrorCode, Flag, Opcode
from golden.isa import INDEXED as INDEXED

OPERANDS = data.StructLayout(
    {name: signed(width) if negative else width for name, (_, width, negative) in FIELDS.items()}
)
"""The fields of an instruction, as in `golden.isa.FIELDS`, in the order of their bits."""

assert [first for first, _, _ in FIELDS.values()] == [f.offset for _, f in OPERANDS]

ADDRESS = OPERANDS["address"].shape
"""Shape of a byte address in external memory, 32 bits."""
COUNT = OPERANDS["count"].shape
"""Shape of a number of tiles, words, beats or elements, 16 bits."""
K = OPERANDS["k"].shape
"""Shape of a number of weight slices, or of input channels, 16 bits."""
WORD = OPERANDS["src"].shape
"""Shape of the address of a scratchpad word as instructions hold it, 16 bits."""
COLUMN = OPERANDS["column"].shape
"""Shape of a column's number, or of a number of columns, 8 bits."""
BEATS = 32
"""Bits of the number of bus beats of a weight stream."""

POSITION_BITS = 24
"""Bits of a position in a sequence, and of a token."""

LANE_BITS = 7
"""Bits of the number of a byte or element within a bus beat of at most 128 bytes."""


def holds(flags, wanted: Flag):
    """High when at least one of the ``wanted`` flags is set in ``flags``."""
    return (flags & int(wanted)).any()


UNITS = {
    Opcode.MATMUL: "matmul",
    Opcode.LOAD: "load",
    Opcode.STORE: "store",
    Opcode.VECTOR: "vector",
}
"""Opcodes that a unit of its own executes, and the unit's name in ports."""

UnitSignature = Signature(
    {
        "start": Out(1),
        "operands": Out(OPERANDS),
        "lane": Out(LANE_BITS),
        "tag": Out(ADDRESS),
        "done": In(1),
    }
)
"""How the sequencer runs a unit, seen from the sequencer.

Members
-------
start (out, 1): Pulses when the unit is to begin with ``operands``.
operands (out, struct): The instruction, legal and resolved; stable from ``start`` to ``done``.
lane (out, 7): Which byte or element of each beat an indexed LOAD or STORE uses; stable likewise.
tag (out, 32): Address of the instruction, to name it in errors; stable likewise.
done (in, 1): Pulses when the unit takes no more from ``operands``, and what it leaves in the
    scratchpad may be used.
"""

FailureSignature = Signature({"failed": Out(1), "tag": Out(ADDRESS)})
"""A bus error, seen from the unit whose request failed.

Members
-------
failed (out, 1): Pulses when the memory answered with an error.
tag (out, 32): Address of the instruction that had asked; valid while ``failed`` is high.
"""

JobSignature = Signature(
    {"start": Out(1), "program": Out(ADDRESS), "watchdog": Out(32), "abort": Out(1)}
)
"""What the host wants, seen from its registers.

Members
-------
start (out, 1): Pulses when the host starts the machine; never while it is busy.
program (out, 32): Byte address of the first instruction.
watchdog (out, 32): Cycles without progress after which the machine stops; 0 for never.
abort (out, 1): Pulses when the host stops the machine.
"""

StatusSignature = Signature(
    {
        "busy": Out(1),
        "finished": Out(1),
        "error": Out(ErrorCode),
        "error_address": Out(ADDRESS),
    }
)
"""What the host may know, seen from the sequencer.

Members
-------
busy (out, 1): High from the start until the machine and the bus are at rest again.
finished (out, 1): High after HALT was reached, until the next start.
error (out, 3): Why the machine stopped, `golden.isa.ErrorCode`; NONE after the next start.
error_address (out, 32): Address of the instruction that stopped it, 0 without an error.
"""
