"""Probes in documents: what they may cost, what is refused and where, identity."""

from __future__ import annotations

from typing import Any

import pytest
from probe_parts import (
    CURRICULUM,
    SHIFTS,
    changed,
    load,
)

from augkit import Policy
from augkit.errors import DocumentError


def test_the_largest_cost_is_known_and_capped() -> None:
    load(CURRICULUM, class_counts=[1] * 100)  # 66,000
    with pytest.raises(DocumentError, match=r"ask for 132,000 images of 200 classes in an epoch, .*, 100,000;"):
        load(CURRICULUM, class_counts=[1] * 200)
    load({**CURRICULUM, "max_probe_images": 132_000}, class_counts=[1] * 200)
    load(
        {**CURRICULUM, "params": {**CURRICULUM["params"], "most": 2}, "max_probe_images": "66000 * most"},
        class_counts=[1] * 200,
    )
    load(CURRICULUM, class_counts=[1] * 200, trials=7)
    with pytest.raises(
        DocumentError, match="ask for 660 images of one class in an epoch, more than max_probe_images, 600"
    ):
        load({**CURRICULUM, "max_probe_images": 600})
    relative = changed(CURRICULUM, samples="class_count * (level + 1)")
    load(relative, class_counts=[5, 9])
    with pytest.raises(DocumentError, match="ask for 132,000,000 images of 2 classes"):
        load(relative, class_counts=[5, 1_000_000])
    with pytest.raises(DocumentError, match="nothing bounds how many images the probes ask for"):
        load(changed(CURRICULUM, samples="1 / (class_rank - 2)"))


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"upto": None}, "probes.answers.upto: "),
    ({"upto": "epoch"}, "`epoch` is 0..inf, at most 63 is possible; bound it"),
    ({"upto": "depth + uniform()"}, "`uniform` is random, and nothing random is allowed here"),
    ({"upto": "answers.drawn"}, "`answers.drawn` cannot be used here: it is read by update rules"),
    ({"samples": "10 * y"}, "`y` cannot be used here"),
    ({"samples": "level[y]"}, "cannot be used here"),
    ({"samples": "sum(level, over=levels)"}, "the axis levels cannot be used"),
    ({"pick": {"count": "level + 60", "replace": True}}, "can be 70, at most 64 operators are drawn"),
    ({"steps": ["hflip"]}, "give one of pick and steps"),
    ({"level": 1}, "a probe has upto and samples with pick"),
    ({"smaples": 1}, 'there is no key "smaples" here. Did you mean "samples"?'),
    ({"pick": {"strength": "level.correct"}}, 'there is no name "level.correct"'),
]


@pytest.mark.parametrize(("parts", "message"), FAULTS, ids=[str(parts) for parts, _ in FAULTS])
def test_a_faulty_probe_is_told(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(DocumentError) as caught:
        load(changed(CURRICULUM, **parts))
    assert any(message in str(problem) for problem in caught.value.problems), caught.value.problems


RULES: list[tuple[str, str]] = [
    ("answers.correct", "the value has the axis levels"),
    ("sum(answers.level, over=levels)", "it belongs to an image, and a rule is about none"),
    ("argmax(answers.correct, over=levels)", "`argmax` does not work along levels of a value over levels"),
    ("rank(answers.correct, over=classes) * 0", "`rank` does not work along classes"),
    ("sum(uniform(), over=levels)", "has a probe's results in it, and this has none"),
    ("answers.right", "there are no attributes in an expression"),
    ("sum(answers.correct, over=levels).correct", "there are no attributes in an expression"),
    ("answer.correct", 'there is no name "answer.correct". Did you mean "answers.correct"?'),
    ("all(level > 0, over=levels)", 'there is no name "level"'),
]


@pytest.mark.parametrize(("source", "message"), RULES, ids=[source for source, _ in RULES])
def test_a_faulty_rule_is_told(source: str, message: str) -> None:
    with pytest.raises(DocumentError) as caught:
        load({**CURRICULUM, "update": [{"at": "epoch_start", "set": {"depth": source}}]})
    assert message in str(caught.value)


def test_where_probes_can_be() -> None:
    def refused(document: dict[str, Any], message: str) -> None:
        with pytest.raises(DocumentError, match=message):
            load(document)

    refused({**CURRICULUM, "pipeline": [{"pick": {"count": "answers.level"}}]}, "this probe asks the model about other")
    refused({**CURRICULUM, "probes": {"depth": CURRICULUM["probes"]["answers"]}}, "names something else")
    refused({**CURRICULUM, "params": {**CURRICULUM["params"], "level": 1}}, '"level" is reserved')
    refused(changed(SHIFTS, steps=[{"batch": ["mixup"]}]), "a probe treats single images")
    refused({**CURRICULUM, "max_probe_images": 1.5}, "expected a whole number from 0")
    Policy.load({"augkit": 1, "name": "free", "params": {"level": 1}, "pipeline": [{"hflip": {"p": "level"}}]})


def test_identity_and_words() -> None:
    one = load(CURRICULUM)
    assert one.strategy.hash == load({**CURRICULUM, "max_probe_images": 70_000}).strategy.hash
    assert (
        one.strategy.hash
        == load(changed(CURRICULUM, samples="trials*(1+level)".replace("1+level", "level+1"))).strategy.hash
    )
    others = [
        changed(CURRICULUM, samples=10),
        changed(CURRICULUM, pick={"count": "level"}),
        {**CURRICULUM, "probes": {}, "update": []},
    ]
    assert len({one.strategy.hash, *(load(other).strategy.hash for other in others)}) == 4
    assert one.strategy.document["probes"] == CURRICULUM["probes"]
