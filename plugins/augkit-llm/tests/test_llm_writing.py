"""Writing: valid replies, repairs with path and hint, all counted; hostile replies end in counted rejections."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from augkit_llm.files import yaml_text
from augkit_llm.limits import admit
from augkit_llm.models import ModelError, Question, Rendering, Reply
from augkit_llm.rendering import strict
from augkit_llm.writing import MAX_TOKENS, Parent, Request, Written, write
from hypothesis import given, settings
from hypothesis import strategies as st

from augkit.plugins import registry as installed
from augkit.strategy.document import load_strategy
from augkit.strategy.reading import read_text

GOOD = {"augkit": 1, "name": "good", "title": "Rotate a little", "pipeline": [{"rotate": {"p": 0.5, "degrees": 5}}]}
BAD = {"augkit": 1, "name": "bad", "pipeline": [{"rotat": {"p": 0.5}}, {"hflip": {"q": 1}}]}
SMALL = {
    **{"operators": ["hflip", "rotate"], "count": 1, "probability": 0.5, "strength": 0.5, "draw": "random"},
    **{"many": 1, "medium": 0.8, "few": 0.5, "over_time": "grows", "learn": "levels", "goal": 0.6, "mixing": "none"},
}


class Told:
    """A model that says what it was given to say, and keeps its questions; everything else runs for real."""

    name = "told"

    def __init__(self, texts: Sequence[str], rendering: Rendering = "text", cut: bool = False) -> None:
        self.texts, self.rendering, self.cut = list(texts), rendering, cut
        self.questions: list[Question] = []

    def estimate(self, question: Question) -> tuple[int, float]:
        return 1000, 0.5

    def ask(self, question: Question) -> Reply:
        self.questions.append(question)
        return Reply(self.texts.pop(0), self.name, 10, 5, 0.25, 1.0, self.cut)


def written(model: Told, **said: object) -> Written:
    repairs = said.pop("repairs", 2)
    request = Request(**{"wish": "gentle", "operator": "initial", "key": "g0.s0", **said})  # type: ignore[arg-type]
    return write(model, request, registry=installed(), repairs=repairs)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrap", ["{}", "Sure:\n```json\n{}\n```\nEnjoy!", '{{"strategy": {}}}'])
def test_a_valid_reply_is_a_document_at_once(wrap: str) -> None:
    model = Told([wrap.format(json.dumps(GOOD))])
    found = written(model)
    assert found.document == GOOD and found.idea == "Rotate a little"
    assert [attempt.error for attempt in found.attempts] == [None]
    assert (found.usd, found.tokens) == (0.25, 15)
    (question,) = model.questions
    assert question.key == "g0.s0.a0" and question.max_tokens == MAX_TOKENS["text"]


def test_the_strict_and_the_small_form_become_documents() -> None:
    registry = installed()
    reply = json.dumps(strict.from_document(GOOD, registry))
    model = Told([reply], "strict")
    assert load_strategy(written(model).document or {}, registry).hash == load_strategy(GOOD, registry).hash
    assert model.questions[0].schema == strict.schema(registry)
    found = written(Told([json.dumps(SMALL)], "small"))
    assert found.document is not None and found.document["palette"] == ["hflip", "rotate"]


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({**GOOD, "views": {"a": ["hflip"], "b": ["vflip"]}}, "a search does not train this strategy: it has views"),
        ({**GOOD, "pipeline": [{"albumentations:NoSuch": {}}]}, "of another library"),
        ({**GOOD, "pipeline": ["equalize", {"use": "cuda"}]}, "it has probes"),
    ],
)
def test_what_a_search_does_not_train_goes_back_like_other_faults(document: dict[str, object], told: str) -> None:
    model = Told([json.dumps(document), json.dumps(GOOD)])
    found = write(model, Request("", "initial", key="g0.s0"), registry=installed(), admit=admit)
    assert told in (found.attempts[0].error or "") and found.document == GOOD


def test_faults_go_back_with_path_and_hint_and_every_attempt_counts() -> None:
    model = Told([json.dumps(BAD), "I would rather not.", json.dumps(GOOD)])
    found = written(model)
    assert found.document == GOOD and found.usd == 0.75 and found.tokens == 45
    errors = [attempt.error or "" for attempt in found.attempts]
    assert 'pipeline[0].rotat: there is no operator or step "rotat" here. Did you mean "rotate"?' in errors[0]
    assert "pipeline[1].hflip.q" in errors[0] and "no JSON object" in errors[1] and errors[2] == ""
    first, second, third = model.questions
    assert [question.key for question in model.questions] == ["g0.s0.a0", "g0.s0.a1", "g0.s0.a2"]
    assert len({question.seed for question in model.questions}) == 3
    assert second.messages[:2] == first.messages and json.dumps(BAD) in second.messages[2].text
    assert all(line in second.messages[3].text for line in errors[0].splitlines())
    assert len(third.messages) == 4 and json.dumps(BAD) not in third.messages[2].text  # it does not grow


def test_after_the_repairs_there_is_no_document() -> None:
    model = Told([json.dumps(BAD)] * 9)
    found = written(model)
    assert found.document is None and len(found.attempts) == 3 and len(model.texts) == 6
    assert len(written(model, repairs=0).attempts) == 1


HOSTILE = {
    "ten megabytes": "x" * 10_000_000,
    "ten megabytes of braces": "{" * 10_000_000,
    "not a number": '{"augkit": 1, "name": "a", "pipeline": [{"rotate": {"p": NaN}}]}',
    "infinite": '{"augkit": 1, "name": "a", "pipeline": [{"rotate": {"p": 1e999}}]}',
    "a thousand operators": json.dumps({"augkit": 1, "name": "a", "pipeline": ["rotate"] * 1000}),
    "a tag": 'augkit: 1\nname: !!python/object/apply:os.system ["touch /tmp/owned"]\npipeline: [hflip]',
    "deep": '{"augkit": 1, "name": "a", "pipeline": ' + "[" * 5000 + "]" * 5000 + "}",
    "a path": '{"augkit": 1, "name": "a", "pipeline": [{"use": "../../etc/passwd.yaml"}]}',
    "code": '{"augkit": 1, "name": "a", "pipeline": [{"rotate": {"p": "__import__(\'os\').getpid()"}}]}',
    "another library": '{"augkit": 1, "name": "a", "pipeline": [{"rotate": {"p": "x.__class__"}}]}',
    "half of a character": '{"augkit": 1, "name": "a", "title": "\\ud800", "pipeline": ["hflip"]}',
    "nothing": "",
}


@pytest.mark.parametrize("form", ["text", "strict", "small"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_replies_are_rejected_and_counted(name: str, form: Rendering) -> None:
    found = written(Told([HOSTILE[name]], form), repairs=0)
    (attempt,) = found.attempts
    assert found.document is None and attempt.reply is not None and attempt.error
    assert len(attempt.error) < 20_000
    assert "Traceback" not in attempt.error


KEYS = st.sampled_from(["augkit", "name", "pipeline", "state", "update", "palette", "rotate", "pick", "p"])
LEAVES = st.none() | st.booleans() | st.floats() | st.text()
ANYTHING = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner))


@settings(max_examples=60, deadline=None)
@given(ANYTHING)
def test_whatever_a_model_says_ends_in_a_document_or_in_an_error(reply: object) -> None:
    found = written(Told([json.dumps(reply)]), repairs=0)
    assert (found.document is None) == (found.attempts[0].error is not None)


def test_a_signal_that_is_not_allowed_is_a_fault() -> None:
    reads = {
        **GOOD,
        "state": {"level": {"axes": ["classes"]}},
        "update": [{"at": "epoch_end", "set": {"level": "val_correct / val_seen"}}],
    }
    assert written(Told([json.dumps(reads)])).document == reads
    found = written(Told([json.dumps(reads)]), allowed=("epoch", "correct", "seen"), repairs=0)
    assert found.document is None
    assert (found.attempts[0].error or "").startswith("val_correct may not be read here. Valid: epoch, correct, seen.")
    assert written(Told([json.dumps(GOOD)]), allowed=("hflip",), repairs=0).document is None


def test_a_reply_that_was_cut_off_is_told_to_be_shorter() -> None:
    found = written(Told(['{"augkit": 1, "name": "a", "pipe'], cut=True), repairs=0)
    assert (found.attempts[0].error or "").endswith("it was cut off after 5 tokens, so be shorter")


def test_a_model_that_does_not_answer_is_an_error_of_the_caller() -> None:
    def ask(question: Question) -> Reply:
        raise ModelError("nobody there")

    with pytest.raises(ModelError, match="nobody there"):
        write(Told([]), Request("", "initial"), registry=installed(), ask=ask)


def test_parents_that_a_form_leaves_out_are_shown_as_they_are() -> None:
    views = {"augkit": 1, "name": "v", "pipeline": [], "views": {"a": ["hflip"], "b": []}}
    model = Told([json.dumps(strict.from_document(GOOD))], "strict")
    found = written(model, operator="m1", parents=(Parent(views, 0.5, 0.01, {}, {}),))
    assert found.document is not None and '"views": {"a": ["hflip"]' in model.questions[0].messages[1].text


ODD = ("no", "1e-1", "010", ".inf", "null", "a: b", "# x", "\u2028", "'\"", "~")
WORDS = st.text(max_size=40) | st.sampled_from(ODD)


@given(WORDS, WORDS, st.lists(WORDS, max_size=3))
def test_a_file_says_what_the_document_said(title: str, source: str, header: list[str]) -> None:
    document = {"augkit": 1, "name": "a", "title": title, "source": source, "pipeline": [{"rotate": {"p": "1e-1"}}]}
    text = yaml_text(document, header)
    assert text.splitlines()[0].startswith("#") if header else text.startswith("augkit: 1")
    assert read_text(text).data == document
