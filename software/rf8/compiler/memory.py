"""Addresses in external memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

PAGE = 4096
"""Streams and buffers begin on multiples of this: no burst is cut short at their start."""


@dataclass
class Memory:
    """Lays out external memory; addresses ascend."""

    end: int = PAGE
    parts: list[tuple[int, NDArray[np.uint8]]] = field(default_factory=list)

    def reserve(self, size: int) -> int:
        """Address of ``size`` bytes that begin a page and are zero at the start."""
        address, self.end = self.end, pages(self.end + size)
        return address

    def put(self, data: NDArray[np.generic]) -> int:
        """Address of a copy of ``data``."""
        flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        address = self.reserve(flat.size)
        self.parts.append((address, flat))
        return address

    def section(self) -> tuple[int, NDArray[np.uint8]]:
        """All that was put, as one piece; nothing may have been reserved between."""
        first = self.parts[0][0]
        last, data = self.parts[-1]
        whole = np.zeros(last + data.size - first, np.uint8)
        for address, part in self.parts:
            whole[address - first : address - first + part.size] = part
        self.parts.clear()
        return first, whole


def pages(size: int) -> int:
    """``size`` in bytes, rounded up to whole pages."""
    return -(-size // PAGE) * PAGE
