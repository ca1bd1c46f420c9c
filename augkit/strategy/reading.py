"""Documents as plain data with line numbers: YAML 1.2 and JSON, read event by event, with every limit checked on
the way.

No tags, anchors or aliases, no duplicate keys, one document a file. Numbers and truth values are those of YAML 1.2's
core schema: `2e-4` and `010` (ten) are numbers, `no`, `yes`, `on` and `off` are text. JSON is read as the YAML that it
also is.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from augkit.errors import DocumentError
from augkit.strategy.problems import Place, Problems, TooManyError, path_text, shown

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 20_000

_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_ENDLESS = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_LINES = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class Source:
    """A document as it was found: plain data, and the line of each part."""

    data: Any
    file: str | None = None
    lines: dict[Place, int] = field(default_factory=dict)


def read_file(path: Path) -> Source:
    """Read a document from a file.

    Raises:
        DocumentError: no such file, too large, not UTF-8, or not a document.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DocumentError("this is no file; give the path of a document (.yaml)", file=path)
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        todo = "check how its path is written" if isinstance(error, FileNotFoundError) else "give another file"
        raise DocumentError(f"cannot read the document: {reason}; {todo}", file=path) from error
    if len(raw) > MAX_BYTES:
        raise DocumentError(f"a document has at most {MAX_BYTES} bytes, this has more", file=path)
    try:
        written = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DocumentError("the document is not UTF-8 text", file=path, line=line) from error
    return read_text(written, str(path))


