"""The functions that an expression may call: name, signature, meaning, and how axes and ranges pass through.

The documentation's table of functions is made from `FUNCTIONS`; `evaluate.py` has what each does to tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from augkit.strategy.intervals import (
    ANY,
    TRUTH,
    Rule,
    absolute,
    clipped,
    extreme,
    logarithm,
    positions,
    rising,
    total,
    union,
)

Shape = Literal["each", "reduce", "along", "onehot"]


@dataclass(frozen=True)
class Function:
    """One function of the expression language.

    `shape` says what happens to axes: `each` works element by element on all arguments, `reduce` removes the axis
    named by `over` from its first argument, `along` works along it and keeps it, `onehot` adds it. Functions that draw
    are random: one value for each element of what they are assigned to.
    """

    name: str
    signature: str
    meaning: str
    shape: Shape
    least: int
    most: int
    interval: Rule
    draws: bool = False


_MANY = 16
_SCHEDULE = "each", 3, 3, lambda a, size: union(a[0], a[1])


def _f(
    signature: str, meaning: str, shape: Shape, least: int, most: int, interval: Rule, *, draws: bool = False
) -> Function:
    return Function(signature.partition("(")[0], signature, meaning, shape, least, most, interval, draws)


def _schedule(signature: str, meaning: str) -> Function:
    return _f(signature, meaning, "each", 3, 3, lambda a, n: union(a[0], a[1]))


_TABLE = (
    _f(
        "where(condition, a, b)", "a where the condition is not 0, else b", "each", 3, 3, lambda a, n: union(a[1], a[2])
    ),
    _f("min(a, b, ...)", "the smallest; min(x, over=axis) along an axis", "each", 2, _MANY, extreme(min)),
    _f("max(a, b, ...)", "the largest; max(x, over=axis) along an axis", "each", 2, _MANY, extreme(max)),
    _f("clip(x, low, high)", "x, not below low and not above high", "each", 3, 3, clipped),
    _f("abs(x)", "the size of x without its sign", "each", 1, 1, lambda a, n: absolute(a[0])),
    _f("sign(x)", "-1, 0 or 1", "each", 1, 1, rising("sign")),
    _f("sqrt(x)", "the square root; 0 for a negative x", "each", 1, 1, rising("sqrt")),
    _f("exp(x)", "e to the power of x", "each", 1, 1, rising("exp")),
    _f("log(x)", "the natural logarithm; 0 for an x that is not positive", "each", 1, 1, lambda a, n: logarithm(a[0])),
    _f("floor(x)", "x rounded down", "each", 1, 1, rising("floor")),
    _f("ceil(x)", "x rounded up", "each", 1, 1, rising("ceil")),
    _f("round(x)", "the nearest whole number; halves to the even one", "each", 1, 1, rising("round")),
    _f("sum(x, over=axis)", "the sum along an axis", "reduce", 1, 1, lambda a, n: total(a[0], n)),
    _f("mean(x, over=axis)", "the mean along an axis", "reduce", 1, 1, lambda a, n: a[0]),
    _f("any(x, over=axis)", "1 if any is not 0, else 0", "reduce", 1, 1, lambda a, n: TRUTH),
    _f("all(x, over=axis)", "1 if none is 0, else 0", "reduce", 1, 1, lambda a, n: TRUTH),
    _f("argmax(x, over=axis)", "position of the largest, the first of equals", "reduce", 1, 1, positions),
    _f("rank(x, over=axis)", "place of each when sorted, 0 the largest, equals in order", "along", 1, 1, positions),
    _f("topk(x, k, over=axis)", "1 for the k largest, 0 for the others", "along", 2, 2, lambda a, n: TRUTH),
    _f("onehot(x, axis)", "1 at position x of the axis, 0 elsewhere", "onehot", 1, 1, lambda a, n: TRUTH),
    _f("quantile(x, q, over=axis)", "the value below which the share q lies", "reduce", 2, 2, lambda a, n: a[0]),
    _f("softmax(x, over=axis)", "exp(x) over its sum along the axis", "along", 1, 1, lambda a, n: TRUTH),
    _f(
        "uniform(low=0, high=1)",
        "a random number from low to below high",
        "each",
        0,
        2,
        lambda a, n: union(*a) if len(a) == 2 else union((0.0, 0.0), *(a or [TRUTH])),
        draws=True,
    ),
    _f(
        "normal(mean=0, std=1)",
        "a random number of the normal distribution",
        "each",
        0,
        2,
        lambda a, n: a[0] if len(a) == 2 and a[1] == (0, 0) else ANY,
        draws=True,
    ),
    _f(
        "randint(low, high)",
        "a random whole number from low to high - 1",
        "each",
        2,
        2,
        lambda a, n: (rising("floor")(a, n)[0], max(rising("floor")(a, n)[1], rising("ceil")(a[1:], n)[1] - 1)),
        draws=True,
    ),
    _f("bernoulli(p)", "1 with probability p, else 0", "each", 1, 1, lambda a, n: TRUTH, draws=True),
    _f(
        "categorical(weight, over=axis)",
        "a random position, in proportion to weight; any if all weights are 0",
        "reduce",
        1,
        1,
        positions,
        draws=True,
    ),
    _f("beta(a, b)", "a random number of the beta distribution", "each", 2, 2, lambda a, n: TRUTH, draws=True),
    _f(
        "dirichlet(a, over=axis)",
        "random shares that sum to 1 along the axis",
        "along",
        1,
        1,
        lambda a, n: TRUTH,
        draws=True,
    ),
    _f("permutation(over=axis)", "the positions of the axis in random order", "along", 0, 0, positions, draws=True),
    _schedule("linear(start, stop, progress)", "start at progress 0, stop from 1 on, straight between"),
    _schedule("cosine(start, stop, progress)", "the same along half a cosine"),
    _schedule("step(start, stop, progress)", "start before progress 1, stop from there on"),
    _schedule("cyclic(start, stop, progress)", "start at each whole progress, stop halfway, straight between"),
)
FUNCTIONS: dict[str, Function] = {function.name: function for function in _TABLE}
"""Every function by name, in the order of the documentation."""
