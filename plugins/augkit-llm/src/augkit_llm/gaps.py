"""How far two rewards are apart, and whether that can be told from nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

from augkit_llm.reward import Score, paired

WIDTH = 1.96
"""Standard errors on either side that hold 95 % of a normal distribution."""


@dataclass(frozen=True)
class Gap:
    """One strategy minus another, seed by seed on the same images."""

    mean: float
    by_seed: list[float]
    seed_error: float | None
    """Standard error of the paired differences, over the seeds alone; None for one seed."""
    low: float
    high: float
    """The 95 % interval by the standard errors of both, of images and seeds together. That both were measured on the
    same images would make it narrower; two seeds are too few to say by how much."""

    @property
    def told(self) -> bool:
        """Whether the difference can be told from none: the interval leaves out zero."""
        return not self.low <= 0 <= self.high


def gap(one: Score, other: Score) -> Gap:
    """How far `one` is above `other`.

    Raises:
        ValueError: they share no seed.
    """
    found = paired(one, other)
    seeds = sorted(one.by_seed.keys() & other.by_seed.keys())
    half = WIDTH * math.hypot(one.standard_error, other.standard_error)
    error = found.standard_error if math.isfinite(found.standard_error) else None
    each = [one.by_seed[seed] - other.by_seed[seed] for seed in seeds]
    return Gap(found.mean, each, error, found.mean - half, found.mean + half)
