"""How a run tells where it is: a bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from typing_extensions import Self


def describe(record: dict[str, Any], epochs: int) -> str:
    """'epoch 3/20  lr 0.1  loss 2.31  train 38.2 %  val 35.0 %  18.2 s (input 1.9 s)'."""
    parts = [f"epoch {record['epoch'] + 1}/{epochs}", f"lr {record['lr']:.3g}", f"loss {record['loss']:.4f}"]
    parts.append(f"train {record['train_accuracy']:.1%}")
    if record.get("subset", {}).get("seconds"):
        parts.append(f"chose {record['subset']['images']:,} in {record['subset']['seconds']:.1f} s")
    if "val" in record:
        parts.append(f"val {record['val']['all']:.1%}")
    of_input = f" (input {record['seconds_input']:.2f} s)" if record["seconds_input"] is not None else ""
    return "  ".join(parts) + f"  {record['seconds']:.1f} s{of_input}"


def tested(summary: Mapping[str, Any]) -> str:
    """'test accuracy after the last epoch: all 81.2%  many absent  medium 93.0%  few 70.1%'."""
    which = "test" if summary["test"] is not None else "val"
    return f"{which} accuracy after the last epoch: {_percent(summary[which])}"


def by_stage(stages: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each stage of several, 'after train (200 epochs): all 38.2%  ...'; none for a single one."""
    if len(stages) < 2 or stages[0]["test"] is None:
        return []
    return [f"after {stage['stage']} ({stage['epochs']} epochs): {_percent(stage['test'])}" for stage in stages]


def _percent(scores: Mapping[str, float | None]) -> str:
    return "  ".join(f"{name} {'absent' if value is None else f'{value:.1%}'}" for name, value in scores.items())


class Display:
    """Bars on a terminal while it is used as a context manager; `bar` is None elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=self.console, transient=True) if self.console.is_terminal else None

    def __enter__(self) -> Self:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def say(self, text: str) -> None:
        """A line, above the bars if there are any."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


class Reporter(Display):
    """Use as a context manager around a run; `step` and `epoch` say how far it is."""

    def __init__(self, title: str, epochs: int, done: int, console: Console | None = None) -> None:
        super().__init__(console)
        self.title, self.epochs = title, epochs
        if self.bar is not None:
            self.whole = self.bar.add_task(title, total=epochs, completed=done)
            self.part = self.bar.add_task("epoch", total=None)

    def step(self, done: int, of: int, what: str = "epoch") -> None:
        """A batch of something is finished."""
        if self.bar is not None:
            self.bar.update(self.part, completed=done, total=of, description=what)

    def epoch(self, record: dict[str, Any]) -> None:
        """An epoch is finished and its checkpoint written."""
        if self.bar is not None:
            self.bar.update(self.whole, advance=1)
        self.say(f"{self.title}  {describe(record, self.epochs)}")
