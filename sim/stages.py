"""Shows the stages of long work: a bar on a terminal, elsewhere a line for each when it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TextColumn
from rich.progress_bar import ProgressBar


class Stage(NamedTuple):
    """What begins, and about how many seconds it takes."""

    name: str
    seconds: float


Report = Callable[[Stage], None]
"""What is told of each stage as it begins, for instance `Stages`."""


class _Clock(BarColumn):
    """A bar that fills with time; at the end of the estimate it waits for the stage."""

    def render(self, task: Task) -> ProgressBar:
        total = task.total or 1
        return ProgressBar(total=total, completed=min(task.elapsed or 0, total), width=40)


class Stages:
    """A context manager to call with each `Stage` as it begins."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"), _Clock(),
            TextColumn("{task.elapsed:.0f} of about {task.total:.0f} s"),
            console=self._console, transient=True, disable=not self._console.is_terminal,
        )  # fmt: skip
        self._stage: Stage | None = None
        self._started = 0.0

    def __enter__(self) -> Stages:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._bar.stop()

    def __call__(self, stage: Stage) -> None:
        self._end()
        self._stage, self._started = stage, time.monotonic()
        self._bar.add_task(stage.name, total=stage.seconds)

    def _end(self) -> None:
        for task in self._bar.task_ids:
            self._bar.remove_task(task)
        if self._stage is not None and not self._console.is_terminal:
            seconds = time.monotonic() - self._started
            self._console.print(f"{self._stage.name}: {seconds:.0f} s", soft_wrap=True)
        self._stage = None
