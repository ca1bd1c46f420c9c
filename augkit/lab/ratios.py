"""Numbers in 0..1 that a recipe may write as an expression, in the language of strategies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from augkit.errors import ExpressionError
from augkit.strategy.evaluate import evaluate
from augkit.strategy.model import Expr, located
from augkit.strategy.problems import shown
from augkit.strategy.typing import Scope, Typed, check, interval_text

_SCOPE = Scope(
    names={"epoch": (), "epochs": ()},
    ranges={"epoch": (0.0, float("inf")), "epochs": (1.0, float("inf"))},
    axes=frozenset(),
    random=False,
)
_BY_CLASS = Scope(
    names={**_SCOPE.names, "class_count": ("classes",)},
    ranges={**_SCOPE.ranges, "class_count": (0.0, float("inf"))},
    axes=frozenset({"classes"}),
    random=False,
)


class _Moment:
    """Where an expression finds the epoch and the images of each class; nothing else is there to be asked for."""

    device = torch.device("cpu")

    def __init__(self, values: Mapping[str, float | Tensor]) -> None:
        self.values = values

    def value(self, name: str) -> Tensor:
        return torch.as_tensor(self.values[name])

    def size(self, axis: str) -> int:
        return len(self.value("class_count"))  # the only axis is that of the classes

    def uniform(self, site: str, axes: tuple[str, ...], count: int) -> Tensor:
        raise KeyError(site)

    def index(self, name: str) -> Tensor:
        raise KeyError(name)

    def count_division_by_zero(self, where: Tensor) -> None:
        """A ratio that divides by zero is 0 there."""


def checked_ratio(source: Any) -> float | str | None:
    """The same, if it is a number or an expression that can lie in 0..1, or None.

    Raises:
        ValueError: it is not.
    """
    return None if source is None else _checked(source, _typed, "epoch and epochs")


def checked_share(source: Any) -> float | str:
    """The same for an expression that may also read `class_count`, and is no None."""
    return _checked(source, _typed_by_class, "class_count, epoch and epochs")


def _checked(source: Any, reading: Callable[[float | str], Typed], names: str) -> float | str:
    if isinstance(source, bool) or not isinstance(source, (int, float, str)):
        raise ValueError(f"expected a number in 0..1 or an expression of {names}, not {shown(source)}")
    try:
        typed = reading(source)
    except ExpressionError as error:
        raise ValueError(located(error, source)) from error
    if typed.low > 1 or typed.high < 0 or (typed.constant is not None and not 0 <= typed.constant <= 1):
        raise ValueError(f"`{source}` is {interval_text(typed)}, not within 0..1")
    return source


@lru_cache
def _typed(source: float | str) -> Typed:
    return check(Expr.of(source).node, _SCOPE, ())


@lru_cache
def _typed_by_class(source: float | str) -> Typed:
    return check(Expr.of(source).node, _BY_CLASS, ("classes",))


def shares(source: float | str, class_counts: Tensor, epoch: int, epochs: int) -> Tensor:
    """[C] float64 its value for each class, cut to 0..1; `class_counts` [C] are the classes' images, on the CPU."""
    moment = _Moment({"epoch": epoch, "epochs": epochs, "class_count": class_counts.to(torch.float32)})
    typed = _typed_by_class(source)
    found = torch.tensor(typed.low, dtype=torch.float64) if typed.constant is not None else evaluate(typed, moment)
    return found.double().nan_to_num(0.0).clamp(0, 1).expand(len(class_counts))


def ratio(source: float | str, epoch: int, epochs: int) -> float:
    """Its value, cut to 0..1: a function of the epoch, 0-based, and of how many there are."""
    typed = _typed(source)
    value = (
        typed.low if typed.constant is not None else float(evaluate(typed, _Moment({"epoch": epoch, "epochs": epochs})))
    )
    return min(max(value, 0.0), 1.0) if value == value else 0.0
