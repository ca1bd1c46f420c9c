"""What a search will take, told before it begins, and its time as soon as one training run has been timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from augkit_llm.budget import Budget, StopError, cost
from augkit_llm.records import READY, Evaluation, Spent

if TYPE_CHECKING:
    from augkit_llm.archive import Archive
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


@dataclass(frozen=True)
class UnderWay:
    """What a search that was interrupted still has to do for the generation that it was at."""

    slots: int = 0
    """To be filled."""
    runs: tuple[int, ...] = ()
    """Training runs of each stage at most; empty if there are none."""


def under_way(archive: Archive, stages: Sequence[Stage]) -> UnderWay:
    """What is missing of the last generation."""
    candidates = archive.candidates()
    (row,) = archive.rows("SELECT max(number) AS last FROM generations")
    own = [one for one in candidates if one.generation == row["last"]]
    slots = (archive.slots(row["last"]) or 0) - len(own) if row["last"] is not None else 0
    ready = [one for one in own if one.fate == READY]
    ended = {(one.stage, one.subject, one.seed) for one in archive.evaluations() if one.state != "begun"}
    names, going, runs = [stage.name for stage in stages], slots, []
    for number, stage in enumerate(stages):
        here = [one for one in ready if (names.index(one.stage) + 1 if one.stage else 0) == number]
        going += len(here)
        done = sum((stage.name, one.hash, seed) in ended for one in here for seed in range(stage.seeds))
        runs.append(going * stage.seeds - done)
        going = going if stage.keep is None else min(going, stage.keep)
    return UnderWay(slots, tuple(runs))


def estimate(
    spent: Spent,
    budget: Budget,
    population: int,
    stages: Sequence[Stage],
    controls: Sequence[int],
    begun: UnderWay = UnderWay(),
) -> Estimate | None:
    """What the evaluations of a budget are enough for; None where they are not bounded.

    Args:
        spent: so far.
        budget: of the search.
        population: candidates of a full generation.
        stages: of the cascade.
        controls: training runs of controls and baselines that are still to be made, for each stage.
        begun: what is missing of a generation under way.
    """
    if budget.evaluations is None:
        return None
    runs = [number + more for number, more in zip(controls, begun.runs or [0] * len(controls), strict=True)]
    generations, strategies, missing = int(any(begun.runs) or begun.slots > 0), begun.slots, sum(runs)
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
