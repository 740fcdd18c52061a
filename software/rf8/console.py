"""What long work shows on a terminal: notes and a progress bar."""

from __future__ import annotations

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
