"""What a benchmark measures."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

SEED = 0


@dataclass(frozen=True)
class Figure:
    """One measured value. ``better`` says which side of the target is good."""

    name: str
    value: float
    unit: str
    target: float | None
    better: str = "higher"

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.better == "higher" else self.value <= self.target


def fastest(function: Callable[[], object], rounds: int) -> float:
    """Shortest wall time of ``rounds`` calls, in seconds."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return min(times)


def peak_bytes() -> int:
    """Peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
