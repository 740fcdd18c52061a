"""Places in the scratchpad."""

from __future__ import annotations

from rf8.errors import DataError


class Scratchpad:
    """Which words of the banks are in use; all banks alike."""

    def __init__(self, words: int, model: str) -> None:
        self._words, self._model = words, model
        self._used: dict[int, int] = {}
        self.most = 0

    def take(self, words: int) -> int:
        """First word of a free run of ``words``.

        Raises
        ------
        DataError
            Where there is none.
        """
        start = 0
        for first in sorted(self._used):
            if first - start >= words:
                break
            start = first + self._used[first]
        if start + words > self._words:
            raise DataError(
                f"{self._model}: an operation needs {words} words of the scratchpad beside what "
                f"is in use, more than its {self._words}: use a config with more scratch_words, "
                "or a shorter context"
            )
        self._used[start] = words
        self.most = max(self.most, start + words)
        return start

    def free(self, *starts: int) -> None:
        """Give runs back."""
        for start in starts:
            del self._used[start]

    def room(self) -> int:
        """Words of the longest free run."""
        ends, best = 0, 0
        for first in [*sorted(self._used), self._words]:
            best = max(best, first - ends)
            ends = first + self._used.get(first, 0)
        return best
