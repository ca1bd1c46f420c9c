"""Mappings dug out of replies: with prose and fences around them, broken, or made to harm."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from augkit_llm.rendering import RenderingError
from augkit_llm.rendering.dig import MAX_CHARACTERS, dig
from hypothesis import given, settings
from hypothesis import strategies as st

DOCUMENT: dict[str, Any] = {"augkit": 1, "name": "x", "pipeline": ["hflip", {"rotate": {"p": 0.5, "degrees": "-3"}}]}
YAML = "augkit: 1\nname: x  # a name\npipeline:\n- hflip\n- rotate: {p: 0.5, degrees: '-3'}\n"
PRETTY = json.dumps(DOCUMENT, indent=2)


@pytest.mark.parametrize(
    "reply",
    [
        PRETTY,
        json.dumps(DOCUMENT),
        YAML,
        f"Sure! Here it is.\n\n```json\n{PRETTY}\n```\nIt turns {{some}} images: few.",
        f"```yaml\n{YAML}```",
        f"~~~\n{YAML}",
        f"Idea: turn more.\n\n{PRETTY}\n\nNote: {{p: 0.5}} is the default.",
        f"The strategy is {json.dumps(DOCUMENT)}, as was asked.",
        f"Here: \n\n{YAML}\nThat is all.",
        f"<think>First {{\"name\": \"draft\"}}, then more.</think>\n{YAML}",
        json.dumps({"strategy": DOCUMENT}),
        PRETTY.replace("\n}", ",\n}"),
        PRETTY.replace('"hflip"', "hflip"),
        PRETTY.replace("  ", "\t"),
        f"First try:\n```json\n{PRETTY[:40]}\n```\nBetter:\n```json\n{PRETTY}\n```\n",
    ],
)  # fmt: skip
def test_the_document_is_found(reply: str) -> None:
    assert dig(reply) == DOCUMENT


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ("", "there is no JSON object and no YAML mapping"),
        ("I cannot do that.", "there is no JSON object and no YAML mapping"),
        ("[1, 2]", "there is no JSON object and no YAML mapping"),
        ("{}", "not an object with named fields"),
        (PRETTY[:-20], "it ends before it is complete"),
        (PRETTY.replace(":", "=", 1), "expecting ':' delimiter in line 2"),
        ('{"a": NaN, "b": 1}', "NaN is not a number"),
        ('{"a": -Infinity, "b": 1}', "-Infinity is not a number"),
        ('{"a": 1e999, "b": 1}', "1e999 is not a number"),
        ("a: .nan\nb: 1", "not a number"),
        ('{"a": ' + "9" * 5000 + ', "b": 1}', "not a number"),
        ('{"a": 1, "a": 2}', "'a' twice"),
        ("a: 1\nb: 2\na: 2", "given before"),
        ("a: !!python/object/apply:os.system ['true']\nb: 1", "tags are not allowed"),
        ("a: &x [1]\nb: [*x, *x]", "anchors are not allowed"),
        ('{"a": ' * 500 + "1" + "}" * 500, "deep"),
        ('{"a":' * 30_000, "deep"),
        ("a: " + "[" * 3000, "deep"),
        (json.dumps({"a": ["a"] * 30_000}), "parts"),
        ("x" * 10_000_000, "10,000,000 characters"),
        ('{"a": "\\ud800", "b": 1}', "half of a character"),
    ],
    ids=range(21),
)
def test_what_is_no_document_is_refused_in_a_sentence(reply: str, told: str) -> None:
    begun = time.process_time()
    with pytest.raises(RenderingError, match=told) as caught:
        dig(reply)
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)
    assert time.process_time() - begun < 2


def test_no_step_of_a_broken_document_is_taken_for_a_document() -> None:
    broken = YAML.replace("name: x", "name: x: y")
    with pytest.raises(RenderingError, match="line 2 of the mapping"):
        dig(broken)


BOMBS = {
    "braces": "{",
    "quotes": '"',
    "both": '{"',
    "pairs": "{}",
    "fences": "```\n",
    "keys": "a:\n",
    "flow": "{a: ",
    "items": "- ",
    "anchors": "&a ",
    "aliases": "*a ",
    "questions": "? ",
    "escapes": '"\\',
    "comments": "a: 1\n#\n",
    "pipes": "a: |\n x\n",
    "separators": "a: \u2028",
    "brackets": "a: [",
}


@pytest.mark.parametrize("bomb", sorted(BOMBS))
@pytest.mark.parametrize("before", ["", "a: 1\n", '{"a": '])
def test_a_long_reply_of_one_thing_takes_no_time(bomb: str, before: str) -> None:
    reply = before + BOMBS[bomb] * ((MAX_CHARACTERS - len(before)) // len(BOMBS[bomb]))
    begun = time.process_time()
    try:
        dig(reply)
    except RenderingError as error:
        assert len(str(error)) < 400
    assert time.process_time() - begun < 2


PIECES = st.sampled_from([*BOMBS.values(), PRETTY, YAML, *"}],: \n'a1", "NaN", "!!x ", "\x00", "\ud800"])


@given(st.lists(PIECES | st.text(max_size=5), max_size=40).map("".join))
@settings(max_examples=200, deadline=None)
def test_whatever_comes_in_a_mapping_comes_out_or_a_sentence(reply: str) -> None:
    try:
        found = dig(reply)
    except RenderingError as error:
        assert str(error)
    else:
        assert isinstance(found, dict) and found
        json.dumps(found, allow_nan=False, ensure_ascii=False).encode("utf-8")
