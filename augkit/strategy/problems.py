"""Collecting everything that is wrong with a document, each fault with its line and its path, to report it at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from augkit.errors import DocumentError, nearest

Place = tuple[Any, ...]
"""Keys and positions from the top of a document: `("pipeline", 0, "pick", "p")`."""
MOST = 50


class TooManyError(Exception):
    """So much is wrong that looking further helps nobody."""


@dataclass
class Problems:
    """The faults of one document, and where its parts stand."""

    file: str | None = None
    lines: Mapping[Place, int] = field(default_factory=dict)
    found: list[DocumentError] = field(default_factory=list)

    def add(self, place: Place, message: str, line: int | None = None) -> None:
        """Note a fault at a place of the document.

        Raises:
            TooManyError: this was one too many.
        """
        self.found.append(DocumentError(message, file=self.file, line=line or self.line(place), path=path_text(place)))
        if len(self.found) >= MOST:
            raise TooManyError

    def unknown(self, place: Place, name: str, valid: Iterable[str], what: str = "key") -> None:
        """Note a name that does not exist, with the valid one nearest to it."""
        self.add(place, f"there is no {what} {shown(name)} here.{hint(name, valid)}")

    def line(self, place: Place) -> int | None:
        """The line of a place, or of the nearest part around it that has one."""
        for length in range(len(place), -1, -1):
            if place[:length] in self.lines:
                return self.lines[place[:length]]
        return None

    def error(self) -> DocumentError:
        """Everything found, as one error."""
        if len(self.found) == 1:
            return self.found[0]
        ordered = sorted(self.found, key=lambda problem: problem.line or 0)
        more = " (and there may be more)" if len(ordered) >= MOST else ""
        message = f"the document has {len(ordered)} faults{more}; the first: {ordered[0].message}"
        return DocumentError(message, file=self.file, line=ordered[0].line, path=ordered[0].path, problems=ordered)


def not_filled(value: Any, expected: str) -> str:
    """What to say of something that is no list, or a list of nothing."""
    if value == []:
        return f"it must not be empty: {expected}"
    return f"{expected}, found {shown(value)}"


def path_text(place: Place) -> str:
    """`pipeline[0].pick.p`."""
    result = ""
    for part in place:
        if isinstance(part, int):
            result += f"[{part}]"
        else:
            result += ("." if result else "") + str(part)[:60]
    return result


def hint(name: str, valid: Iterable[str]) -> str:
    """The valid name nearest to this one; nothing for what is too long to be a slip."""
    return nearest(name, valid) if len(name) <= 60 else ""


def shown(value: Any) -> str:
    """A value of a document in a message: short, and in the document's own spelling."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if value is None:
        return "nothing"
    written = (
        json.dumps(value, ensure_ascii=False) if isinstance(value, (str, bool, int, float)) else type(value).__name__
    )
    return written if len(written) <= 60 else written[:57] + "..."
