"""Instructions as hardware sees them."""

from amaranth.hdl import signed
from amaranth.lib import data

from golden.isa import FIELDS, Flag

OPERANDS = data.StructLayout(
    {name: signed(width) if negative else width for name, (_, width, negative) in FIELDS.items()}
)
"""The fields of an instruction, as in `golden.isa.FIELDS`, in the order of their bits."""

assert [first for first, _, _ in FIELDS.values()] == [f.offset for _, f in OPERANDS]


class Entry(data.Struct):
    """An instruction that waits for its turn.

    ``failed``: the memory did not give it; ``illegal``: it breaks a rule of `golden.isa.check`;
    ``far``: position or token are beyond its room. The first that is set stops the machine.
    ``operands``: what is to be done, with ``count``, ``k`` and ``address`` as they follow from the
    position; ``lane``: of a LOAD or STORE with an index; ``chained``: a MATMUL after another, whose
    results it does not need, for as many columns.
    """

    failed: 1
    illegal: 1
    far: 1
    lane: 7
    chained: 1
    operands: OPERANDS


POSITION_BITS = 24


INDEXED = Flag.INDEX | Flag.TOKEN


def holds(flags, wanted: Flag):
    """Whether one of the wanted flags is set."""
    return (flags & int(wanted)).any()
