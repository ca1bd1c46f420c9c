"""What a few seeds allow to be said: means, and paired differences with their confidence intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from augkit.report.told import sign

LEVEL = 0.95
FEWEST = 3
"""Seeds below which an interval is not given: with two it would be 13 times as wide as the spread."""


@dataclass(frozen=True)
class Mean:
    """The mean over seeds; `error` is its standard error, None for one seed."""

    mean: float
    error: float | None
    seeds: int


@dataclass(frozen=True)
class Difference:
    """Something minus its control over the same seeds; `low`, `high` and `p` are None with fewer than three of them."""

    mean: float
    error: float | None
    seeds: int
    low: float | None = None
    high: float | None = None
    """The 95 % confidence interval of Student's t."""
    p: float | None = None
    """Of the two-sided paired t test."""

    @property
    def sign(self) -> int:
        """1 for more, -1 for less, 0 for what cannot be told from the control: the interval contains zero."""
        return sign(self.low, self.high)

    def words(self, control: str) -> str:
        """'1.5 above none', 'cannot be told from none', or that there are too few seeds."""
        if self.low is None:
            return f"too few seeds to tell from {control}"
        if not self.sign:
            return f"cannot be told from {control}"
        return f"{abs(self.mean):.1f} {'above' if self.sign > 0 else 'below'} {control}"


def mean(values: Sequence[float]) -> Mean:
    """Mean and standard error of at least one value."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return Mean(statistics.fmean(values), error, len(values))


def difference(values: Sequence[float], control: Sequence[float]) -> Difference:
    """`values` minus `control`, pair by pair."""
    found = mean([value - other for value, other in zip(values, control, strict=True)])
    if found.seeds < FEWEST or found.error is None:
        return Difference(found.mean, found.error, found.seeds)
    degrees = found.seeds - 1
    half = quantile(degrees) * found.error
    # without any spread, every seed gave the very same difference
    p = outside(abs(found.mean) / found.error, degrees) if found.error else 1.0 - bool(found.mean)
    return Difference(found.mean, found.error, found.seeds, found.mean - half, found.mean + half, p)


def outside(t: float, degrees: int) -> float:
    """The probability that Student's t with whole degrees of freedom is farther from 0 than `t` (>= 0).

    The finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4.
    """
    angle = math.atan2(t, math.sqrt(degrees))
    cosine = math.cos(angle)
    odd = degrees % 2
    term, total = (cosine if odd else 1.0), 0.0
    for k in range(2 + odd, degrees + 1, 2):
        total += term
        term *= cosine * cosine * (k - 1) / k
    inside = math.sin(angle) * total
    if odd:
        inside = 2 / math.pi * (angle + inside)
    return max(0.0, 1 - inside)


def quantile(degrees: int, level: float = LEVEL) -> float:
    """The t that leaves `1 - level` outside; by bisection."""
    low, high = 0.0, 1.0
    while outside(high, degrees) > 1 - level:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if outside(middle, degrees) > 1 - level else (low, middle)
    return (low + high) / 2


def holm(p: Sequence[float]) -> list[float]:
    """Each p as if it were the only one looked at (Holm, Scandinavian Journal of Statistics 1979)."""
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = largest
    return adjusted
