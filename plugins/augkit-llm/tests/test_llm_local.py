"""A real small model in this process; `make test-llm` installs it and runs these tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from augkit_llm.local_model import CONTEXT, weights
from augkit_llm.models import Message, Model, ModelError, Question, open_model
from augkit_llm.request import DataFacts, Request
from augkit_llm.writing import write
from typer.testing import CliRunner

from augkit.cli.app import build
from augkit.plugins import registry
from augkit.strategy.document import load_strategy

missing = importlib.util.find_spec("llama_cpp") is None
needs_model = pytest.mark.skipif(missing, reason="llama-cpp-python is not installed")
DATA = DataFacts((500, 120, 30, 7), 32, ("airplane", "cat", "dog", "frog"))


def test_what_is_missing_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "llama_cpp" else find(name))
    with pytest.raises(ModelError, match=r"^--llm local needs llama\.cpp and weights: .* pip install llama-cpp-python"):
        open_model("local")
    monkeypatch.setenv("AUGKIT_LOCAL_MODEL", str(tmp_path / "no.gguf"))
    with pytest.raises(ModelError, match=r"names .*no\.gguf, which is no file"):
        weights()


@pytest.fixture(scope="module")
def model() -> Model:
    return open_model("local")


@pytest.mark.llm
@pytest.mark.slow
@needs_model
def test_ten_of_ten_replies_are_valid_documents_without_repair(model: Model) -> None:
    hashes = set()
    for number in range(10):
        request = Request("", "initial", DATA, key=f"g0.s{number}")
        written = write(model, request, registry=registry(), repairs=0)
        assert written.document is not None, written.attempts[0].error
        hashes.add(load_strategy(written.document, registry()).hash)
        reply = written.attempts[0].reply
        assert reply is not None and reply.usd == 0 and reply.completion_tokens > 0 and not reply.cut
    assert len(hashes) >= 8


@pytest.mark.llm
@pytest.mark.slow
@needs_model
def test_a_reply_is_a_function_of_the_question_and_its_seed(model: Model) -> None:
    def ask(seed: int, text: str = "Name a colour.") -> str:
        return model.ask(Question((Message("user", text),), max_tokens=12, seed=seed)).text

    first = ask(1)
    ask(5, "Something else in between.")
    assert ask(1) == first
    assert len({ask(seed) for seed in range(6)}) > 1


@pytest.mark.llm
@pytest.mark.slow
@needs_model
def test_a_question_that_is_too_long_is_told(model: Model) -> None:
    with pytest.raises(ModelError, match="did not answer"):
        model.ask(Question((Message("user", "one two three " * CONTEXT),)))


@pytest.mark.llm
@pytest.mark.slow
@needs_model
def test_the_command_writes_a_strategy(tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    arguments = ["write", "gentle on rare classes", "--llm", "local", "--out", str(out), "--data", "demo"]
    result = CliRunner().invoke(build(), arguments)
    assert result.exit_code == 0, result.stderr
    assert load_strategy(out, registry()).choices and "cost: 0.0000 USD" in out.read_text()
