"""What long work shows on a terminal: notes, a progress bar, a line about what is being written."""

from __future__ import annotations

import sys
from functools import partialmethod
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

notes = Console(stderr=True, highlight=False)


class Bar:
    """A progress bar for work that names its steps."""

    def __init__(self, title: str) -> None:
        self._bar = Progress(
            TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"),
            console=notes, transient=True, disable=not notes.is_terminal,
        )  # fmt: skip

    def __enter__(self) -> Any:
        self._bar.__enter__()
        task = self._bar.add_task("", total=None)

        def step(name: str, number: int, total: int) -> None:
            self._bar.update(task, description=name, completed=number, total=total)

        return step

    def __exit__(self, *failure: Any) -> None:
        self._bar.__exit__(*failure)


def silence_bars() -> None:
    """Switch off the bars of libraries, for logs, too; those that look for a terminal themselves,
    as downloads do, are left alone."""
    from tqdm import tqdm

    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)


class StatusLine:
    """A line below the text that standard output is getting; nothing where no terminal is.

    Clear it before more text is written: that may need its place.
    """

    def __init__(self) -> None:
        self._works = sys.stderr.isatty() and not notes.is_dumb_terminal

    def show(self, text: str) -> None:
        """Write the line; the cursor stays where it is."""
        # Down and up again, so that there is a line below; there and back; dim.
        self._write(f"\x1bD\x1bM\x1b7\x1b[B\r\x1b[2K\x1b[2m{text[: notes.width - 1]}\x1b[0m\x1b8")

    def clear(self) -> None:
        """Erase all behind the cursor."""
        self._write("\x1b[J")

    def _write(self, codes: str) -> None:
        if self._works:
            sys.stdout.flush()
            sys.stderr.write(codes)
            sys.stderr.flush()
