"""What a host has of an accelerator, be it the golden model, a simulation or a board."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

from golden.config import AccelConfig
from golden.isa import ErrorCode
from golden.stream import Bytes


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    ``error_address`` is the address of the instruction that stopped the machine, 0 without error.
    ``counters``: those of `golden.registers.COUNTERS` that the machine has, by name.
    """

    error: ErrorCode = ErrorCode.NONE
    error_address: int = 0
    counters: dict[str, int] = field(default_factory=dict)


class Machine(Protocol):
    """One accelerator with its external memory; a context manager that closes it.

    ``memory``: uint8 [bytes], which the host may change between runs and programs change in place.
    """

    memory: Bytes

    def run(self, program: int, position: int = 0, tokens: Sequence[int] = ()) -> RunResult:
        """Run from address ``program`` until HALT or an error, which is in the result.

        ``position``: of the token in column 0; ``tokens``: of the columns, as far as it matters.
        Both are below 2**24.
        """
        ...

    def written_at(self, address: int) -> int | None:
        """The cycle in which the last run wrote the byte at ``address``; None where it did not, or
        where the machine has no clock."""
        ...

    def close(self) -> None:
        """Free what the machine holds; it is not used again."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *failure: object) -> None: ...


MachineFactory = Callable[[Bytes, AccelConfig], Machine]
"""Makes a machine with this memory, which it takes over."""
