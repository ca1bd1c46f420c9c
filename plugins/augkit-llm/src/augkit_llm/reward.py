"""Rewards of strategies: mean over seeds, how sure that is, and an order that claims no more than that."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

T = TypeVar("T")


class Run(Protocol):
    """One training run of a strategy."""

    @property
    def seed(self) -> int: ...
    @property
    def reward(self) -> float | None:
        """Balanced accuracy on the reward images, 0..1; higher is better."""

    @property
    def standard_error(self) -> float | None:
        """Of the reward, over the reward images."""


@dataclass(frozen=True)
class Score:
    """What a strategy reached in one stage."""

    name: str
    reward: float
    """Mean over the seeds, 0..1; higher is better."""
    standard_error: float
    """Over reward images and seeds together."""
    by_seed: Mapping[int, float]


@dataclass(frozen=True)
class Difference:
    """How far one strategy is above another, seed by seed on the same images."""

    mean: float
    standard_error: float
    """Over the seeds; infinite for a single one."""


def score(name: str, runs: Sequence[Run]) -> Score:
    """What several seeds of one strategy come to.

    All seeds are measured on the same images, so the error that comes of these does not shrink with more seeds; the one
    that comes of the seeds does.
    """
    by_seed = {run.seed: run.reward for run in runs if run.reward is not None}
    rewards = list(by_seed.values())
    images = statistics.fmean(run.standard_error for run in runs if run.standard_error is not None)
    seeds = statistics.stdev(rewards) / math.sqrt(len(rewards)) if len(rewards) > 1 else 0.0
    return Score(name, statistics.fmean(rewards), math.hypot(images, seeds), by_seed)


def paired(one: Score, other: Score) -> Difference:
    """How far `one` is above `other` on the seeds that both have.

    Raises:
        ValueError: they share no seed.
    """
    shared = sorted(one.by_seed.keys() & other.by_seed.keys())
    if not shared:
        raise ValueError(f"{one.name} and {other.name} have no seed in common")
    gaps = [one.by_seed[seed] - other.by_seed[seed] for seed in shared]
    error = statistics.stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else math.inf
    return Difference(statistics.fmean(gaps), error)


def ranked(subjects: Sequence[T], scores: Mapping[str, Score], name: Callable[[T], str] = str) -> list[T]:
    """The best first. Nothing is ranked below the standard error: whoever is within that of the best of those that are
    left is as good as it, and of these the one that stands first in `subjects` comes first.

    Args:
        subjects: in the order that decides where rewards do not; a search gives them as they were found.
        scores: by name.
        name: of a subject.
    """
    left, order = list(subjects), []
    while left:
        best = max((scores[name(one)] for one in left), key=lambda found: found.reward)
        level = [one for one in left if scores[name(one)].reward >= best.reward - best.standard_error]
        order += level
        left = [one for one in left if scores[name(one)].reward < best.reward - best.standard_error]
    return order
