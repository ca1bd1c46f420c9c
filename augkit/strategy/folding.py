"""What operators and functions do to plain numbers, and the folding of constants with it.

Semantics are total: every operation has an answer, the same one as `evaluate.py` gives for tensors. The square root and
the logarithm of what has none are 0; so is anything divided by 0, and a power that is no real number.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from augkit.errors import ExpressionError
from augkit.strategy.expression import Binary, Call, Node, Number, Unary, children, rebuild, text
from augkit.strategy.tokens import MAX_NUMBER


def power(base: float, exponent: float) -> float:
    """`base ** exponent`, 0 where that is no real number."""
    if (base < 0 and exponent != math.floor(exponent)) or (base == 0 and exponent < 0):
        return 0.0
    return float(base**exponent)


def linear(start: float, stop: float, progress: float) -> float:
    """From start to stop in a straight line."""
    return start + (stop - start) * min(max(progress, 0.0), 1.0)


def cosine(start: float, stop: float, progress: float) -> float:
    """From start to stop along half a cosine."""
    return linear(start, stop, (1 - math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2)


def cyclic(start: float, stop: float, progress: float) -> float:
    """To stop and back to start for each unit of progress."""
    return linear(start, stop, 1 - abs(2 * (progress % 1.0) - 1))


SCALAR: dict[str, Callable[..., float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b if b else 0.0,
    "//": lambda a, b: float(math.floor(a / b)) if b else 0.0,
    "%": lambda a, b: a % b if b else 0.0,
    "**": power,
    "==": lambda a, b: float(a == b),
    "!=": lambda a, b: float(a != b),
    "<": lambda a, b: float(a < b),
    "<=": lambda a, b: float(a <= b),
    ">": lambda a, b: float(a > b),
    ">=": lambda a, b: float(a >= b),
    "and": lambda a, b: float(bool(a) and bool(b)),
    "or": lambda a, b: float(bool(a) or bool(b)),
    "not": lambda a: float(not a),
    "neg": lambda a: -a,
    "where": lambda condition, a, b: a if condition else b,
    "min": lambda *numbers: min(numbers),
    "max": lambda *numbers: max(numbers),
    "clip": lambda x, low, high: min(max(x, low), high),
    "abs": abs,
    "sign": lambda x: float((x > 0) - (x < 0)),
    "sqrt": lambda x: math.sqrt(max(x, 0.0)),
    "exp": math.exp,
    "log": lambda x: math.log(x) if x > 0 else 0.0,
    "floor": lambda x: float(math.floor(x)),
    "ceil": lambda x: float(math.ceil(x)),
    "round": lambda x: float(round(x)),
    "linear": linear,
    "cosine": cosine,
    "step": lambda start, stop, progress: stop if progress >= 1 else start,
    "cyclic": cyclic,
}
DIVISIONS = ("/", "//", "%")


def fold(node: Node) -> Node:
    """Constants worked out. A division by a constant 0 is left alone, so that it is counted like any other.

    Raises:
        ExpressionError: a constant grows beyond what a number may be, or a function is called with too few numbers.
    """
    node = rebuild(node, tuple(fold(part) for part in children(node)))
    name = _operation(node)
    parts = children(node)
    if name not in SCALAR or not parts or not all(isinstance(part, Number) for part in parts):
        return node
    if isinstance(node, Unary) and node.op == "+":
        return parts[0]
    numbers = [part.value for part in parts if isinstance(part, Number)]
    if name in DIVISIONS and numbers[1] == 0:
        return node
    return Number(_result(name, numbers, node), node.column)


def _operation(node: Node) -> str:
    if isinstance(node, Binary):
        return node.op
    if isinstance(node, Unary):
        return "not" if node.op == "not" else "neg"
    return node.function if isinstance(node, Call) and node.over is None else ""


def _result(name: str, numbers: list[float], node: Node) -> float:
    try:
        value = SCALAR[name](*numbers)
    except OverflowError:
        value = math.inf
    except TypeError:  # a wrong number of arguments; `typing.check` says so in its own words
        raise ExpressionError(f"`{name}` does not take {len(numbers)} arguments", column=node.column) from None
    if not abs(value) <= MAX_NUMBER:
        raise ExpressionError(f"`{text(node)}` is larger than {MAX_NUMBER:g}", column=node.column)
    return value + 0.0  # no negative zero
