"""What is found out about a strategy before its training is paid for."""

from __future__ import annotations

import copy
import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from augkit_llm.limits import misfit
from augkit_llm.propose import random_document
from augkit_llm.screen import Screened, screen
from augkit_llm.trace import Stage

from augkit.lab.recipe import load_recipe
from augkit.plugins import registry
from augkit.strategy.document import load_strategy

REGISTRY = registry()
COUNTS = [200, 120, 70, 40, 25, 14, 8, 5]
EPOCHS = 12


def look(document: Any, **more: Any) -> Screened:
    if isinstance(document, str):
        document = load_strategy(document, REGISTRY).document
    return screen(document, REGISTRY, COUNTS, 24, **{"epochs": EPOCHS, **more})


def picks(**pick: Any) -> dict[str, Any]:
    palette = ["rotate", "equalize", "solarize", "posterize"]
    return {"augkit": 1, "name": "x", "palette": palette, "pipeline": [{"pick": pick}]}


LEARNING: dict[str, Any] = {
    **picks(p=0.5, strength="level[y]"),
    "state": {"level": {"axes": ["classes"], "init": 0.2, "clamp": [0, 1]}},
    "update": [{"at": "epoch_end", "set": {"level": "where(correct > 0.6 * seen, level + 0.1, level - 0.1)"}}],
}


def renamed(document: dict[str, Any]) -> dict[str, Any]:
    """The same in other words: another name of the state, a rule that never runs, a param, another spelling."""
    made = copy.deepcopy(document)
    made["params"] = {"half": 0.5}
    made["state"] = {"depth": made["state"]["level"], "unread": {"axes": [], "init": 3}}
    made["pipeline"][0]["pick"] |= {"p": "half * 1", "strength": "0 + depth[y]"}
    change = "depth + where(correct / max(1, seen) > 0.6, 1, -1) * 0.1"
    made["update"] = [
        {"at": "epoch_end", "set": {"depth": change}},
        {"at": "epoch_end", "when": "epoch > 1000", "set": {"depth": "1"}},
    ]
    return made


@pytest.mark.parametrize("name", ["doda", "cutmix"])
def test_a_good_strategy_has_no_problem_and_the_same_signature_each_time(name: str) -> None:
    first, second = look(name), look(name)
    assert first.problem is None and first.signature and first.hash == load_strategy(name, REGISTRY).hash
    for one in (first, second):
        del one.facts["memory_mb"]
    assert first.facts == second.facts and first.signature == second.signature


def test_strategies_that_act_alike_have_one_signature() -> None:
    first, second = look(LEARNING), look(renamed(LEARNING))
    assert first.hash != second.hash and first.signature == second.signature
    assert look(renamed(LEARNING), known={first.signature}).problem == "it acts like a strategy that was tried before"


@pytest.mark.slow
def test_strategies_that_act_otherwise_have_different_signatures() -> None:
    others = [
        LEARNING,
        picks(p=0.5, strength=0.2),
        picks(p=0.5, strength=0.9),
        picks(p=0.9, strength=0.2),
        picks(p="0.2 + 0.6 * (class_rank[y] > 3)", strength=0.2),
        {**picks(p=0.5, strength=0.2), "palette": ["rotate", "equalize", "invert", "posterize"]},
        {**LEARNING, "update": [{"at": "epoch_end", "set": {"level": "1 - correct / max(1, seen)"}}]},
    ]
    signatures = [look(document).signature for document in others]
    assert len(set(signatures)) == len(others)


def test_a_known_strategy_is_not_played_again() -> None:
    first = look(picks())
    again = look({**picks(), "name": "other", "title": "In other words"}, known={first.hash})
    assert again.hash == first.hash and again.signature == "" and "tried before" in str(again.problem)


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("none", "it changes 0.0 % of the images"),
        (picks(strength="uniform()", p="where(epoch > 1000, 1, 0)"), "it changes 0.0 % of the images"),
        (picks(strength="3 * class_rank[y] - 100 * (class_rank[y] > 0)"), "its strengths are cut to 0 or 1"),
        ({**picks(), "pipeline": [{"pick": {"count": 30, "replace": True}}]}, "image 30 operators in the mean, and 15"),
        ({**picks(), "pipeline": [{"pick": {"count": 60, "replace": True}}]}, "an image 60 operators in the mean"),
        (
            {
                **LEARNING,
                "state": {"level": {"axes": ["classes"], "init": 0.5}},
                "update": [{"at": "epoch_end", "set": {"level": "exp(200 * level)"}}],
            },
            "it cannot be run: .*not finite",
        ),
        ("cuda", "has probes"),
        (picks(strength="val_correct[y] / 100"), "reads val_correct"),
        (picks(strength="sneaky"), r'^pipeline\[0\].pick.strength: there is no name "sneaky"'),
        ({"augkit": 1}, r"\(1 more\)$"),
    ],
)
def test_what_is_not_worth_training_is_told_in_a_sentence(document: Any, told: str) -> None:
    found = look(document)
    assert found.problem is not None and "\n" not in found.problem
    assert re.search(told, found.problem)


def test_facts_tell_groups_apart() -> None:
    found = look(picks(p="class_rank[y] > 4", strength=1)).facts
    assert found["images_changed"]["many"] == 0 and found["images_changed"]["few"] > 0.7
    assert set(found["operators"]) == {"rotate", "equalize", "solarize", "posterize"}
    assert found["strength"]["few"] == 1 and found["own_label"] == {"many": 1, "medium": 1, "few": 1}
    each = [sum(groups.values()) / 3 for groups in found["operators"].values()]
    assert found["operators_an_image"] == pytest.approx(sum(each), abs=1e-3)
    assert look("mixup").facts["own_label"]["many"] < 0.9


def test_the_script_rises_and_falls_and_knows_rare_classes_later() -> None:
    stage = Stage(COUNTS, 24, EPOCHS)
    answers = [stage.answers(epoch) for epoch in range(EPOCHS)]
    for number in range(len(COUNTS)):
        course = [float(one[number]) for one in answers]
        assert min(course) >= 0 and max(course) <= 1 and course[-1] > course[0]
        assert any(after < before for before, after in pairwise(course))
    assert float(answers[EPOCHS // 3][0]) > float(answers[EPOCHS // 3][-1])


@pytest.mark.parametrize(("counts", "size"), [([5], 300), ([3, 3], 8), ([9, 1, 4], 28), (list(range(1, 200)), 32)])
def test_any_data_set_will_do(counts: list[int], size: int) -> None:
    found = screen(picks(count=2, strength="0.1 + class_rank[y] / 300"), REGISTRY, counts, size, epochs=3)
    assert found.problem is None and set(found.facts["strength"]) <= {"many", "medium", "few"}


@pytest.mark.slow
def test_most_random_documents_are_worth_training() -> None:
    found = [look(random_document(np.random.default_rng(seed), REGISTRY)) for seed in range(6)]
    assert sum(one.problem is None for one in found) >= 4


def test_a_strategy_that_the_recipe_cannot_train_is_told_before_it_is() -> None:
    recipe = load_recipe("demo", REGISTRY)
    plain = load_strategy(picks(p=0.5, strength=0.2), REGISTRY).document
    told = misfit({**plain, "image": {"fill": "mean"}}, recipe, REGISTRY)
    assert told is not None and "random_crop" in told and "base.before[0]" in told
    assert misfit(plain, recipe, REGISTRY) is None
    loose = load_recipe("demo", REGISTRY, ["base.before=[]"])
    assert misfit({**plain, "image": {"fill": "mean"}}, loose, REGISTRY) is None
