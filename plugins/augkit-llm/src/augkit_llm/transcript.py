"""A model whose replies stand in a file: for tests that must reach neither a network nor a model."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from augkit_llm.models import MAX_REPLY, RENDERINGS, ModelError, Options, Question, Rendering, Reply, most_tokens


class Transcript:
    """Replies of a JSON Lines file, each an object:

    - `text`: the reply, as text or as an object that is written as JSON; or `error`: the call fails with it.
    - `key`: of the question that it answers; several lines with one key answer it one after another. A question whose
      key no line has takes the lines without one, in order.
    - `prompt_tokens`, `completion_tokens`, `usd`, `seconds`: what it cost, 0 unless said.

    A line `{"rendering": "strict"}`, or "small" or "text", says which form the replies have; "text" unless said.
    """

    def __init__(self, file: str | Path, options: Options | None = None) -> None:
        self.name = f"transcript:{file}"
        self.rendering: Rendering = "text"
        self._lines: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for number, line in enumerate(_read(Path(file)), 1):
            if line.strip():
                self._take(_object(line, file, number), f"{file}:{number}")
        self.rendering = (options and options.rendering) or self.rendering
        self._known = frozenset(self._lines)

    def _take(self, entry: dict[str, Any], where: str) -> None:
        if "rendering" in entry:
            if entry["rendering"] not in RENDERINGS:
                raise ModelError(f"{where}: rendering must be one of {', '.join(RENDERINGS)}")
            self.rendering = entry["rendering"]
        elif "text" not in entry and "error" not in entry:
            raise ModelError(f"{where}: a reply has text or error")
        else:
            for name in ("prompt_tokens", "completion_tokens", "usd", "seconds"):
                _check_number(name, entry.get(name, 0), where)
            self._lines[str(entry.get("key", ""))].append(entry)

    @property
    def keyless(self) -> bool:
        """Whether a reply has no key, so that which question it answers depends on what was asked before."""
        return "" in self._known

    def estimate(self, question: Question) -> tuple[int, float]:
        """What the reply will cost is known."""
        lines = self._lines[self._key(question)]
        return most_tokens(question), float(lines[0].get("usd", 0)) if lines else 0.0

    def ask(self, question: Question) -> Reply:
        """The next reply to this question's key."""
        lines = self._lines[self._key(question)]
        if not lines:
            raise ModelError(f'{self.name} has no further reply to the question "{question.key}"')
        entry = lines.pop(0)
        if "error" in entry:
            raise ModelError(f"{self.name}: {entry['error']}")
        text = entry["text"] if isinstance(entry["text"], str) else json.dumps(entry["text"])
        return Reply(
            text=text[:MAX_REPLY],
            model=self.name,
            prompt_tokens=int(entry.get("prompt_tokens", 0)),
            completion_tokens=int(entry.get("completion_tokens", 0)),
            usd=float(entry.get("usd", 0)),
            seconds=float(entry.get("seconds", 0)),
        )

    def _key(self, question: Question) -> str:
        return question.key if question.key in self._known else ""


def _check_number(name: str, value: Any, where: str) -> None:
    whole = name.endswith("tokens")
    good = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not (good and 0 <= value < math.inf):
        raise ModelError(f"{where}: {name} is a {'whole ' if whole else ''}number from 0, not {json.dumps(value)[:60]}")


def _read(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ModelError(f"cannot read the transcript {file}: {reason}") from error


def _object(line: str, file: str | Path, number: int) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file}:{number}: this line is no JSON") from error
    if not isinstance(entry, dict):
        raise ModelError(f"{file}:{number}: a line is an object with text and key")
    return entry