def read_text(written: str, file: str | None = None) -> Source:
    """Read a document from text.

    Raises:
        DocumentError: with all duplicate keys and impossible numbers, or the first thing that is no YAML.
    """
    if len(written) > MAX_BYTES:
        raise DocumentError(f"a document has at most {MAX_BYTES} bytes, this has more", file=file)
    source = Source(None, file)
    problems = Problems(file, source.lines)
    try:
        source.data = _Builder(source, problems).build(yaml.parse(written, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = f"this is not YAML: {_reason(error, written, mark)}"
        raise DocumentError(message, file=file, line=mark.line + 1 if mark else None) from error
    except TooManyError:
        raise problems.error() from None
    except (yaml.YAMLError, UnicodeEncodeError) as error:
        raise DocumentError(f"this is not YAML: {str(error).partition(chr(10))[0]}", file=file) from error
    if problems.found:
        raise problems.error()
    return source


def _reason(error: yaml.MarkedYAMLError, written: str, mark: Any) -> str:
    """What is wrong with the YAML, and the cure of the two commonest slips."""
    lines = _LINES.split(written)
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "a tab; indent with spaces"
    reason = str(error.problem or error.context)
    if "mapping values are not allowed" in reason:
        return f'{reason}; put text that holds ": " in quotes'
    return reason


@dataclass
class _Level:
    """A mapping or list under way."""

    place: Place
    data: Any
    key: str | None = None


class _Builder:
    """Events to plain data, with a stack of its own, so that no depth of a document is a depth of Python's."""

    def __init__(self, source: Source, problems: Problems) -> None:
        self.source, self.problems = source, problems
        self.levels: list[_Level] = []
        self.result: Any = None
        self.nodes = 0
        self.documents = 0

    def build(self, events: Iterator[yaml.Event]) -> Any:
        for event in events:
            line = event.start_mark.line + 1 if event.start_mark else 1
            if isinstance(event, yaml.DocumentStartEvent):
                self.documents += 1
                if self.documents > 1:
                    raise self.fault("a file holds one document, this is a second", line)
            elif isinstance(event, yaml.NodeEvent):
                self.plain(event, line)
                self.node(event, line)
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                self.levels.pop()
        if self.documents == 0:
            raise self.fault("the document is empty", 1)
        return self.result

    def fault(self, message: str, line: int) -> DocumentError:
        return DocumentError(message, file=self.source.file, line=line)

    def plain(self, event: yaml.NodeEvent, line: int) -> None:
        """Limits, and what YAML can do that a document may not."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self.fault(f"a document has at most {MAX_NODES} parts, this has more", line)
        if event.anchor is not None:
            what = "aliases are not allowed: *" if isinstance(event, yaml.AliasEvent) else "anchors are not allowed: &"
            raise self.fault(f"{what}{event.anchor[:40]}; write the part out", line)
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!":
            raise self.fault(f"tags are not allowed: {tag[:60]}", line)
        opens = isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent))
        if opens and len(self.levels) >= MAX_DEPTH:
            raise self.fault(f"the document nests more than {MAX_DEPTH} deep", line)

    def node(self, event: yaml.NodeEvent, line: int) -> None:
        level = self.levels[-1] if self.levels else None
        if level is not None and isinstance(level.data, dict) and level.key is None:
            self.begin_entry(level, event, line)
            return
        place = self.place(level)
        if place not in self.source.lines:  # an entry stands where its key stands
            self.source.lines[place] = line
        if isinstance(event, yaml.ScalarEvent):
            self.put(level, self.scalar(event, place, line))
            return
        data: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
        self.put(level, data)
        self.levels.append(_Level(place, data))

    def begin_entry(self, level: _Level, event: yaml.NodeEvent, line: int) -> None:
        if not isinstance(event, yaml.ScalarEvent):
            raise self.fault("a key is a name, not a list or a mapping", line)
        key: str = event.value
        place: Place = (*level.place, key)
        if key in level.data:
            self.problems.add(place, f"the key {shown(key)} was given before, in line {self.source.lines[place]}", line)
        self.source.lines[place] = line
        level.key = key

    @staticmethod
    def place(level: _Level | None) -> Place:
        if level is None:
            return ()
        return (*level.place, level.key if isinstance(level.data, dict) else len(level.data))

    def put(self, level: _Level | None, value: Any) -> None:
        if level is None:
            self.result = value
        elif isinstance(level.data, dict):
            level.data[level.key] = value
            level.key = None
        else:
            level.data.append(value)

    def scalar(self, event: yaml.ScalarEvent, place: Place, line: int) -> Any:
        if not event.implicit[0]:  # quoted
            return event.value
        if _ENDLESS.fullmatch(event.value) or (_FLOAT.fullmatch(event.value) and not _fits(event.value)):
            self.problems.add(place, f"{shown(event.value)} is not a number that a document may hold", line)
            return 0
        return resolve(event.value)


def _fits(written: str) -> bool:
    return len(written) <= 400 and math.isfinite(float(written))


def resolve(written: str) -> Any:
    """What a plain scalar means in YAML 1.2's core schema: null, truth value, number or text."""
    if written in _WORDS:
        return _WORDS[written]
    if _INTEGER.fullmatch(written):
        return int(written)
    if _FLOAT.fullmatch(written):
        return float(written)
    if _BASED.fullmatch(written) and len(written) <= 40:
        return int(written[2:], 8 if written[1] == "o" else 16)
    return written


def read_mapping(data: Mapping[str, Any]) -> Source:
    """Check a document that is given as Python data, and copy it: depth, size, keys and kinds of value.

    Raises:
        DocumentError: it holds what no document could hold.
    """
    budget = [MAX_NODES, MAX_BYTES]

    def copy(value: Any, place: Place) -> Any:
        budget[0] -= 1
        if len(place) > MAX_DEPTH or budget[0] < 0:
            raise DocumentError(f"a document nests at most {MAX_DEPTH} deep and has at most {MAX_NODES} parts")
        if isinstance(value, Mapping):
            return {text(key, place): copy(inner, (*place, key)) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [copy(inner, (*place, number)) for number, inner in enumerate(value)]
        return text(value, place) if isinstance(value, str) else _number(value, place)

    def text(value: Any, place: Place) -> str:
        if not isinstance(value, str):
            raise DocumentError(f"a key is text, not {shown(value)}", path=path_text(place))
        budget[1] -= len(value)
        if budget[1] < 0:
            raise DocumentError(f"a document has at most {MAX_BYTES} bytes, this has more")
        return value

    return Source(copy(data, ()))


def _number(value: Any, place: Place) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if abs(value) > 10**300:
            raise DocumentError("the number is larger than a document may hold", path=path_text(place))
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise DocumentError(f"{value} is not a number that a document may hold", path=path_text(place))
        return float(value)
    raise DocumentError(
        f"a document holds text, numbers, lists and mappings, not {shown(value)}", path=path_text(place)
    )
