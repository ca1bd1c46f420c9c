"""Twins: valid documents that act alike on all classes, and as the original where that did already."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from augkit_llm.rendering import small
from augkit_llm.trace import Stage
from augkit_llm.twin import TwinError, acts_alike, agnostic_twin

from augkit import Policy
from augkit.plugins import registry

LEARNING: dict[str, Any] = {
    "augkit": 1,
    "name": "learning",
    "palette": "randaugment14",
    "state": {
        "weight": {"axes": ["classes", "ops"], "init": 1, "clamp": [1, None]},
        "chosen": {"axes": ["classes", "ops"], "init": "onehot(categorical(weight, over=ops), ops)"},
        "level": {"axes": ["classes"], "init": "class_rank / max(class_rank, over=classes)", "clamp": [0, 1]},
        "before": {"axes": ["classes"], "init": 0},
    },
    "pipeline": [
        {"pick": {"p": 0.9, "count": 1, "weights": "chosen[y]", "strength": "level[y]"}},
        {"cutout": {"p": "min(1, 20 / class_count[y])"}},
    ],
    "update": [
        {
            "at": "epoch_end",
            "let": {"better": "max(1, weight + chosen * sign(correct - before))"},
            "set": {
                "weight": "better",
                "chosen": "onehot(categorical(better, over=ops), ops)",
                "level": "clip(level + 0.3 * sign(correct - before), 0, 1)",
                "before": "correct",
            },
        }
    ],
}


def used(document: dict[str, Any], seed: int) -> torch.Tensor:
    """[classes, operators] how often each was met in three epochs of answers that depend on the class."""
    policy = Policy.load(document, class_counts=[400, 100, 30, 10], seed=seed)
    targets = torch.arange(4).repeat_interleave(500)
    images = torch.zeros(len(targets), 3, 4, 4, dtype=torch.uint8)
    for _ in range(3):
        policy.plan(targets, images=images)
        policy.observe(torch.nn.functional.one_hot(targets * (targets < 2), 4).float(), targets=targets)
        policy.end_epoch()
    return torch.stack([torch.as_tensor(epoch["used"]) for epoch in policy.history]).sum(0).double()


def test_a_twin_treats_classes_alike_and_the_original_does_not() -> None:
    twin = agnostic_twin(LEARNING)
    assert twin is not None and twin["name"] == "learning-agnostic" and LEARNING["state"]["level"]["axes"]
    assert all("classes" not in spec["axes"] for spec in twin["state"].values())
    for document, alike in ((LEARNING, False), (twin, True)):
        share = used(document, seed=3) / 1500
        apart = (share - share.mean(0)).abs().max()
        assert bool(apart < 0.08) is alike, apart  # 1,500 images of each class: three standard errors are 0.04


def test_what_makes_no_difference_has_no_other_twin() -> None:
    assert (
        agnostic_twin({"augkit": 1, "name": "plain", "palette": "uniform", "pipeline": [{"pick": {"count": 1}}]})
        is None
    )


def short(**shares: float) -> dict[str, Any]:
    """What a weak model may have written."""
    plain = {"count": 1, "probability": 0.5, "strength": 0.5, "draw": "random", "over_time": "grows", "goal": 0.6}
    rest = {"operators": ["hflip", "rotate"], "learn": "nothing", "mixing": "cutmix", **plain}
    return small.to_document({**rest, **dict.fromkeys(("many", "medium", "few"), 0.8), **shares})


def test_values_by_class_that_are_the_same_for_all_make_no_difference() -> None:
    known, stage = registry(), Stage([200, 60, 20, 5], 16, 6)
    for document, alike in ((short(), True), (short(few=0.2), False), (LEARNING, False)):
        twin = agnostic_twin(document)
        assert twin is not None and acts_alike(document, twin, known, stage) is alike


@pytest.mark.parametrize(
    ("expression", "said"),
    [("where(y == 3, 1, 0)", "the class itself"), ("rank(class_count, over=classes)[y] / 4", "with each other: rank")],
)
def test_what_looks_at_the_class_itself_has_none_and_says_why(expression: str, said: str) -> None:
    document = {"augkit": 1, "name": "odd", "palette": "uniform", "pipeline": [{"pick": {"strength": expression}}]}
    with pytest.raises(TwinError, match=said):
        agnostic_twin(document)
    with pytest.raises(TwinError, match="another strategy"):
        agnostic_twin({"augkit": 1, "name": "user", "pipeline": [{"use": "trivialaugment"}]})
