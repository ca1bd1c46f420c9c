"""A strategy bound to a data set's classes: tables that a draw indexes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from augkit.operators.base import Choice
from augkit.strategy.budget import slots
from augkit.strategy.model import BranchesStep, OneOfStep, OperatorStep, PickStep, Step, Strategy, UseStep
from augkit.strategy.probes import most_levels


@dataclass(frozen=True)
class Sizes:
    """How long each named axis is. `classes` is 1 when the data set's classes are not known."""

    classes: int = 1
    groups: int = 1
    samples: int = 1


class About(NamedTuple):
    """What a draw must know of an operator, in one row, since every look into a table costs."""

    low: float
    """Value at strength 0."""
    high: float
    """Value at strength 1."""
    turned: float
    """Probability of the other side of the identity: 0, or 0.5 where the value is signed."""
    mirror: float
    """A value v is `mirror - v` on that side; twice the identity."""
    has_value: float


class SubPolicies(NamedTuple):
    """A `one_of` whose alternatives are all constant operators: [A, S] tables, a row an alternative."""

    choice: Tensor
    p: Tensor
    strength: Tensor
    value: Tensor
    weight: Tensor
    """[A] float32, relative."""


@dataclass(frozen=True)
class Bound:
    """One strategy of a program (the document itself, or one that it uses) and where its palette begins."""

    strategy: Strategy
    path: str
    offset: int
    children: dict[str, Bound] = field(default_factory=dict)
    single: dict[str, int] = field(default_factory=dict)
    """Position in the table of each operator that is a step of its own, by path."""
    slots: dict[str, int] = field(default_factory=dict)
    """The most operators that each pick, or each branch, can draw, by path."""
    widths: dict[str, int] = field(default_factory=dict)
    """How many branches there are, by path."""
    tables: dict[str, SubPolicies] = field(default_factory=dict)
    """`one_of` lists that are constant, by path."""
    levels: int = 0
    """Length of the `levels` axis: the most levels that any probe can have."""

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
    about: Tensor
    """[choices + 1, 5] float32, see `About`; the last row, which -1 finds, stands for no operator."""
    draws: int
    """The most further uniform numbers that any operator here needs."""
    any_signed: bool

    def to(self, device: torch.device) -> Program:
        """The same tables on another device."""
        if self.about.device == device:
            return self
        for bound in self.bounds:
            bound.tables.update(
                {path: SubPolicies(*(t.to(device) for t in table)) for path, table in bound.tables.items()}
            )
        return replace(self, about=self.about.to(device))


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

    A palette's entries stay together, since its `ops` axis is an offset into the table; single operators are shared,
    but not between a document and those that it uses: what a policy did is counted apart from the base around it.
    """
    choices: list[Choice] = []
    bounds: list[Bound] = []
    _place(strategy, "", choices, bounds, [])
    return Program(
        bounds[0],
        tuple(bounds),
        sizes,
        tuple(choices),
        about=torch.tensor([*map(_about, choices), About(0.0, 0.0, 0.0, 0.0, 0.0)], dtype=torch.float32),
        draws=max((choice.operator.draws for choice in choices), default=0),
        any_signed=any(choice.signed for choice in choices),
    )


def counted_levels(program: Program) -> dict[str, int]:
    """Length of the axis levels of each probe that counts training answers, by its path and name."""
    return {
        bound.path + name: bound.levels
        for bound in program.bounds
        for name, probe in bound.strategy.probes.items()
        if probe.level is not None
    }


def _about(choice: Choice) -> About:
    other = 2 * (choice.operator.identity or 0.0)
    return About(choice.low, choice.high, 0.5 * choice.signed, other, float(choice.operator.has_value))


def _place(part: Strategy, path: str, choices: list[Choice], bounds: list[Bound], singles: list[int]) -> Bound:
    bound = Bound(part, path, len(choices), levels=most_levels(part))
    choices.extend(part.choices)
    bounds.append(bound)
    steps = [found for at, inside in part.lists.items() for found in steps_of(inside, at)]
    inner = singles if path else []
    for where, step in steps:
        if isinstance(step, OperatorStep):
            # shared among single operators only: a palette's columns count that palette's picks
            shared = next((i for i in singles if choices[i] == step.choice), None)
            if shared is None:
                shared = len(choices)
                choices.append(step.choice)
                singles.append(shared)
            bound.single[where] = shared
        elif isinstance(step, (PickStep, BranchesStep)):
            key = "pick" if isinstance(step, PickStep) else "branches"
            bound.slots[f"{where}.{key}"] = slots(step, where, part.typed, bound.ops)
            if isinstance(step, BranchesStep):
                bound.widths[f"{where}.branches"] = int(part.typed[f"{where}.branches.width"].low)
    for where, step in steps:
        if isinstance(step, OneOfStep):
            table = _table(bound, step, f"{where}.one_of")
            if table is not None:
                bound.tables[f"{where}.one_of"] = table
        elif isinstance(step, UseStep):
            bound.children[where] = _place(step.strategy, f"{path}{where}/", choices, bounds, inner)
    return bound


def _table(bound: Bound, step: OneOfStep, path: str) -> SubPolicies | None:
    """The constant table of a `one_of`, or None when something in it varies."""

    def constant(place: str) -> float:
        typed = bound.strategy.typed.get(place)
        value = typed.constant if typed is not None else None
        return math.nan if value is None else value

    width = max((len(alternative.steps) for alternative in step.alternatives), default=0)
    shape = (len(step.alternatives), width)
    choice = torch.full(shape, -1, dtype=torch.int64)
    p, strength, value = torch.zeros(shape), torch.full(shape, math.nan), torch.full(shape, math.nan)
    weight = torch.tensor([constant(f"{path}[{k}].weight") for k in range(shape[0])])
    for row, alternative in enumerate(step.alternatives):
        for column, inner in enumerate(alternative.steps):
            if not isinstance(inner, OperatorStep):
                return None
            key = f"{path}[{row}].steps[{column}]"
            place = f"{key}.{inner.choice.operator.name}"
            choice[row, column] = bound.single[key]
            p[row, column] = constant(f"{place}.p")
            strength[row, column] = constant(f"{place}.strength") if inner.value is None else 0.0
            value[row, column] = constant(f"{place}.value") if inner.value is not None else math.nan
            amount = value if inner.value is not None else strength
            if math.isnan(p[row, column]) or (inner.choice.operator.has_value and math.isnan(amount[row, column])):
                return None
    if weight.isnan().any():
        return None
    strength = torch.where(value.isnan(), strength, math.nan)
    return SubPolicies(choice, p, strength, value, weight)
