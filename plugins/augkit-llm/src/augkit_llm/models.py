"""What is asked of a language model and what comes back; models by name; errors that never tell a key."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from augkit.errors import AugkitError

Rendering = Literal["strict", "small", "text"]
RENDERINGS: tuple[Rendering, ...] = ("strict", "small", "text")
IMAGE_TOKENS = 40_000
"""The most that a picture is counted for: gpt-4o-mini takes 36,835 for a contact sheet, and most others a thousand."""
MAX_REPLY = 1 << 20
"""Characters of a reply that are kept; no question allows for so many tokens."""

_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_KEY_SHAPES = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|hf)[-_][A-Za-z0-9_*.\-]{6,}|\bAIza[\w-]{10,}|\bAKIA[A-Z0-9]{8,}|(?<=[Bb]earer )\S+"
)


class ModelError(AugkitError):
    """A model cannot be asked, or did not answer after its own retries. The message holds no key."""

    def __init__(self, message: str) -> None:
        super().__init__(scrub(message))


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
    cut: bool = False
    """Whether it ended because `max_tokens` were used up."""


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


@dataclass(frozen=True)
class Options:
    """How models are asked; what says nothing about a kind of model is left alone by it."""

    rendering: Rendering | None = None
    """Instead of the one that the model is known to follow."""
    api_base: str | None = None
    """Address of a server that speaks OpenAI's protocol, for `openai/NAME`."""
    usd_per_mtok: tuple[float, float] | None = None
    """Price of a million tokens, (in, out), instead of the one that litellm knows."""
    priced: bool = False
    """Whether a model without a known price is refused, as it must be where USD are budgeted."""
    timeout: float = 300.0
    """Seconds for one try."""
    retries: int = 4
    """Tries after the first."""


def open_model(name: str, options: Options | None = None) -> Model:
    """A model by its name: `local`, `transcript:FILE.jsonl`, or a model name of litellm such as `openai/gpt-5-mini`.

    `none` is no model: documents without one are made by `augkit_llm.propose`.

    Raises:
        ModelError: there is no such model, what it needs is not installed, or it has no price and must have one.
    """
    options = options or Options()
    if name == "none":
        raise ModelError("none is no model that can be asked; documents without one come from augkit_llm.propose")
    if name == "local":
        from augkit_llm.local_model import LocalModel

        return LocalModel(options)
    if name.startswith("transcript:"):
        from augkit_llm.transcript import Transcript

        return Transcript(name.removeprefix("transcript:"), options)
    from augkit_llm.litellm_model import LitellmModel

    return LitellmModel(name, options)


def parse_shares(names: Sequence[str]) -> dict[str, float]:
    """Several models and each one's share of the questions, from `NAME` or `NAME=SHARE`; the shares sum to 1.

    A name of litellm's may hold any colon, so that the share stands behind "=".

    Raises:
        ModelError: no name, one given twice, or a share that is no positive number.
    """
    shares: dict[str, float] = {}
    for given in names:
        name, share = given, 1.0
        head, equals, tail = given.rpartition("=")
        if equals and re.fullmatch(r"-?[0-9.]+(e-?[0-9]+)?", tail):
            name, share = head, _number(tail)
        if not name or not 0 < share < math.inf:
            raise ModelError(f'--llm takes NAME or NAME=SHARE with a share above 0, not "{given}"')
        if name in shares:
            raise ModelError(f"--llm names {name} twice; give it once, with a share: {name}=2")
        shares[name] = share
    if not shares:
        raise ModelError("name a model with --llm; none makes documents without one")
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()}


def parse_price(given: str | None) -> tuple[float, float] | None:
    """USD for a million tokens, in and out, from "0.25,2"; None for None.

    Raises:
        ModelError: it is something else.
    """
    if given is None:
        return None
    each = [_number(part) for part in given.split(",")]
    if len(each) != 2 or not all(0 <= one < math.inf for one in each):
        raise ModelError(f'--usd-per-mtok takes two prices in USD for a million tokens, as in 0.25,2, not "{given}"')
    return each[0], each[1]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def scrub(text: str, extra: Sequence[str] = ()) -> str:
    """Text without any key: those in this process's environment, those in `extra`, and what looks like one."""
    known = [value for name, value in os.environ.items() if _SECRET.search(name) and len(value) >= 6]
    for secret in sorted({*known, *extra} - {""}, key=len, reverse=True):
        text = text.replace(secret, "[key]")
    return _KEY_SHAPES.sub("[key]", text)


def most_tokens(question: Question) -> int:
    """The most tokens that a question and its reply can take.

    Two bytes a token, where English and JSON have three to four: no tokenizer is needed, and none is downloaded.
    """
    written = sum(len(message.text.encode()) for message in question.messages)
    if question.schema is not None:
        import json

        written += len(json.dumps(question.schema))
    images = sum(len(message.images) for message in question.messages)
    return written // 2 + 50 * len(question.messages) + IMAGE_TOKENS * images + question.max_tokens
