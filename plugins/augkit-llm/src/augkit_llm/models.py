"""What is asked of a language model and what comes back; the models by name; errors that never tell a key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from augkit.errors import AugkitError

Rendering = Literal["strict", "small", "text"]


class ModelError(AugkitError):
    """A model cannot be asked, or did not answer after its own retries. The message holds no key."""


@dataclass(frozen=True)
class Message:
    """One message of a conversation; `images` are PNG files for models that see."""

    role: Literal["system", "user", "assistant"]
    text: str
    images: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Question:
    """One call of a model."""

    messages: tuple[Message, ...]
    schema: Mapping[str, Any] | None = None
    """JSON Schema that the reply should follow; None for free text."""
    key: str = ""
    """A name that is the same whenever a search is run again, such as "g3.s1.a0"; transcripts go by it."""
    max_tokens: int = 4000
    temperature: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Reply:
    """What a model answered, and what that cost."""

    text: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    usd: float
    seconds: float


class Model(Protocol):
    """A language model."""

    name: str
    rendering: Rendering
    """Which rendering of the format it can follow."""

    def estimate(self, question: Question) -> tuple[int, float]:
        """The most tokens and USD that a call can cost, to be reserved before it."""
        ...

    def ask(self, question: Question) -> Reply:
        """The reply.

        Raises:
            ModelError: after the model's own retries.
        """
        ...
