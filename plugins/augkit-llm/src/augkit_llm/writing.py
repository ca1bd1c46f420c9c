"""A model writes a strategy: the question, the reply read by the same loader as any file, and at most a few repairs."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augkit.errors import AugkitError, DocumentError
from augkit.registry import Registry
from augkit.strategy.document import load_strategy
from augkit.strategy.model import Strategy
from augkit_llm import prompts
from augkit_llm.models import Message, Model, Question, Rendering, Reply
from augkit_llm.rendering import RenderingError, small, strict
from augkit_llm.rendering.dig import dig
from augkit_llm.request import DataFacts, Parent, Request

__all__ = ["Attempt", "DataFacts", "Parent", "Request", "Written", "write"]

Admit = Callable[[Mapping[str, Any], Registry], Strategy]
MAX_TOKENS = {"strict": 8000, "text": 4000, "small": 400}
"""Of a reply by its form; a model that reasons spends most of them before it writes."""
MOST_ERRORS = 12
MOST_SHOWN = 12_000
"""Characters of its own reply that a model is shown with the errors."""


@dataclass(frozen=True)
class Attempt:
    """One question and what became of it."""

    prompt: str
    """What was new in it: the whole first question, then each repair's."""
    reply: Reply | None
    error: str | None
    """What is wrong with the reply, with path and hint, as it went back to the model; None for a valid document."""


@dataclass(frozen=True)
class Written:
    """What a model wrote."""

    document: dict[str, Any] | None
    """A valid strategy document; None if no attempt gave one."""
    idea: str
    """The idea in a sentence, the document's title."""
    attempts: tuple[Attempt, ...]

    @property
    def usd(self) -> float:
        """Of all attempts together."""
        return sum(attempt.reply.usd for attempt in self.attempts if attempt.reply is not None)

    @property
    def tokens(self) -> int:
        """Of all attempts together, questions and replies."""
        replies = [attempt.reply for attempt in self.attempts if attempt.reply is not None]
        return sum(reply.prompt_tokens + reply.completion_tokens for reply in replies)


def write(
    model: Model,
    request: Request,
    *,
    registry: Registry,
    repairs: int = 2,
    ask: Callable[[Question], Reply] | None = None,
    folder: Path | None = None,
    temperature: float = 1.0,
    admit: Admit = load_strategy,
) -> Written:
    """Let a model write one strategy.

    Args:
        model: which one.
        request: what is wanted.
        registry: what the strategy may name; narrowed to the operators that the request allows.
        repairs: how often a faulty document goes back with its errors.
        ask: instead of `model.ask`, for callers that store replies or keep a budget.
        folder: prompts that stand in for the package's.
        temperature: of the model.
        admit: reads a document; one that raises for more than the format does (`limits.admit`) has its faults go back.

    Raises:
        ModelError: the model does not answer, or a prompt cannot be made; and whatever `ask` raises.
    """
    asked = ask or model.ask
    registry = prompts.narrowed(registry, request.allowed)
    sees = getattr(model, "sees", False) is not False
    messages = prompts.question(request, model.rendering, registry, sees=sees, folder=folder)
    form = schema(model.rendering, request, registry)
    attempts: list[Attempt] = []
    new = messages
    for number in range(repairs + 1):
        question = Question(
            messages=(*messages, *new) if number else messages,
            schema=form,
            key=f"{request.key}.a{number}",
            max_tokens=MAX_TOKENS[model.rendering],
            temperature=temperature,
            seed=zlib.crc32(f"{request.seed}.{request.key}.{number}".encode()) & 0x7FFFFFFF,
        )
        reply = asked(question)
        found, errors = read(reply, model.rendering, request, registry, admit)
        attempts.append(Attempt(_told(new), reply, "\n".join(errors) or None))
        if found is not None:
            return Written(found, str(found.get("title", "")), tuple(attempts))
        # only the last reply and its errors: a growing conversation costs more and helps little
        new = (Message("assistant", _short(reply.text)), prompts.repair(errors, model.rendering, folder))
    return Written(None, "", tuple(attempts))


def schema(rendering: Rendering, request: Request, registry: Registry) -> dict[str, Any]:
    """The JSON Schema that a reply is held to; for free text any object."""
    if rendering == "strict":
        return strict.schema(registry)
    if rendering == "small":
        few = prompts.menu(request, registry)
        return small.schema(few, request.seed, len(few.operators))
    return {"type": "object"}


def read(
    reply: Reply, rendering: Rendering, request: Request, registry: Registry, admit: Admit = load_strategy
) -> tuple[dict[str, Any] | None, list[str]]:
    """The valid document in a reply, or None and what is wrong with it."""
    if not reply.text.strip():
        return None, ["the reply is empty" + _cut(reply)]
    try:
        found = dig(reply.text)
    except RenderingError as error:
        return None, [str(error) + _cut(reply)]
    try:
        document = _document(found, rendering, registry)
        strategy = admit(document, registry)
    except DocumentError as error:
        return None, _lines(error)
    except AugkitError as error:
        return None, [str(error)]
    except RecursionError:  # no reply may end more than its own slot
        return None, ["the document nests too deep"]
    errors = forbidden(strategy, request.allowed, registry)
    return (None, errors) if errors else (document, [])


def forbidden(strategy: Strategy, allowed: Sequence[str], registry: Registry) -> list[str]:
    """A sentence for each signal that a strategy reads and may not."""
    everything = prompts.signals(registry, ())
    permitted = prompts.signals(registry, allowed)
    return [
        f"{name} may not be read here. Valid: {', '.join(permitted)}."
        for name in sorted((strategy.reads & set(everything)) - set(permitted))
    ]


def _document(found: dict[str, Any], rendering: Rendering, registry: Registry) -> dict[str, Any]:
    if rendering == "strict":
        return strict.to_document(found, registry)
    if rendering == "small":
        return small.to_document(found)
    idea = found.pop("idea", None)  # models that were told of it elsewhere like to say it
    if isinstance(idea, str) and not found.get("title"):
        found["title"] = " ".join(idea.split())
    return found if "augkit" in found else {"augkit": 1, **found}


def _lines(error: DocumentError) -> list[str]:
    """What `augkit validate` prints, without files and lines, which a reply has none of."""
    problems = [_placed(problem) for problem in error.problems]
    more = len(problems) - MOST_ERRORS
    return problems[:MOST_ERRORS] + ([f"and {more} more"] if more > 0 else [])


def _placed(problem: DocumentError) -> str:
    """`pipeline[0].pick.p: message`."""
    return f"{problem.path}: {problem.message}" if problem.path else problem.message


def _cut(reply: Reply) -> str:
    return f"; it was cut off after {reply.completion_tokens} tokens, so be shorter" if reply.cut else ""


def _short(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + " [...]"


def _told(messages: Sequence[Message]) -> str:
    return "\n\n".join(f"{message.role}:\n{message.text}" for message in messages)
