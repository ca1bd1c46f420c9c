"""A strategy bound to a data set's classes: tables that a draw indexes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from augkit.operators.base import Choice
from augkit.strategy.model import OneOfStep, OperatorStep, Step, Strategy, UseStep


@dataclass(frozen=True)
class Sizes:
    """How long each named axis is. `classes` is 1 when the data set's classes are not known."""

    classes: int = 1
    groups: int = 1
    samples: int = 1


@dataclass(frozen=True)
class Bound:
    """One strategy of a program (the document itself, or one that it uses) and where its palette begins."""

    strategy: Strategy
    path: str
    offset: int
    children: dict[str, Bound] = field(default_factory=dict)

    @property
    def ops(self) -> int:
        """Length of the `ops` axis."""
        return len(self.strategy.choices)


@dataclass(frozen=True)
class Program:
    """Everything a draw needs but random numbers and learned state."""

    root: Bound
    bounds: tuple[Bound, ...]
    sizes: Sizes
    choices: tuple[Choice, ...]
    low: Tensor
    """[choices] float32 value at strength 0, and `high` at strength 1."""
    high: Tensor
    signed: Tensor
    has_value: Tensor
    draws: int
    """The most further uniform numbers that any operator here needs."""

    def to(self, device: torch.device) -> Program:
        """The same tables on another device."""
        if self.low.device == device:
            return self
        tables = {name: getattr(self, name).to(device) for name in ("low", "high", "signed", "has_value")}
        return Program(self.root, self.bounds, self.sizes, self.choices, draws=self.draws, **tables)


def steps_of(steps: tuple[Step, ...], path: str) -> Iterator[tuple[str, Step]]:
    """Every step with its path in the document, alternatives of `one_of` included, strategies in `use` not."""
    for position, step in enumerate(steps):
        place = f"{path}[{position}]"
        yield place, step
        if isinstance(step, OneOfStep):
            for number, alternative in enumerate(step.alternatives):
                yield from steps_of(alternative.steps, f"{place}.one_of[{number}].steps")


def bind(strategy: Strategy, sizes: Sizes) -> Program:
    """Lay out the palettes and single operators of a strategy and of every strategy it uses.

    A palette's entries stay together, since its `ops` axis is an offset into the table; single operators are shared.
    """
    choices: list[Choice] = []
    bounds: list[Bound] = []

    def place(part: Strategy, path: str) -> Bound:
        offset = len(choices)
        choices.extend(part.choices)
        bound = Bound(part, path, offset)
        bounds.append(bound)
        for where, step in steps_of(part.pipeline, "pipeline"):
            if isinstance(step, OperatorStep) and step.choice not in choices:
                choices.append(step.choice)
            elif isinstance(step, UseStep):
                bound.children[where] = place(step.strategy, f"{path}{where}/")
        return bound

    root = place(strategy, "")
    return Program(
        root,
        tuple(bounds),
        sizes,
        tuple(choices),
        low=torch.tensor([choice.low for choice in choices], dtype=torch.float32),
        high=torch.tensor([choice.high for choice in choices], dtype=torch.float32),
        signed=torch.tensor([choice.signed for choice in choices], dtype=torch.bool),
        has_value=torch.tensor([choice.operator.has_value for choice in choices], dtype=torch.bool),
        draws=max((choice.operator.draws for choice in choices), default=0),
    )
