"""How a making tells where it is: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

PAUSE = 30.0
"""Seconds between two lines."""


class Meter:
    """Use as a context manager; call it with what goes on, how much of it is done, and of how much."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=self.console, transient=True) if self.console.is_terminal else None
        self.tasks: dict[str, TaskID] = {}
        self.last = time.monotonic()

    def __enter__(self) -> Meter:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, what: str, done: int, of: int) -> None:
        if self.bar is None:
            if time.monotonic() - self.last > PAUSE:
                self.last = time.monotonic()
                self.console.print(f"{what}: {done} of {of}", highlight=False, markup=False, soft_wrap=True)
            return
        kind = what.partition(" (")[0]  # "training (loss 0.12)" is one bar, whatever the loss
        if kind not in self.tasks:
            self.tasks[kind] = self.bar.add_task(what, total=of)
        self.bar.update(self.tasks[kind], description=what, completed=done, total=of)
