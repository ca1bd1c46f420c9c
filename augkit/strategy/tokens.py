"""Text to numbers, names and symbols. ASCII only, so that nothing looks like what it is not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from augkit.errors import ExpressionError

MAX_NUMBER = 1e30
"""Larger numbers would not survive arithmetic in float32."""
DIGITS = "0123456789"
_SYMBOLS = ("**", "//", "==", "!=", "<=", ">=", *"+-*/%<>()[],=.")
_STRANGERS = {
    "^": "write a power as `**`",
    "&": "write `and`",
    "|": "write `or`",
    "!": "write `not`",
    "~": "write `not`",
    "?": "write `where(condition, a, b)`",
    '"': "there are no strings in an expression",
    "'": "there are no strings in an expression",
}
FOREIGN = {
    **dict.fromkeys(("if", "else", "then"), "write `where(condition, a, b)`"),
    "is": "write `==`, or `!=` for `is not`",
    "in": "there are no lists; write `x == 1 or x == 2`",
    **dict.fromkeys(("for", "lambda"), "there are no loops or functions of your own; name parts with `let`"),
    "xor": "write `!=`",
    **{word: f"write `{word.lower()}`" for word in ("AND", "OR", "NOT", "And", "Or", "Not")},
    "=": "write a comparison as `==`, `<=` or `>=`",
    "[": "there are no lists",
    **dict.fromkeys(("True", "TRUE", "true"), "write 1"),
    **dict.fromkeys(("False", "FALSE", "false"), "write 0"),
}
"""What other languages write, and what to write here."""


class Token(NamedTuple):
    kind: str
    """`number`, `name`, `symbol` or `end`."""
    text: str
    column: int


def tokens(text: str) -> Iterator[Token]:
    """Numbers, names and symbols of a text, then `end`.

    Raises:
        ExpressionError: for a character that no expression has.
    """
    at = 0
    while at < len(text):
        start, letter = at, text[at]
        if letter in " \t\r\n":
            at += 1
            continue
        if not letter.isascii():
            raise ExpressionError(
                f"`{letter}` (U+{ord(letter):04X}) is not ASCII; retype it, it may only look like a plain character",
                column=at,
            )
        if letter in DIGITS or (letter == "." and _digits(text, at + 1) > at + 1):
            at = _number_end(text, at)
            yield Token("number", text[start:at], start)
        elif letter.isalpha() or letter == "_":
            while at < len(text) and text[at].isascii() and (text[at].isalnum() or text[at] == "_"):
                at += 1
            yield _name(text[start:at], start)
        else:
            symbol = next((symbol for symbol in _SYMBOLS if text.startswith(symbol, at)), None)
            if symbol is None:
                raise ExpressionError(f"`{letter}` has no meaning here{_hint(letter)}", column=at)
            at += len(symbol)
            yield Token("symbol", symbol, start)
    yield Token("end", "", len(text))


def _hint(letter: str) -> str:
    return f": {_STRANGERS[letter]}" if letter in _STRANGERS else ""


def instead(text: str) -> str:
    """What to write for a word or sign of other languages, to end a message with; "" for any other."""
    return f": {FOREIGN[text]}" if text in FOREIGN else ""


def _name(text: str, column: int) -> Token:
    if text.startswith("_"):
        raise ExpressionError(f"`{text[:40]}`: names begin with a letter", column=column)
    if text.lower() in ("nan", "inf", "infinity"):
        raise ExpressionError(f"`{text}` is not a number that an expression may hold", column=column)
    return Token("name", text, column)


def _number_end(text: str, at: int) -> int:
    start = at
    at = _digits(text, at)
    if text[at : at + 1] == ".":
        at = _digits(text, at + 1)
    if text[at : at + 1] in ("e", "E"):
        exponent = at + 2 if text[at + 1 : at + 2] in ("+", "-") else at + 1
        end = _digits(text, exponent)
        at = end if end > exponent else at
    if text[at : at + 1].isalpha() or text[at : at + 1] in ("_", "."):
        raise ExpressionError(f"`{text[start : at + 1][-40:]}` is not a number", column=start)
    return at


def _digits(text: str, at: int) -> int:
    while at < len(text) and text[at] in DIGITS:
        at += 1
    return at


def checked_number(source: str | float, column: int) -> float:
    try:
        value = float(source)
    except OverflowError:
        value = math.inf
    if not abs(value) <= MAX_NUMBER:
        what = "NaN is not a number" if value != value else f"a number may be at most {MAX_NUMBER:g} in size"
        raise ExpressionError(what, column=column)
    return value
