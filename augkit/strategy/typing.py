"""The static check of an expression: names, axes, arguments, and the range of its value, before anything runs.

Its result is the tree that `evaluate.py` walks: constants folded, each part with its own axes, each random call with
its site. Axes broadcast by name; what an expression is assigned to says which axes it may have (`want`), and a random
call draws one value for each element of that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from augkit.errors import ExpressionError, nearest
from augkit.strategy.calls import call_form, check_ragged, check_ranges, range_text
from augkit.strategy.expression import (
    AXES,
    IS_SYNTHETIC,
    OF_AN_IMAGE,
    Binary,
    Call,
    Index,
    Name,
    Node,
    Number,
    Unary,
    children,
    substitute,
)
from augkit.strategy.folding import fold
from augkit.strategy.functions import FUNCTIONS, Function
from augkit.strategy.intervals import ANY, OPERATIONS, Interval, clipped
from augkit.strategy.tokens import instead

Axes = tuple[str, ...]
INDEXED = {"y": "classes", "index": "samples", "group": "groups", "partner": "classes"}
"""The axis that `x[y]`, `x[index]`, `x[group]` and `x[partner]` replace by the batch."""
_WRITTEN = {axis: f"[{key}]" for key, axis in INDEXED.items() if key != "partner"}

_EACH = {
    "batch": "image",
    "branches": "branch",
    "picks": "drawn operator",
    "ops": "operator of the palette",
    "classes": "class",
    "groups": "group",
    "samples": "sample",
    "levels": "level",
}
"""What an axis counts, in words."""


@dataclass(frozen=True)
class Scope:
    """What an expression may read at its place in a document."""

    names: Mapping[str, Axes] = field(default_factory=dict)
    """Axes of each name that has a value while things run."""
    ranges: Mapping[str, Interval] = field(default_factory=dict)
    """What is known of those values."""
    constants: Mapping[str, float] = field(default_factory=dict)
    """Names that stand for a number: the document's params."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Lengths of axes that are known from the document: `ops`."""
    hidden: Mapping[str, str] = field(default_factory=dict)
    """Names that exist but not here, and why."""
    axes: frozenset[str] = frozenset(AXES)
    """Axes that exist for this document."""
    indices: bool = False
    """Whether there is an image, with `y`, `index`, `group` and `is_synthetic`; `partner` where it is not hidden."""
    random: bool = True
    """Whether random calls are allowed."""
    along: str = ""
    """The axis along which `dirichlet` and `permutation` draw where none is named."""
    probes: Mapping[str, Axes] = field(default_factory=dict)
    """Of each name over levels: the probes that say which of its cells were drawn."""


@dataclass(frozen=True)
class Typed:
    """An expression that was checked. Its value has exactly `axes` as dims, in canonical order."""

    kind: str
    """`number`, `name`, `image` (a bare y, index, group, partner or is_synthetic), `index`, or `call` (operators are
    calls too)."""
    name: str
    """Of the name, the index, the operator or the function."""
    axes: Axes
    low: float
    high: float
    """No value is outside low..high."""
    arguments: tuple[Typed, ...] = ()
    axis: str = ""
    """What a function works along."""
    site: str = ""
    """Of a random call: the expression's path and the number of the call in it."""
    probes: tuple[str, ...] = ()
    """Of a value over levels: the probes that say which of its cells were drawn."""

    @property
    def constant(self) -> float | None:
        """The value, if it can only have one."""
        return self.low if self.low == self.high else None

    @property
    def parts(self) -> Iterator[Typed]:
        """Itself and everything inside it."""
        yield self
        for argument in self.arguments:
            yield from argument.parts

    @property
    def reads(self) -> frozenset[str]:
        """The names it reads while things run, `y`, `group` and the like included; not params."""
        return frozenset(part.name for part in self.parts if part.kind in ("name", "image", "index"))

    @property
    def sites(self) -> tuple[str, ...]:
        """Every random call."""
        return tuple(part.site for part in self.parts if part.site)


def ordered(axes: frozenset[str] | set[str] | Sequence[str]) -> Axes:
    """Axes in canonical order."""
    return tuple(axis for axis in AXES if axis in axes)


def check(node: Node, scope: Scope, want: Sequence[str] | None, path: str = "") -> Typed:
    """Check an expression against its place.

    Args:
        node: what `parse` gave.
        scope: the names, axes and lengths that are known there.
        want: the axes of what it is assigned to. None (a `let`) allows any, and a random call then draws one value for
            each element of its own arguments, and of what is reduced around it.
        path: the place in the document; random calls are keyed by it.

    Raises:
        ExpressionError: an unknown name, a wrong axis, a wrong number of arguments, an impossible range.
    """
    node = fold(substitute(node, scope.constants))
    checker = _Checker(scope, path)
    typed = checker.check(node, frozenset(want or ()))
    if want is not None:
        _fits(typed, ordered(want), node)
    return typed


