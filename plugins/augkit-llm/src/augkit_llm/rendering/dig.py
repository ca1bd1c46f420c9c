"""The mapping in a model's reply: JSON or YAML, alone, in a fence, or with prose around it.

A reply is data from a stranger. It is measured before anything else looks at it, searched in one pass, and read by the
same reader as a strategy document, which takes no tags, anchors or aliases, no repeated keys, no NaN, and a bounded
depth and number of parts. Nothing is ever run.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from augkit.errors import DocumentError
from augkit.strategy.reading import MAX_DEPTH, read_mapping, read_text
from augkit_llm.rendering import RenderingError

MAX_CHARACTERS = 200_000
"""Of a reply; a strategy with all that it may say has 40,000 in its expressions."""
MAX_TRIES = 8
SMALLEST = 3
"""A part is tried only if it has at least one of so many parts of the longest's length: no step of a broken document
is taken for a document."""

_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[^\n]*$", re.MULTILINE)
_MARK = re.compile(r'[{}"]')
_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"?')
_KEY_LINE = re.compile(r"[A-Za-z_]\w*[ ]*:(?:\s|$)")
_GOES_ON = re.compile(r"[ \t#]|- |-$|[\]})]|$")
_SYNTAX = "this is not YAML"


def dig(text: str) -> dict[str, Any]:
    """The mapping in a reply: the longest that can be read, out of its fences, its runs of YAML and its braces.

    A mapping with one key that holds a mapping, `{"strategy": {...}}`, gives the inner one.

    Raises:
        RenderingError: in one sentence, for a reply that holds none, or one that goes beyond what a document may have.
    """
    if len(text) > MAX_CHARACTERS:
        raise RenderingError(f"the reply has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read")
    found = sorted(_unique(_parts(text)), key=len, reverse=True)
    if not found:
        raise RenderingError("there is no JSON object and no YAML mapping in the reply")
    first: str | None = None
    for part in found[:MAX_TRIES]:
        if len(part) * SMALLEST < len(found[0]):
            break
        value, fault = _read(part)
        if isinstance(value, dict) and value:
            return _inner(value)
        first = first or fault or "the reply holds a list or a word, not an object with named fields"
    raise RenderingError(first or "there is no JSON object and no YAML mapping in the reply")


def _parts(text: str) -> Iterator[str]:
    yield from _fences(text)
    yield from _runs(text)
    yield from _braces(text)


def _unique(parts: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(part for part in map(str.strip, parts) if part))


def _fences(text: str) -> Iterator[str]:
    """What stands between fences; the last may lack its end."""
    begun: tuple[str, int] | None = None
    for mark in _FENCE.finditer(text):
        if begun is None:
            begun = mark[1], mark.end()
        elif mark[1].startswith(begun[0]):
            yield text[begun[1] : mark.start()]
            begun = None
    if begun is not None:
        yield text[begun[1] :]


def _runs(text: str) -> Iterator[str]:
    """Lines that may be a YAML mapping: from a line that begins with a key to one that belongs to no mapping."""
    run: list[str] = []
    for line in (*text.splitlines(), "."):
        if run and line.startswith("augkit:"):  # what came before was prose
            yield "\n".join(run)
            run = []
        if _KEY_LINE.match(line) or (run and _GOES_ON.match(line)):
            run.append(line)
        elif run:
            yield "\n".join(run)
            run = []


def _braces(text: str) -> Iterator[str]:
    """What stands between the outermost braces that match, and from a brace that nothing closes to the end."""
    open_at: list[int] = []
    closed: list[tuple[int, int]] = []
    mark = _MARK.search(text)
    while mark is not None:
        at = mark.end()
        if mark[0] == "{":
            open_at.append(mark.start())
        elif mark[0] == "}" and open_at:
            start = open_at.pop()
            while closed and closed[-1][0] > start:  # what is inside of it
                closed.pop()
            closed.append((start, at))
        elif mark[0] == '"' and open_at:  # the braces of a string do not count, and one that lacks its end has its line
            string = _STRING.match(text, mark.start())
            at = string.end() if string is not None else at
        mark = _MARK.search(text, at)
    if open_at:
        yield text[open_at[0] :]
    for start, end in closed:
        yield text[start:end]


def _read(part: str) -> tuple[Any, str]:
    """A part as JSON or else as YAML: its value, or None and why it cannot be read.

    Raises:
        RenderingError: it can be read, but no document may hold it.
    """
    fault = ""
    if part.startswith("{"):
        try:
            return _json(part), ""
        except ValueError as error:
            fault = f"the JSON in the reply cannot be read: {_told(error, part)}"
    try:
        return read_text(part).data, ""
    except DocumentError as error:
        if not error.message.startswith(_SYNTAX):
            raise _refused(error) from error
        line = f" (line {error.line} of the mapping)" if error.line else ""
        return None, fault or f"the YAML in the reply cannot be read{line}: {error.message.partition(': ')[2]}"


def _json(part: str) -> Any:
    try:
        value = json.loads(part, object_pairs_hook=_object, parse_constant=_no_number, parse_float=_float)
    except RecursionError as error:
        raise _too_deep() from error
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
        return read_mapping(value).data if isinstance(value, Mapping) else value
    except UnicodeEncodeError as error:
        raise RenderingError("the reply holds half of a character, which no file can hold") from error
    except RecursionError as error:
        raise _too_deep() from error
    except DocumentError as error:
        raise _refused(error) from error


def _refused(error: DocumentError) -> RenderingError:
    first = error.problems[0]
    message = f"the reply holds what no document may hold: {first.message}"
    return RenderingError(message, path=first.path)


def _too_deep() -> RenderingError:
    return RenderingError(f"the reply nests deeper than the {MAX_DEPTH} levels of a document")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for number, key in enumerate(keys) if key in keys[:number])
        raise RenderingError(f"the reply gives the key {twice[:60]!r} twice in one object")
    return made


def _no_number(written: str) -> NoReturn:
    raise RenderingError(f"{written} is not a number that a document may hold")


def _float(written: str) -> float:
    value = float(written)
    if not math.isfinite(value):
        _no_number(written[:40])
    return value


def _told(error: ValueError, part: str) -> str:
    if not isinstance(error, json.JSONDecodeError):
        return "a number in it has too many digits"
    if error.pos >= len(part.rstrip()) - 1:
        return "it ends before it is complete"
    return f"{error.msg[:1].lower()}{error.msg[1:]} in line {error.lineno}, column {error.colno}"


def _inner(value: dict[str, Any]) -> dict[str, Any]:
    while len(value) == 1:
        (only,) = value.values()
        if not isinstance(only, dict) or not only:
            break
        value = only
    return value
