"""Tokens as they come: shown as text, and timed."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from rf8.console import StatusLine
from rf8.program.image import Program
from rf8.runtime.session import Session


@dataclass(frozen=True)
class Generated:
    """New tokens ``ids``, their text (None without a tokenizer), seconds until the first and tokens
    a second after it (None without any)."""

    prompt_ids: list[int]
    ids: list[int]
    text: str | None
    first_token_seconds: float | None
    tokens_per_second: float | None

    @property
    def speed(self) -> str:
        """The two times, in words."""
        if self.first_token_seconds is None:
            return ""
        rate = self.tokens_per_second
        then = "" if rate is None else f", then {rate:.2f} tokens/s"
        return f"first token after {self.first_token_seconds:.1f} s{then}"


class Text:
    """Shows tokens as they come: as text where the model has a tokenizer, else as numbers.

    ``quiet``: not at all. ``hidden``: tokens that are not shown.
    """

    def __init__(self, program: Program, *, quiet: bool, hidden: Collection[int] = ()) -> None:
        self._tokenizer, self._quiet, self._hidden = program.tokenizer(), quiet, hidden
        self._ids: list[int] = []
        self._shown = 0

    def of(self, ids: list[int]) -> str | None:
        """The text of all but hidden tokens, without special ones; None without a tokenizer."""
        if self._tokenizer is None:
            return None
        return str(self._tokenizer.decode([token for token in ids if token not in self._hidden]))

    def show(self, ids: list[int]) -> None:
        """Write what these tokens add to the text."""
        self._ids += ids
        if self._quiet:
            return
        if self._tokenizer is None:
            print(*ids, end=" ", flush=True)
            return
        text = self.of(self._ids) or ""
        # A character may need several tokens: wait for the rest of it.
        self._write(text.rstrip("\N{REPLACEMENT CHARACTER}"))

    def end(self) -> None:
        """Write what is left, and end the line."""
        if self._quiet:
            return
        self._write(self.of(self._ids) or "")
        print()

    def _write(self, text: str) -> None:
        print(text[self._shown :], end="", flush=True)
        self._shown = max(self._shown, len(text))


def generate(
    session: Session, prompt: list[int], max_new_tokens: int, text: Text, **options: Any
) -> Generated:
    """What `Session.stream` gives, with the same options, shown as it comes; on a terminal with its
    speed."""
    status, started = StatusLine(), time.perf_counter()
    found = Generated(prompt, [], text.of([]), None, None)
    status.show(f"reading {len(prompt)} tokens")
    try:
        for token in session.stream(prompt, max_new_tokens, **options):
            now = time.perf_counter() - started
            first = now if found.first_token_seconds is None else found.first_token_seconds
            ids = [*found.ids, token]
            rate = (len(ids) - 1) / max(now - first, 1e-9) if len(ids) > 1 else None
            found = Generated(prompt, ids, None, first, rate)
            status.clear()
            text.show([token])
            status.show(found.speed)
    finally:
        status.clear()
    text.end()
    return replace(found, text=text.of(found.ids))
