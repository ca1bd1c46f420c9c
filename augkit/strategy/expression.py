"""Expressions: text to an immutable tree, and back.

Numbers, names, arithmetic, comparisons, `and or not`, indexing with an image's own `y`, `index` or `group` or with the
class of its `partner`, and calls to a fixed list of functions (`functions.py`). The reader is written by hand and knows
nothing else: there are no attributes, strings, comprehensions or imports to refuse, and text is never given to Python.
The one name with a dot is that of a probe's result, `answers.correct`. What the names mean is the business of
`typing.py`.

    or < and < not < == != < <= > >= < + - < * / // % < -x < ** (from the right), as in Python
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from augkit.errors import ExpressionError
from augkit.strategy.tokens import Token, checked_number, instead, tokens

MAX_NODES = 500
MAX_DEPTH = 32
MAX_TEXT = 10_000

AXES = ("batch", "branches", "picks", "samples", "groups", "classes", "levels", "ops")
"""Every named axis, in the order of a value's dims."""

INDEXES = ("y", "index", "group", "partner")
"""Numbers of an image that are a position along an axis."""
IS_SYNTHETIC = "is_synthetic"
OF_AN_IMAGE = (*INDEXES, IS_SYNTHETIC)
"""Every name that belongs to one image; the last is 0 or 1."""
RESULTS = ("correct", "drawn", "level")
"""What may follow the name of a probe and a dot."""
WORDS = ("and", "or", "not")
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
BINARY = {"or": 1, "and": 2, **dict.fromkeys(COMPARISONS, 4), "+": 5, "-": 5, "*": 6, "/": 6, "//": 6, "%": 6, "**": 8}
UNARY = {"not": 3, "-": 7, "+": 7}


@dataclass(frozen=True)
class Number:
    """A constant."""

    value: float
    column: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Name:
    """A parameter, state, signal, a probe's result (`answers.correct`), or (as an argument) an axis."""

    name: str
    column: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Unary:
    """`-x`, `+x` or `not x`."""

    op: str
    operand: Node
    column: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Binary:
    """Arithmetic, a comparison, `and` or `or`."""

    op: str
    left: Node
    right: Node
    column: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Index:
    """`x[y]`: the row of each image's own class, sample or group, or of its partner's class."""

    operand: Node
    key: str
    column: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Call:
    """`function(x, ..., over=axis)`."""

    function: str
    arguments: tuple[Node, ...]
    over: str | None = None
    column: int = field(default=0, compare=False)


Node = Number | Name | Unary | Binary | Index | Call


def parse(source: str | int | float | bool) -> Node:
    """Read an expression.

    Args:
        source: text, or a number or truth value as a document gives it (true is 1).

    Raises:
        ExpressionError: with the column, for anything that is no expression or breaks a limit.
    """
    if isinstance(source, (bool, int, float)):
        value = checked_number(source, 0)
        return Number(value) if value >= 0 else Unary("-", Number(-value))
    if not isinstance(source, str):
        raise ExpressionError(f"expected a number or an expression, not {_kind(source)}")
    if len(source) > MAX_TEXT:
        raise ExpressionError(f"an expression has at most {MAX_TEXT} characters, this has {len(source)}")
    return _Parser(source).whole()


