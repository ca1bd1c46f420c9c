"""What a search will take, told before it begins, and its time as soon as one training run has been timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from augkit_llm.budget import Budget, StopError, cost
from augkit_llm.records import Evaluation, Spent

if TYPE_CHECKING:
    from augkit_llm.evaluate import Stage

MOST = 10_000
"""Generations beyond which nobody counts."""


@dataclass(frozen=True)
class Estimate:
    """What is still to come if every strategy is valid, new and good enough to go on."""

    generations: int
    strategies: int
    runs: tuple[int, ...]
    """Training runs of each stage, those of controls included."""

    def seconds(self, first: Evaluation, stages: Sequence[Stage], jobs: int) -> float:
        """How long these runs take, by their epochs, if the first one is like the others."""
        lengths = {stage.name: stage.epochs for stage in stages}
        epochs = sum(runs * stage.epochs for runs, stage in zip(self.runs, stages, strict=True))
        return (first.seconds or 0.0) * epochs / lengths[first.stage] / jobs


def estimate(
    spent: Spent, budget: Budget, population: int, stages: Sequence[Stage], controls: Sequence[int]
) -> Estimate | None:
    """What the evaluations of a budget are enough for; None where they are not bounded.

    Args:
        spent: so far.
        budget: of the search.
        population: candidates of a full generation.
        stages: of the cascade.
        controls: training runs of controls and baselines that are still to be made, for each stage.
    """
    if budget.evaluations is None:
        return None
    runs = list(controls)
    generations, strategies, missing = 0, 0, sum(runs)
    for _ in range(MOST):
        try:
            slots = budget.slots(spent, population, stages, missing)
        except StopError:
            break
        going = slots
        for number, stage in enumerate(stages):
            runs[number] += going * stage.seeds
            going = going if stage.keep is None else min(going, stage.keep)
        generations, strategies = generations + 1, strategies + slots
        used = spent.evaluations + missing + cost(slots, stages)
        spent, missing = replace(spent, evaluations=used), 0
    return Estimate(generations, strategies, tuple(runs))
