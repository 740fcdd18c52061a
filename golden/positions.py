"""Positions: what an instruction means for the tokens that a program runs for.

The host sets the position of the token in column 0, and the token of each column, before it starts
a program; column c holds the token at ``position + c``. Five flags make an instruction depend on
them (see `golden.isa.Flag`):

- LENGTH makes ``count`` a capacity: of MATMUL in tiles of ``rows`` positions, of LOAD in words of
  ``results_per_word``, of VECTOR in elements. As much is used as holds the positions that have been
  seen: ``position + columns`` by the last column of a MATMUL or VECTOR, ``position + column + 1``
  by the column of a LOAD. Columns of a VECTOR differ: `lengths`.
- LENGTH_K does the same for ``k`` of a MATMUL, in slices of one position.
- WINDOW leaves of a VECTOR with LENGTH only the last ``immediate`` elements of each column:
  `starts`. What else takes a column's length, as the divisor of a mean does, takes all of it.
- INDEX takes the column's position, TOKEN its token as the index of a LOAD or STORE. It must be
  below ``immediate``. Its low ``shift`` bits choose the lane of each beat; what is above them moves
  the address by ``k`` beats each.

An instruction that has no room for its position or token is *far*: it stops the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from golden.arith import Int64
from golden.config import AccelConfig
from golden.isa import INDEXED, Flag, Instruction, Opcode

# Operations on Flag itself take ten times as long as on int.
_LENGTH, _LENGTH_K, _TOKEN = int(Flag.LENGTH), int(Flag.LENGTH_K), int(Flag.TOKEN)
_INDEXED, _WINDOW = int(INDEXED), int(Flag.WINDOW)


@dataclass(frozen=True)
class Resolved:
    """A legal instruction at a position.

    ``instruction``: with the ``count``, ``k`` and ``address`` that are used; ``count`` of a VECTOR
    stays. ``index``: of a LOAD or STORE with an index, without its lane; ``lane``: which part of
    each beat it uses. ``far``: there is no room; the instruction is as it was.
    """

    instruction: Instruction
    index: int = 0
    lane: int = 0
    far: bool = False


def resolve(i: Instruction, position: int, tokens: Sequence[int], config: AccelConfig) -> Resolved:
    """What the legal instruction ``i`` does for column 0 at ``position``.

    ``tokens``: of each column, as far as columns with TOKEN go. Addresses do not wrap: those past
    the end of the address space are left to the bus.
    """
    if i.opcode is Opcode.MATMUL and i.flags & (_LENGTH | _LENGTH_K):
        seen = position + i.column
        count = -(-seen // config.rows) if i.flags & _LENGTH else i.count
        k = seen if i.flags & _LENGTH_K else i.k
        if count > i.count or k > i.k:
            return Resolved(i, far=True)
        return Resolved(replace(i, count=count, k=k))
    if i.opcode is Opcode.VECTOR and i.flags & _LENGTH:
        return Resolved(i, far=position + i.column > i.count)
    if i.opcode is Opcode.LOAD and i.flags & _LENGTH:
        count = -(-(position + i.column + 1) // config.results_per_word)
        return Resolved(i, far=True) if count > i.count else Resolved(replace(i, count=count))
    if i.opcode in (Opcode.LOAD, Opcode.STORE) and i.flags & _INDEXED:
        whole = tokens[i.column] if i.flags & _TOKEN else position + i.column
        index, lane = whole >> i.shift, whole & ((1 << i.shift) - 1)
        if whole >= i.immediate:
            return Resolved(i, index, lane, far=True)
        address = i.address + index * i.k * config.bus_bytes
        return Resolved(replace(i, address=address), index, lane)
    return Resolved(i)


def lengths(i: Instruction, position: int) -> Int64:
    """Elements of each column of a VECTOR, [columns]: the last has the most."""
    if i.flags & _LENGTH:
        return position + 1 + np.arange(i.column, dtype=np.int64)
    return np.full(i.column, i.count, np.int64)


def starts(i: Instruction, position: int) -> Int64:
    """The first element of each column of a VECTOR that counts, [columns]: 0 without WINDOW."""
    if i.flags & _WINDOW:
        return np.maximum(lengths(i, position) - i.immediate, 0)
    return np.zeros(i.column, np.int64)
