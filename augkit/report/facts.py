"""What a page tells of a run, as `augkit.lab.run_facts` gathers it from a run folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part` over `whole`, broadcast; nan where nothing was counted."""
    part, whole = np.broadcast_arrays(part, whole)
    return np.asarray(np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0))


@dataclass(frozen=True)
class Use:
    """How often images met the policy's own operators."""

    operators: list[str]
    """Names without repeats."""
    used: np.ndarray
    """[epochs, classes, operators] applications."""
    seen: np.ndarray
    """[epochs, classes] images."""
    strength: np.ndarray | None
    """[epochs, classes, operators], summed strengths 0..1; None where only `strength_sum` is stored."""
    strength_sum: np.ndarray
    """[classes, operators]."""
    graded: np.ndarray
    """[operators] bool: whether it has a strength, which may always have been 0."""


@dataclass(frozen=True)
class State:
    """A number that the policy learned, by class and epoch, or for all classes alike."""

    name: str
    values: np.ndarray
    """[epochs, classes], or [epochs, 1] if all share it: while the epoch's images were drawn."""


@dataclass(frozen=True)
class Table:
    """Numbers that the policy learned by operator, as they stood after the last epoch."""

    name: str
    operators: list[str]
    values: np.ndarray
    """[classes, operators], or [1, operators] if all classes share them."""


@dataclass
class Run:
    """A run folder's contents."""

    folder: Path
    recipe: dict[str, Any]
    """Resolved, as `recipe.yaml` has it."""
    policy: str
    """Its name."""
    epochs: int
    """That the recipe asks for, all stages together."""
    environment: dict[str, Any]
    records: list[dict[str, Any]]
    """One for each epoch that has ended."""
    summary: dict[str, Any] | None
    """None for a run that has not ended."""
    classes: list[dict[str, Any]]
    """`name`, `count` (real training images), `group`, and where they are known `images` and `accuracy`, `made`."""
    use: Use | None = None
    answers: np.ndarray | None = None
    """[epochs, classes] accuracy on training images, 0..1; nan where a class had none."""
    states: list[State] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    by_group: list[dict[str, str]] = field(default_factory=list)
    """Rows of `per_group.csv`."""
    intensity: dict[str, Any] | None = None
    robustness: dict[str, Any] | None = None
    words: str = ""
    """The strategy in words; empty if it could not be told."""
    document: str = ""
    missing: list[str] = field(default_factory=list)
    """Sentences on what a reader may look for and why it is not there."""

    @property
    def finished(self) -> bool:
        return self.summary is not None

    @property
    def measured(self) -> str:
        """What the last epoch's figures are of: `test` or `val`."""
        return "test" if self.recipe["test"] else "val"

    @property
    def title(self) -> str:
        return f"{self.recipe['name']}, {self.policy}, seed {self.recipe['seed']}"


@dataclass(frozen=True)
class Series:
    """The runs of one row of a comparison: the same recipe with other seeds."""

    name: str
    runs: list[Run]


@dataclass
class Comparison:
    """Several runs side by side."""

    folder: Path | None
    """Of `augkit compare`; None for runs that were named one by one."""
    title: str
    results: dict[str, Any]
    """As `results.json` has them: `rows` (each with a `name` of its own), `control`, `seeds`, `failed`, more."""
    lines: list[dict[str, str]]
    """The table: a line for each row, every cell as text."""
    notes: list[str]
    """What must be known to read the table."""
    series: list[Series]
    warnings: list[str] = field(default_factory=list)
    command: str = ""
    """That makes it again; empty where there is no such command."""
