"""Asking models: litellm's client against a real server of this machine, retries, prices, keys, shares, transcripts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from augkit_llm import litellm_model
from augkit_llm.models import (
    MAX_REPLY,
    Message,
    Model,
    ModelError,
    Options,
    Question,
    most_tokens,
    open_model,
    parse_price,
    parse_shares,
    scrub,
)
from hypothesis import given
from hypothesis import strategies as st
from llm_server import Answer, Server, refused, said, serving

KEY = "sk-very-secret-0123456789"
SCHEMA = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
ASKED = Question((Message("system", "be brief"), Message("user", "hello", (b"\x89PNG",))), SCHEMA, "k", 50, 0.5, 7)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(litellm_model, "FIRST_WAIT", 0.01)
    with serving() as found:
        yield found


def opened(server: Server, name: str = "openai/mine", **options: object) -> Model:
    return open_model(name, Options(api_base=server.base, **options))  # type: ignore[arg-type]


def test_a_question_reaches_the_server_whole_and_its_reply_is_counted(server: Server) -> None:
    server.answers = [said('{"a": 1}', asked=1000, answered=200, reason="length")]
    reply = opened(server, usd_per_mtok=(2.0, 10.0), rendering="strict").ask(ASKED)
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens, reply.cut) == ('{"a": 1}', 1000, 200, True)
    assert reply.usd == pytest.approx(1000 * 2e-6 + 200 * 10e-6)
    (asked,) = server.asked
    assert (asked["model"], asked["max_tokens"], asked["temperature"], asked["seed"]) == ("mine", 50, 0.5, 7)
    form = asked["response_format"]
    assert form["type"] == "json_schema" and form["json_schema"]["strict"] and form["json_schema"]["schema"] == SCHEMA
    assert asked["messages"][1]["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")
    assert server.keys == [f"Bearer {KEY}"]


def test_a_model_that_is_not_known_to_follow_schemas_is_asked_for_json(server: Server) -> None:
    server.answers = [said("{}")]
    model = opened(server)
    assert model.rendering == "text"
    model.ask(ASKED)
    assert server.asked[0]["response_format"] == {"type": "json_object"}


def test_what_is_known_of_a_model_comes_from_the_local_map() -> None:
    model = open_model("openai/gpt-5-mini")
    assert model.rendering == "strict" and model.price == (0.25, 2.0)  # type: ignore[attr-defined]
    tokens, usd = model.estimate(ASKED)
    assert tokens == most_tokens(ASKED) and usd == pytest.approx(((tokens - 50) * 0.25 + 50 * 2) / 1e6)


def test_an_unknown_price_is_told_or_refused_and_can_be_given(server: Server) -> None:
    assert "--usd-per-mtok" in opened(server).remark  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match=r"no budget in USD can be kept; give it .* --usd-per-mtok IN,OUT$"):
        opened(server, priced=True)
    priced = opened(server, priced=True, usd_per_mtok=parse_price("1,2"))
    assert priced.remark == "" and priced.estimate(ASKED)[1] > 0  # type: ignore[attr-defined]
    for wrong in ("1", "1,2,3", "a,b", "-1,2", "1,inf"):
        with pytest.raises(ModelError, match="two prices in USD"):
            parse_price(wrong)


@pytest.mark.parametrize(
    "first", [refused(429, "slow down", retry_after="0.3"), refused(500, "oops"), Answer(b"<html>")]
)
def test_what_time_may_mend_is_asked_again(server: Server, first: Answer) -> None:
    server.answers = [first, said("{}")]
    start = time.monotonic()
    assert opened(server).ask(ASKED).text == "{}"
    assert len(server.asked) == 2
    if first.status == 429:
        assert time.monotonic() - start >= 0.3


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (refused(401, f"Incorrect API key provided: {KEY}."), "did not accept the key .* set OPENAI_API_KEY"),
        (refused(404, "The model mine does not exist"), "has no model openai/mine"),
        (refused(400, f"bad request with {KEY}"), "did not answer: bad request with"),
        (refused(429, "You exceeded your current quota", "insufficient_quota"), "did not answer"),
        (refused(429, "come back tomorrow", retry_after="86400"), "did not answer: come back tomorrow"),
    ],
)
def test_what_time_does_not_mend_is_asked_once_and_told_without_the_key(
    server: Server, answer: Answer, told: str
) -> None:
    server.answers = [answer]
    with pytest.raises(ModelError, match=told) as error:
        opened(server).ask(ASKED)
    assert len(server.asked) == 1
    assert KEY not in str(error.value) and "\n" not in str(error.value)
    assert error.value.__cause__ is None and error.value.__suppress_context__


def test_a_server_that_keeps_failing_is_given_up_after_the_retries(server: Server) -> None:
    server.answers = [refused(503, "overloaded") for _ in range(3)]
    with pytest.raises(ModelError, match="openai/mine did not answer after 3 tries: overloaded"):
        opened(server, retries=2).ask(ASKED)


def test_a_reply_that_does_not_come_is_waited_for_no_longer_than_the_limit(server: Server) -> None:
    server.answers = [Answer(b"{}", wait=3)]
    start = time.monotonic()
    with pytest.raises(ModelError, match=r"gave no reply within 0\.5 seconds"):
        opened(server, timeout=0.5, retries=0).ask(ASKED)
    assert time.monotonic() - start < 2.5


def test_replies_of_nothing_or_of_ten_megabytes_are_replies(server: Server) -> None:
    server.answers = [said(None), said("x" * 10_000_000)]
    model = opened(server)
    assert model.ask(ASKED).text == ""
    assert len(model.ask(ASKED).text) == MAX_REPLY


def test_a_server_of_ones_own_needs_no_key(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    server.answers = [said("{}")]
    assert opened(server).ask(ASKED).text == "{}"
    with pytest.raises(ModelError, match="did not accept the key for openai/gpt-5-mini: set OPENAI_API_KEY"):
        open_model("openai/gpt-5-mini").ask(ASKED)


def test_names_that_are_no_model() -> None:
    for name, told in (
        ("nonsense", "write PROVIDER/NAME"),
        ("none", "no model"),
        ("transcript:no.jsonl", "cannot read"),
    ):
        with pytest.raises(ModelError, match=told):
            open_model(name)


@given(st.dictionaries(st.sampled_from(["a", "b/c:free", "ollama/x:8b", "d-v1:0"]), st.integers(1, 9), min_size=1))
def test_shares_sum_to_one_and_keep_their_ratios(wanted: dict[str, int]) -> None:
    found = parse_shares([name if share == 1 else f"{name}={share}" for name, share in wanted.items()])
    assert sum(found.values()) == pytest.approx(1)
    assert found == pytest.approx({name: share / sum(wanted.values()) for name, share in wanted.items()})


@pytest.mark.parametrize("wrong", [["a=0"], ["a=-1"], ["a", "a=2"], [""], ["=2"], [], ["a=1.2.3"]])
def test_shares_that_mean_nothing_are_refused(wrong: list[str]) -> None:
    with pytest.raises(ModelError):
        parse_shares(wrong)


def test_a_picture_counts_as_the_dearest_provider_counts_it() -> None:
    """gpt-4o-mini: 2833 tokens and 5667 for each tile of 512 pixels, of which a contact sheet (558 x 1364) has six."""
    blind = Question((Message("user", "look"),))
    seen = Question((Message("user", "look", (b"png",)),))
    assert most_tokens(seen) - most_tokens(blind) >= 2833 + 6 * 5667


@given(st.text(min_size=6).filter(str.strip))
def test_a_key_of_the_environment_is_never_told(secret: str) -> None:
    assert secret not in scrub(f"it was {secret}.", [secret]) or secret in "it was [key]."


def test_a_transcript_answers_by_key_then_in_order_and_runs_out(tmp_path: Path) -> None:
    lines = [
        {"rendering": "strict"},
        {"key": "g0.s1.a0", "text": {"x": "\u2028"}, "usd": 0.5, "prompt_tokens": 3},
        {"key": "g0.s1.a0", "text": "second"},
        {"text": "any"},
        {"key": "bad", "error": "the server burns"},
    ]
    file = tmp_path / "t.jsonl"
    file.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    model = open_model(f"transcript:{file}")

    def ask(key: str) -> str:
        return model.ask(Question((), None, key)).text

    assert model.rendering == "strict"
    assert model.estimate(Question((), None, "g0.s1.a0"))[1] == 0.5
    assert json.loads(ask("g0.s1.a0")) == {"x": "\u2028"}
    assert ask("other") == "any" and ask("g0.s1.a0") == "second"
    for key, told in (("g0.s1.a0", "no further reply"), ("other", "no further reply"), ("bad", "the server burns")):
        with pytest.raises(ModelError, match=told):
            ask(key)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "no JSON"),
        ("[]", "an object"),
        ("{}", "text or error"),
        ('{"text": "b", "usd": "free"}', 'usd is a number from 0, not "free"'),
        ('{"text": "b", "usd": NaN}', "usd is a number from 0, not NaN"),
        ('{"text": "b", "prompt_tokens": null}', "prompt_tokens is a whole number from 0, not null"),
        ('{"text": "b", "completion_tokens": 1.5}', "completion_tokens is a whole number from 0, not 1.5"),
        ('{"text": "b", "seconds": -1}', "seconds is a number from 0, not -1"),
    ],
)
def test_a_transcript_that_cannot_be_read_is_told_with_its_line(tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "a"}\n' + line)
    with pytest.raises(ModelError, match=rf"t\.jsonl:2: .*{told}"):
        open_model(f"transcript:{tmp_path / 't.jsonl'}")