class _Parser:
    """Precedence climbing over the tokens; counts nodes and depth while it builds, so that it cannot run away."""

    def __init__(self, text: str) -> None:
        self.tokens = tokens(text)
        self.token = next(self.tokens)
        self.nodes = 0
        self.nesting = 0

    def whole(self) -> Node:
        if self.token.kind == "end":
            raise ExpressionError("the expression is empty", column=0)
        node = self.expression(0)
        if self.token.kind != "end":
            raise self.unexpected("an operator or the end", self.token)
        if depth(node) > MAX_DEPTH:
            raise ExpressionError(
                f"the expression nests more than {MAX_DEPTH} deep; name its parts with `let`", column=0
            )
        return node

    def advance(self) -> Token:
        token, self.token = self.token, next(self.tokens, self.token)
        return token

    def accept(self, text: str) -> bool:
        if self.token.kind == "symbol" and self.token.text == text:
            self.advance()
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept(text):
            raise self.unexpected(f"`{text}`", self.token)

    @staticmethod
    def unexpected(expected: str, token: Token) -> ExpressionError:
        found = f"`{token.text}`{instead(token.text)}" if token.kind != "end" else "the end"
        return ExpressionError(f"expected {expected}, found {found}", column=token.column)

    def count(self, node: Node) -> Node:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise ExpressionError(
                f"an expression has at most {MAX_NODES} parts; name some with `let`", column=node.column
            )
        return node

    def expression(self, minimum: int) -> Node:
        self.nesting += 1
        if self.nesting > 2 * MAX_DEPTH:  # brackets cost the reader two levels each, and the tree none
            raise ExpressionError(f"the expression nests more than {MAX_DEPTH} deep", column=self.token.column)
        node = self.prefix(minimum)
        compared = False
        while self.operator in BINARY and BINARY[self.operator] >= minimum:
            token = self.advance()
            comparison = token.text in COMPARISONS
            if comparison and compared:
                raise ExpressionError("write `a < b and b < c` instead of `a < b < c`", column=token.column)
            compared = compared or comparison
            right = self.expression(BINARY[token.text] + 1 if token.text != "**" else UNARY["-"])
            node = self.count(Binary(token.text, node, right, token.column))
        self.nesting -= 1
        return node

    @property
    def operator(self) -> str:
        return self.token.text if self.token.kind == "symbol" or self.token.text in WORDS else ""

    def prefix(self, minimum: int) -> Node:
        if self.operator in UNARY:
            token = self.advance()
            if UNARY[token.text] < minimum:
                raise ExpressionError(f"put brackets around `{token.text} ...`", column=token.column)
            return self.count(Unary(token.text, self.expression(UNARY[token.text]), token.column))
        return self.postfix(self.atom())

    def postfix(self, node: Node) -> Node:
        while self.token.kind == "symbol" and self.token.text in ("[", "."):
            if self.token.text == ".":
                raise ExpressionError(
                    "there are no attributes in an expression; only a probe's results have a dot, as answers.correct",
                    column=self.token.column,
                )
            column = self.advance().column
            key = self.advance()
            if key.text not in INDEXES:
                raise ExpressionError("an index is `[y]`, `[index]`, `[group]` or `[partner]`", column=key.column)
            self.expect("]")
            node = self.count(Index(node, key.text, column))
        return node

    def atom(self) -> Node:
        token = self.advance()
        if token.kind == "number":
            return self.count(Number(checked_number(token.text, token.column), token.column))
        if token.kind == "name" and token.text not in WORDS:
            if self.accept("("):
                return self.call(token)
            return self.count(Name(token.text + self.result(), token.column))
        if token.kind == "symbol" and token.text == "(":
            node = self.expression(0)
            self.expect(")")
            return node
        raise self.unexpected("a number, a name or a bracket", token)

    def result(self) -> str:
        """`.correct`, `.drawn` or `.level` behind the name of a probe; nothing behind any other name."""
        if not (self.token.kind == "symbol" and self.token.text == "."):
            return ""
        column, found = self.token.column, ""
        with suppress(ExpressionError):  # a name that begins with _ is no name here, and no attribute either
            self.advance()
            found = self.token.text if self.token.kind == "name" else ""
        if found not in RESULTS:
            results = "NAME.correct, NAME.drawn and NAME.level"
            raise ExpressionError(
                f"there are no attributes in an expression; a probe's results are {results}", column=column
            )
        return f".{self.advance().text}"

    def call(self, name: Token) -> Node:
        arguments: list[Node] = []
        over: str | None = None
        while not self.accept(")"):
            if (arguments or over) and not self.accept(","):
                self.expect(")")
                break
            argument = self.expression(0)
            if isinstance(argument, Name) and self.accept("="):
                if argument.name != "over" or over is not None:
                    raise ExpressionError("only `over=` is given by name, and once", column=argument.column)
                over = self.axis()
            elif over is not None:
                raise ExpressionError("`over=` comes last", column=argument.column)
            else:
                arguments.append(argument)
        return self.count(Call(name.text, tuple(arguments), over, name.column))

    def axis(self) -> str:
        token = self.advance()
        if token.kind != "name":
            raise ExpressionError("`over=` takes the name of an axis", column=token.column)
        return token.text


def _kind(value: Any) -> str:
    return {dict: "a mapping", list: "a list", type(None): "nothing"}.get(type(value), type(value).__name__)


def children(node: Node) -> tuple[Node, ...]:
    """The parts directly inside a node, from the left."""
    if isinstance(node, Call):
        return node.arguments
    if isinstance(node, Binary):
        return (node.left, node.right)
    return (node.operand,) if isinstance(node, (Unary, Index)) else ()


def rebuild(node: Node, parts: tuple[Node, ...]) -> Node:
    """The same node around other parts."""
    if isinstance(node, Call):
        return Call(node.function, parts, node.over, node.column)
    if isinstance(node, Binary):
        return Binary(node.op, parts[0], parts[1], node.column)
    if isinstance(node, Unary):
        return Unary(node.op, parts[0], node.column)
    return Index(parts[0], node.key, node.column) if isinstance(node, Index) else node


def depth(node: Node) -> int:
    """Levels of the tree; without recursion, since it is what recursion is checked by."""
    deepest, waiting = 0, [(node, 1)]
    while waiting:
        part, level = waiting.pop()
        deepest = max(deepest, level)
        waiting.extend((child, level + 1) for child in children(part))
    return deepest


def names(node: Node) -> frozenset[str]:
    """Every name that is read, axes as arguments included; not functions, indices or `over`."""
    found = {node.name} if isinstance(node, Name) else set()
    return frozenset(found).union(*(names(child) for child in children(node)))


def substitute(node: Node, values: Mapping[str, float]) -> Node:
    """The tree with numbers in place of the names in `values`."""
    if isinstance(node, Name) and node.name in values:
        return Number(float(values[node.name]), node.column)
    return rebuild(node, tuple(substitute(child, values) for child in children(node)))


def text(node: Node) -> str:
    """The expression as text, with no bracket more than it needs. `parse(text(parse(x))) == parse(x)`."""
    return _text(node, 0)


def _text(node: Node, outer: int) -> str:
    if isinstance(node, Number):
        written = number_text(node.value)
        return f"({written})" if node.value < 0 and outer > UNARY["-"] else written
    if isinstance(node, Name):
        return node.name
    if isinstance(node, Call):
        arguments = [_text(argument, 0) for argument in node.arguments]
        return f"{node.function}({', '.join(arguments + ([f'over={node.over}'] if node.over else []))})"
    if isinstance(node, Index):
        return f"{_text(node.operand, 9)}[{node.key}]"
    if isinstance(node, Unary):
        power, written = (
            UNARY[node.op],
            f"{node.op}{' ' if node.op == 'not' else ''}{_text(node.operand, UNARY[node.op])}",
        )
    else:
        power = BINARY[node.op]
        low, high = (power + 1, UNARY["-"]) if node.op == "**" else (power + (power == 4), power + 1)
        written = f"{_text(node.left, low)} {node.op} {_text(node.right, high)}"
    return f"({written})" if power < outer else written


def number_text(value: float) -> str:
    """Shortest text of a number: 0.5, 3, 1e-05."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
