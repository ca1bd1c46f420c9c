"""Any model that litellm reaches: the form of its replies, its price, and calls with time limits and retries.

litellm is imported when a model is opened, with its local price map, since it would fetch one otherwise.
"""

from __future__ import annotations

import base64
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from augkit_llm.models import MAX_REPLY, Message, ModelError, Options, Question, Rendering, Reply, most_tokens

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before the first retry, doubled for each further one up to the longest, each cut short at random."""
MOST_PATIENCE = 180.0
"""Seconds; a server that asks for a longer pause ends the call."""
_AGAIN = (408, 409, 425, 429)
_DATA = "data:image/png;base64,"


def load_litellm() -> Any:
    """The module, which then neither reaches for a network by itself nor prints or logs what is asked."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    try:
        import litellm
    except ImportError as error:
        raise ModelError(f"litellm cannot be imported ({error}): pip install litellm") from error
    litellm.suppress_debug_info = True
    litellm.drop_params = True  # a model that takes no seed or temperature is asked without
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return litellm


class LitellmModel:
    """A model by litellm's name: `openai/gpt-5-mini`, `anthropic/...`, or `openai/NAME` with `api_base`."""

    def __init__(self, name: str, options: Options) -> None:
        self.name, self._options = name, options
        self._litellm = load_litellm()
        self._provider = self._find_provider()
        known = self._known()
        self.price = options.usd_per_mtok or _price(known)
        """USD for a million tokens, (in, out); None if nobody knows."""
        self.remark = "" if self.price else f"the price of {name} is not known and counts as 0; {_HOW_PRICED}"
        if options.priced and not self.price:
            raise ModelError(f"the price of {name} is not known, so that no budget in USD can be kept; {_HOW_PRICED}")
        self._schemas = bool(_quietly(self._litellm.supports_response_schema, model=name))
        self.rendering: Rendering = options.rendering or ("strict" if self._schemas else "text")
        self.sees = bool(_quietly(self._litellm.supports_vision, model=name)) if known else None
        """Whether it takes images; None if nobody knows."""
        self._json = "response_format" in (_quietly(self._litellm.get_supported_openai_params, model=name) or ())

    def estimate(self, question: Question) -> tuple[int, float]:
        """As for every model; a retry after a time-out, which some providers charge for, is not in it."""
        tokens = most_tokens(question)
        return tokens, self._usd(tokens - question.max_tokens, question.max_tokens)

    def ask(self, question: Question) -> Reply:
        """The reply, after as many retries as the options allow, for what time may mend."""
        arguments = self._arguments(question)
        start = time.monotonic()
        for attempt in range(self._options.retries + 1):
            try:
                response = within(self._options.timeout, lambda: self._litellm.completion(**arguments))
                return self._reply(response, question, time.monotonic() - start)
            except Exception as error:  # whatever litellm and its clients may raise
                pause = self._pause(error, attempt)
                if pause is None or attempt == self._options.retries:
                    raise self._failed(error, attempt + 1) from None  # the cause may hold the key
                time.sleep(pause)
        raise AssertionError("every way out of the loop returns or raises")

    def _arguments(self, question: Question) -> dict[str, Any]:
        options = self._options
        arguments: dict[str, Any] = {
            "model": self.name,
            "messages": [_message(message) for message in question.messages],
            "max_tokens": question.max_tokens,
            "temperature": question.temperature,
            "seed": question.seed,
            "timeout": options.timeout,
            "num_retries": 0,
            "max_retries": 0,
        }
        if options.api_base:
            arguments["api_base"] = options.api_base
        based = options.api_base or os.environ.get("OPENAI_API_BASE") or os.environ.get("OPENAI_BASE_URL")
        if self._provider == "openai" and based and not os.environ.get("OPENAI_API_KEY"):
            arguments["api_key"] = "none"  # most servers of one's own want no key, but the client wants some
        if question.schema is not None and (self._schemas or self.rendering != "text"):
            form = {"name": "strategy", "schema": dict(question.schema), "strict": True}
            arguments["response_format"] = {"type": "json_schema", "json_schema": form}
        elif question.schema is not None and self._json:
            arguments["response_format"] = {"type": "json_object"}
        return arguments

    def _reply(self, response: Any, question: Question, seconds: float) -> Reply:
        choice = response.choices[0]
        text = (choice.message.content or "")[:MAX_REPLY]
        usage = getattr(response, "usage", None)
        asked = int(getattr(usage, "prompt_tokens", 0) or 0)
        answered = int(getattr(usage, "completion_tokens", 0) or 0)
        if not asked:  # a server that does not count: more rather than less
            asked = most_tokens(question) - question.max_tokens
            answered = answered or min(len(text.encode()) // 2 + 1, question.max_tokens)
        cut = choice.finish_reason == "length"
        return Reply(text, self.name, asked, answered, self._usd(asked, answered), seconds, cut)

    def _usd(self, asked: int, answered: int) -> float:
        each = self.price or (0.0, 0.0)
        return (asked * each[0] + answered * each[1]) / 1e6

    def _pause(self, error: Exception, attempt: int) -> float | None:
        """Seconds to wait before another try; None if none would help."""
        status = getattr(error, "status_code", None)
        if _refused(error) or (isinstance(status, int) and status < 500 and status not in _AGAIN):
            return None
        if "insufficient_quota" in str(error) or "exceeded your current quota" in str(error):
            return None
        told = _retry_after(getattr(error, "litellm_response_headers", None) or {})
        if told is not None and told > MOST_PATIENCE:
            return None
        longest = min(LONGEST_WAIT, FIRST_WAIT * 2**attempt)
        # only when to try again: nothing of a search's result hangs on this draw
        return (told or 0.0) + random.uniform(longest / 2, longest)

    def _failed(self, error: Exception, tries: int) -> ModelError:
        status = getattr(error, "status_code", None)
        after = f" after {tries} tries" if tries > 1 else ""
        if _refused(error):
            return ModelError(f"{self._provider} did not accept the key for {self.name}: set {self._key_variable()}")
        if status == 404:
            return ModelError(f"{self._provider} has no model {self.name}: {_brief(error)}")
        if isinstance(error, TimeoutError) or type(error).__name__ == "Timeout":
            return ModelError(f"{self.name} gave no reply within {self._options.timeout:g} seconds{after}")
        if status == 400 and self.rendering != "text":
            return ModelError(
                f"{self.name} did not take the question: {_brief(error)}; if it cannot follow a schema, "
                "ask with --rendering text"
            )
        return ModelError(f"{self.name} did not answer{after}: {_brief(error)}")

    def _find_provider(self) -> str:
        try:
            return str(self._litellm.get_llm_provider(self.name, api_base=self._options.api_base)[1])
        except Exception:
            raise ModelError(
                f'litellm knows no model "{self.name}": write PROVIDER/NAME, such as openai/gpt-5-mini, or '
                "openai/NAME with --api-base for a server of your own; local and none need neither"
            ) from None

    def _known(self) -> Mapping[str, Any]:
        """What litellm's local map says of the model."""
        bare = self.name.split("/", 1)[-1]
        found = self._litellm.model_cost
        for name in (self.name, f"{self._provider}/{bare}", bare):
            # a name without its provider is another provider's model, unless the map says whose it is
            if name in found and (name != bare or found[name].get("litellm_provider") == self._provider):
                entry: Mapping[str, Any] = found[name]
                return entry
        return {}

    def _key_variable(self) -> str:
        missing = (_quietly(self._litellm.validate_environment, model=self.name) or {}).get("missing_keys") or ()
        return " or ".join(missing) or f"{self._provider.upper()}_API_KEY"


_HOW_PRICED = "give it in USD for a million tokens: --usd-per-mtok IN,OUT"


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """What a call returns or raises, or TimeoutError when it takes longer in all.

    Clients count the seconds between two bytes, so that a slow stream never ends; the thread is left to itself.
    """
    done: list[Any] = []

    def run() -> None:
        try:
            done.append((call(), None))
        except BaseException as error:
            done.append((None, error))

    worker = threading.Thread(target=run, daemon=True, name="augkit-llm-call")
    worker.start()
    worker.join(seconds)
    if not done:
        raise TimeoutError
    value, error = done[0]
    if error is not None:
        raise error
    return value


def _message(message: Message) -> dict[str, Any]:
    if not message.images:
        return {"role": message.role, "content": message.text}
    pictures = [
        {"type": "image_url", "image_url": {"url": _DATA + base64.b64encode(image).decode()}}
        for image in message.images
    ]
    return {"role": message.role, "content": [{"type": "text", "text": message.text}, *pictures]}


def _price(known: Mapping[str, Any]) -> tuple[float, float] | None:
    """USD for a million tokens, in and out."""
    each = (known.get("input_cost_per_token"), known.get("output_cost_per_token"))
    if not all(isinstance(one, (int, float)) for one in each):
        return None
    return float(each[0] or 0) * 1e6, float(each[1] or 0) * 1e6


def _retry_after(headers: Mapping[str, Any]) -> float | None:
    """Seconds that the server asks to wait, from either form of its header."""
    told = headers.get("retry-after")
    if not isinstance(told, str):
        return None
    try:
        return max(0.0, float(told))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(told)
    except (TypeError, ValueError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
    return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())


def _refused(error: Exception) -> bool:
    """Whether the key is wrong or missing; of a missing one the client tells in words, and never calls the server."""
    if getattr(error, "status_code", None) in (401, 403) or "AuthenticationError" in type(error).__name__:
        return True
    called = getattr(error, "litellm_response_headers", None) is not None
    return not called and any(word in str(error).lower() for word in ("missing credentials", "api_key", "api key"))


def _quietly(function: Callable[..., Any], **arguments: Any) -> Any:
    try:
        return function(**arguments)
    except Exception:  # litellm raises what it likes for a model that it does not know
        return None


def _brief(error: Exception) -> str:
    """The provider's own words, without litellm's around them, in one short line."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = text.rpartition("Exception - ")[2].removeprefix("litellm.")
    return text[:200].rstrip(" .")
