"""What a call in an expression may look like: its form, the axes it works along, and arguments that cannot be meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from augkit.errors import ExpressionError
from augkit.strategy.expression import Call, Name, Node
from augkit.strategy.functions import Function
from augkit.strategy.intervals import Interval

if TYPE_CHECKING:
    from augkit.strategy.typing import Typed

RAGGED = ("all", "any", "sum", "mean", "min", "max")
"""What works on values with the axis levels, where a class may have fewer levels than another."""


def call_form(node: Call, function: Function, along: str) -> tuple[Function, str, tuple[Node, ...]]:
    """The function, its axis (`over=`, the last argument of `onehot`, or the place's own) and its other arguments."""
    given, axis = node.arguments, node.over or ""
    if function.shape == "along" and function.draws:
        axis = axis or along
    if function.name in ("min", "max") and axis:
        function = Function(
            function.name, f"{function.name}(x, over=axis)", "", "reduce", 1, 1, lambda ranges, size: ranges[0]
        )
    if function.shape == "onehot" and not axis and len(given) == 2 and isinstance(given[1], Name):
        axis, given = given[1].name, given[:1]
    if function.shape == "each" and axis:
        raise ExpressionError(f"`{function.signature}` takes no `over=`", column=node.column)
    if function.shape != "each" and not axis:
        raise ExpressionError(f"`{function.signature}` needs the axis", column=node.column)
    return function, axis, given


def check_ragged(node: Call, function: Function, axis: str, arguments: Sequence[Typed]) -> None:
    """Refuse what does not work on values over levels."""
    if function.name not in RAGGED:
        raise ExpressionError(
            f"`{function.name}` does not work along {axis} of a value over levels, since a class may have fewer levels"
            f" than another; {', '.join(RAGGED[:-1])} and {RAGGED[-1]} do",
            column=node.column,
        )
    if axis == "levels" and not any(part.probes for part in arguments):
        raise ExpressionError("a value over levels has a probe's results in it, and this has none", column=node.column)


def check_ranges(node: Call, function: Function, ranges: Sequence[Interval]) -> None:
    """Arguments that cannot be meant."""
    if function.name == "randint" and ranges[1][1] <= ranges[0][0]:
        raise ExpressionError(
            "`randint(low, high)` draws below high, so high must be larger than low", column=node.column
        )
    if function.name == "bernoulli" and (ranges[0][0] > 1 or ranges[0][1] < 0):
        raise ExpressionError(f"`bernoulli(p)`: p is {range_text(ranges[0])}, never within 0..1", column=node.column)
    if function.name in ("beta", "dirichlet") and any(high <= 0 for _, high in ranges):
        raise ExpressionError(f"`{function.signature}` takes positive numbers", column=node.column)
    if function.name == "quantile" and (ranges[1][0] > 1 or ranges[1][1] < 0):
        raise ExpressionError(f"`quantile`: q is {range_text(ranges[1])}, never within 0..1", column=node.column)


def range_text(interval: Interval) -> str:
    """`2`, or `-1..0.5`."""
    low, high = interval
    return f"{low:g}" if low == high else f"{low:g}..{high:g}"
