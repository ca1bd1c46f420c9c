"""Interval arithmetic: what values an expression can take, known before anything runs.

An interval is `(low, high)`, both ends included, possibly infinite. Results are never too narrow, at times too wide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from augkit.strategy.folding import SCALAR, power

Interval = tuple[float, float]
Size = int | None
"""Length of the axis a function works along, None when it is only known once there are data."""

ANY: Interval = (-math.inf, math.inf)
TRUTH: Interval = (0.0, 1.0)
Rule = Callable[[Sequence[Interval], Size], Interval]


def union(*intervals: Interval) -> Interval:
    """The smallest interval around all."""
    return min(low for low, _ in intervals), max(high for _, high in intervals)


def add(a: Interval, b: Interval) -> Interval:
    """a + b."""
    return a[0] + b[0], a[1] + b[1]


def negative(a: Interval) -> Interval:
    """-a."""
    return -a[1] + 0.0, -a[0] + 0.0


def times(a: Interval, b: Interval) -> Interval:
    """a * b; an end at 0 stays 0 however far the other reaches."""
    corners = [0.0 if 0 in (x, y) else x * y for x in a for y in b]
    return min(corners), max(corners)


def divide(a: Interval, b: Interval) -> Interval:
    """a / b, with x / 0 = 0."""
    if b[0] > 0 or b[1] < 0:
        return times(a, (1 / b[1] if b[1] else 0.0, 1 / b[0] if b[0] else 0.0))
    if a[0] >= 0 and b[0] >= 0:
        return 0.0, math.inf
    return ANY


def modulo(a: Interval, b: Interval) -> Interval:
    """a % b: between 0 and b, on b's side."""
    if a[0] >= 0 and b[0] > a[1]:
        return a
    return min(b[0], 0.0), max(b[1], 0.0)


def raise_to(a: Interval, b: Interval) -> Interval:
    """a ** b."""
    if a[0] >= 0:
        corners = [_power(x, y) for x in a for y in b]
        if a[0] == 0 and b[0] < 0:
            corners += [0.0, math.inf]
        if a[0] <= 1 <= a[1] or b[0] <= 0 <= b[1]:
            corners.append(1.0)
        return min(corners), max(corners)
    if b[0] == b[1] and b[0] >= 0 and b[0] % 2 == 0:
        return 0.0, max(_power(-a[0], b[0]), _power(abs(a[1]), b[0]))
    return ANY


def _power(base: float, exponent: float) -> float:
    try:
        return power(base, exponent) if math.isfinite(exponent) else (math.inf if (base > 1) == (exponent > 0) else 0.0)
    except OverflowError:
        return math.inf


def logarithm(a: Interval) -> Interval:
    """log a, with log of what is not positive = 0."""
    high = math.log(a[1]) if 0 < a[1] < math.inf else (math.inf if a[1] > 0 else 0.0)
    if a[0] > 0:
        return math.log(a[0]) if a[0] < math.inf else math.inf, high
    return (-math.inf if a[1] > 0 else 0.0), max(high, 0.0)


def rising(name: str) -> Rule:
    """The rule of a function that grows with its argument."""

    def end(x: float) -> float:
        if math.isinf(x):
            return {("exp", False): 0.0, ("sqrt", False): 0.0}.get((name, x > 0), x)
        try:
            return SCALAR[name](x)
        except OverflowError:
            return math.inf

    return lambda a, size: (end(a[0][0]), end(a[0][1]))


def total(a: Interval, size: Size) -> Interval:
    """The sum of `size` values; of at least one when that is not known."""
    if size is not None:
        return times(a, (float(size), float(size)))
    return (a[0] if a[0] >= 0 else -math.inf), (a[1] if a[1] <= 0 else math.inf)


def positions(a: Sequence[Interval], size: Size) -> Interval:
    """A position along an axis."""
    return 0.0, math.inf if size is None else max(size - 1.0, 0.0)


def absolute(a: Interval) -> Interval:
    """|a|."""
    return max(a[0], -a[1], 0.0), max(abs(a[0]), abs(a[1]))


def extreme(pick: Callable[..., float]) -> Rule:
    """The rule of `min` or `max`."""
    return lambda a, size: (pick(low for low, _ in a), pick(high for _, high in a))


def clipped(a: Sequence[Interval], size: Size) -> Interval:
    """clip(x, low, high)."""
    x, low, high = a
    return min(max(x[0], low[0]), high[0]), min(max(x[1], low[1]), high[1])


OPERATIONS: dict[str, Rule] = {
    "+": lambda a, size: add(a[0], a[1]),
    "-": lambda a, size: add(a[0], negative(a[1])),
    "*": lambda a, size: times(a[0], a[1]),
    "/": lambda a, size: divide(a[0], a[1]),
    "//": lambda a, size: rising("floor")([divide(a[0], a[1])], size),
    "%": lambda a, size: modulo(a[0], a[1]),
    "**": lambda a, size: raise_to(a[0], a[1]),
    "neg": lambda a, size: negative(a[0]),
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">=", "and", "or", "not"), lambda a, size: TRUTH),
}