def _fits(typed: Typed, want: Axes, node: Node) -> None:
    for axis in typed.axes:
        if axis not in want:
            here = _wanted(want)
            if axis in _WRITTEN and "batch" in want:
                own = f"`{node.name}{_WRITTEN[axis]}`" if isinstance(node, Name) else _WRITTEN[axis]
                cure = f"take the image's own with {own}"
            elif axis == "batch":
                cure = "there is no image at this place"
            else:
                cure = f"reduce it, as in sum(x, over={axis})"
            raise ExpressionError(f"the value has the axis {axis}, but {here} is wanted here; {cure}", column=0)


def _wanted(want: Axes) -> str:
    """The axes of a place in words; whoever wrote the document need not know how picks are kept."""
    words = [_EACH[axis] for axis in want if axis != "picks" or "batch" not in want]
    return f"a number for each {' and '.join(words)}" if words else "a single number"


class _Checker:
    def __init__(self, scope: Scope, path: str) -> None:
        self.scope = scope
        self.sites = (f"{path}#{number}" for number in count())
        self.indexing = False

    def check(self, node: Node, want: frozenset[str]) -> Typed:
        if isinstance(node, Number):
            return Typed("number", "", (), node.value, node.value)
        if isinstance(node, Name):
            return self.name(node)
        if isinstance(node, Index):
            return self.index(node, want)
        if isinstance(node, Call):
            return self.call(node, want)
        operator = node.op if isinstance(node, Binary) or node.op == "not" else "neg"
        if isinstance(node, Unary) and node.op == "+":
            return self.check(node.operand, want)
        arguments = tuple(self.check(part, want) for part in children(node))
        axes = self.sized(_union(arguments), node.column)
        low, high = OPERATIONS[operator]([(part.low, part.high) for part in arguments], None)
        return Typed("call", operator, axes, *_sane(low, high), arguments, probes=_probes(axes, arguments))

    def sized(self, axes: Axes, column: int) -> Axes:
        """Refuse what would be as large as the data set times something else."""
        if "samples" in axes and len(axes) > 1:
            others = ", ".join(axis for axis in axes if axis != "samples")
            cure = "take the image's own with [index]" if "batch" in axes else "reduce one of them first"
            raise ExpressionError(f"a value for each of samples and {others} is too large; {cure}", column=column)
        return axes

    def name(self, node: Name) -> Typed:
        scope = self.scope
        if node.name in OF_AN_IMAGE:
            self.need_image(node.name, node.column)
            return Typed("image", node.name, ("batch",), 0.0, 1.0 if node.name == IS_SYNTHETIC else ANY[1])
        if node.name in scope.names:
            axes, probes = ordered(scope.names[node.name]), scope.probes.get(node.name, ())
            return Typed("name", node.name, axes, *scope.ranges.get(node.name, ANY), probes=probes)
        if node.name in scope.hidden:
            raise ExpressionError(f"`{node.name}` cannot be used here: {scope.hidden[node.name]}", column=node.column)
        if node.name in AXES:
            raise ExpressionError(f"`{node.name}` is an axis, not a value; it follows `over=`", column=node.column)
        if node.name in FUNCTIONS and node.name not in scope.names:
            signature = FUNCTIONS[node.name].signature
            raise ExpressionError(f"`{node.name}` is a function: {signature}", column=node.column)
        indices = {*OF_AN_IMAGE} - {*scope.hidden} if scope.indices else set()
        known = {*scope.names, *scope.constants, *indices}
        cure = instead(node.name) or f".{_hint(node.name, known)}"
        raise ExpressionError(f'there is no name "{node.name[:60]}"{cure}', column=node.column)

    def need_image(self, name: str, column: int) -> None:
        if not self.scope.indices or name in self.scope.hidden:
            why = self.scope.hidden.get(name, "it belongs to one image, and there is none at this place")
            raise ExpressionError(f"`{name}` cannot be used here: {why}", column=column)

    def index(self, node: Index, want: frozenset[str]) -> Typed:
        self.need_image(node.key, node.column)
        axis = INDEXED[node.key]
        inside = (want - {"batch"}) | {axis}
        outer, self.indexing = self.indexing, True
        operand = self.check(node.operand, inside)
        self.indexing = outer
        if axis not in operand.axes:
            raise ExpressionError(
                f"`[{node.key}]` needs a value with the axis {axis}, this has {_listed(operand.axes)}",
                column=node.column,
            )
        if "batch" in operand.axes:
            raise ExpressionError(f"`[{node.key}]` of a value that belongs to one image already", column=node.column)
        axes = ordered({"batch", *operand.axes} - {axis})
        return Typed("index", node.key, axes, operand.low, operand.high, (operand,), axis, "", operand.probes)

    def call(self, node: Call, want: frozenset[str]) -> Typed:
        function = FUNCTIONS.get(node.function)
        if function is None:
            cure = instead(node.function) or f".{_hint(node.function, FUNCTIONS)}"
            raise ExpressionError(f'there is no function "{node.function[:60]}"{cure}', column=node.column)
        function, axis, given = call_form(node, function, self.scope.along)
        if not function.least <= len(given) <= function.most:
            raise ExpressionError(f"`{function.signature}` does not take {len(given)} arguments", column=node.column)
        if axis:
            self.need_axis(axis, node.column)
        site = self.site(node) if function.draws else ""
        arguments = self.arguments(function, given, axis, want)
        axes = self.sized(self.axes(node, function, arguments, axis, want), node.column)
        ranges = [(part.low, part.high) for part in arguments]
        low, high = _sane(*function.interval(ranges, self.scope.sizes.get(axis)))
        if axis == "levels" or (axis and any("levels" in part.axes for part in arguments)):
            check_ragged(node, function, axis, arguments)
            low, high = min(low, 0.0), max(high, 0.0)  # where no cell was drawn
        check_ranges(node, function, ranges)
        return Typed("call", function.name, axes, low, high, arguments, axis, site, _probes(axes, arguments))

    def need_axis(self, axis: str, column: int) -> None:
        if axis not in AXES:
            raise ExpressionError(f'there is no axis "{axis[:60]}".{_hint(axis, self.scope.axes)}', column=column)
        if axis in ("batch", "picks"):
            raise ExpressionError(
                f"nothing works along the axis {axis}: an image may not depend on what else is in its batch",
                column=column,
            )
        if axis not in self.scope.axes:
            known = {
                "ops": "the strategy has no palette",
                "branches": "it belongs to the weights of branches",
                "levels": "it belongs to the rules of a strategy that has probes",
            }
            why = known.get(axis, "this document has none")
            raise ExpressionError(f"the axis {axis} cannot be used: {why}", column=column)

    def site(self, node: Call) -> str:
        if not self.scope.random:
            raise ExpressionError(
                f"`{node.function}` is random, and nothing random is allowed here", column=node.column
            )
        if self.indexing:
            raise ExpressionError(
                f"`{node.function}` is random and may not be indexed; draw it into a state first", column=node.column
            )
        return next(self.sites)

    def arguments(
        self, function: Function, given: tuple[Node, ...], axis: str, want: frozenset[str]
    ) -> tuple[Typed, ...]:
        """Check the arguments; only the first of a function along an axis has that axis."""
        without = want - {axis}
        along = want | {axis} if axis else want
        first = without if function.shape == "onehot" else along
        return tuple(self.check(part, first if number == 0 else without) for number, part in enumerate(given))

    def axes(
        self, node: Call, function: Function, arguments: tuple[Typed, ...], axis: str, want: frozenset[str]
    ) -> Axes:
        axes = set(_union(arguments))
        for number, part in enumerate(arguments):
            first = number == 0 and function.shape != "onehot"
            if axis and first and axis not in part.axes and not function.draws:
                raise ExpressionError(
                    f"`{function.signature}`: the value has no axis {axis}, it has {_listed(part.axes)}",
                    column=node.column,
                )
            if axis and not first and axis in part.axes:
                what = "the position" if function.shape == "onehot" else "the second argument"
                raise ExpressionError(
                    f"`{function.signature}`: {what} may not have the axis {axis}", column=node.column
                )
        if function.name == "categorical" and axis not in axes:
            raise ExpressionError(f"`{function.signature}`: the weight has no axis {axis}", column=node.column)
        if function.draws:
            axes |= want
            self.sized(ordered(axes | {axis}), node.column)
        axes = axes - {axis} if function.shape == "reduce" else axes | ({axis} if axis else set())
        return ordered(axes)


def interval_text(typed: Typed) -> str:
    """The range of an expression for a message: `2`, or `-1..0.5`."""
    return range_text((typed.low, typed.high))


def _union(arguments: Sequence[Typed]) -> Axes:
    return ordered({axis for part in arguments for axis in part.axes})


def _probes(axes: Axes, arguments: Sequence[Typed]) -> tuple[str, ...]:
    """Whose cells take part in a value made of these."""
    return tuple(sorted({name for part in arguments for name in part.probes})) if "levels" in axes else ()


def _sane(low: float, high: float) -> Interval:
    """An end that is NaN (infinity minus infinity) says nothing."""
    return (low if low == low else ANY[0]), (high if high == high else ANY[1])


def _listed(axes: Axes) -> str:
    return f"[{', '.join(axes)}]" if axes else "none"


def _hint(name: str, known: Mapping[str, object] | set[str] | frozenset[str]) -> str:
    return nearest(name, known) if len(name) <= 60 else ""


def clamp(interval: Interval, low: Interval, high: Interval) -> Interval:
    """The range of a value after a clamp."""
    return clipped([interval, low, high], None)
