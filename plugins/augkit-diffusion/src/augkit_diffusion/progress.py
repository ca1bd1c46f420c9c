"""How a making tells where it is: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import TaskID

from augkit.lab.progress import Display

PAUSE = 30.0
"""Seconds between two lines."""


class Meter(Display):
    """Use as a context manager; call it with what goes on, how much of it is done, and of how much."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(console)
        self.tasks: dict[str, TaskID] = {}
        self.last = time.monotonic()

    def __call__(self, what: str, done: int, of: int) -> None:
        if self.bar is None:
            if time.monotonic() - self.last > PAUSE:
                self.last = time.monotonic()
                self.say(f"{what}: {done} of {of}")
            return
        kind = what.partition(" (")[0]  # "training (loss 0.12)" is one bar, whatever the loss
        if kind not in self.tasks:
            self.tasks[kind] = self.bar.add_task(what, total=of)
        self.bar.update(self.tasks[kind], description=what, completed=done, total=of)
