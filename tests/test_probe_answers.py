"""Training answers counted by level, and exact resume in the middle of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from probe_parts import (
    CLASSES,
    COUNTING,
    CURRICULUM,
    MIXED,
    Oracle,
    images,
    is_right,
    load,
    read,
)
from scipy.stats import chisquare
from torch import Tensor, nn

from augkit import Policy
from augkit.errors import InputError
from augkit.learning.probe_pool import ProbePool


def train(policy: Policy, probability: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """An epoch of training images, whose answers a loop in Python counts too."""
    made, labels = images(60)
    correct, drawn = torch.zeros(CLASSES, 11), torch.zeros(CLASSES, 11)
    for part in torch.randperm(len(made), generator=torch.Generator().manual_seed(number)).split(32):
        results, targets = policy(made[part], labels[part], index=part)
        classes, numbers, level = read(results / 255)
        right = is_right(numbers, level, probability[classes, level])
        policy.observe(nn.functional.one_hot((targets + ~right) % CLASSES, CLASSES).float())
        for c, at, good in zip(classes.tolist(), level.tolist(), right.tolist(), strict=True):
            drawn[c, at] += 1
            correct[c, at] += good
    return correct, drawn


def test_training_answers_are_counted_by_level() -> None:
    policy = load(COUNTING)
    assert policy.needs == {"observe"} and policy.asked is None
    depth = [10] * CLASSES
    levels = torch.zeros(11)
    for epoch in range(8):
        correct, drawn = train(policy, MIXED, epoch)
        assert all(int(drawn[c, depth[c] + 1 :].sum()) == 0 for c in range(CLASSES)), "never beyond the class's own"
        policy.end_epoch()
        ended = policy.history[-1]
        assert torch.equal(ended["answers.correct"], correct) and torch.equal(ended["answers.drawn"], drawn)
        levels += drawn[0]
        for c in range(CLASSES):
            passed = all(correct[c, at] > 0.6 * drawn[c, at] for at in range(11) if drawn[c, at])
            depth[c] = min(max(depth[c] + (1 if passed else -1), 0), 10)
        assert policy.state["depth"].tolist() == depth
    share = torch.tensor([0.3 + 0.7 / 11] + [0.7 / 11] * 10)
    assert chisquare(levels.numpy(), (share * levels.sum()).numpy()).pvalue > 1e-3


def test_levels_of_images_that_a_strategy_passes_over_do_not_count(tmp_path: Any) -> None:
    import yaml

    (tmp_path / "inner.yaml").write_text(yaml.safe_dump(COUNTING))
    outer = {"augkit": 1, "name": "outer", "pipeline": [{"use": {"name": "inner.yaml", "p": 0.5}}]}
    (tmp_path / "outer.yaml").write_text(yaml.safe_dump(outer))
    policy = Policy.load(tmp_path / "outer.yaml", class_counts=[60] * CLASSES)
    made, labels = images(60)
    results, _ = policy(made, labels)
    assert policy.last_plan is not None
    level = policy.last_plan.levels["pipeline[0]/answers"]
    moved = read(results / 255)[2]
    assert torch.equal(moved, level.clamp(min=0)) and 80 < int((level < 0).sum()) < 160
    policy.observe(nn.functional.one_hot(labels, CLASSES).float())
    assert policy.statistics.sums["pipeline[0]/answers.drawn"].sum() == (level >= 0).sum()
    policy.enabled = False
    policy(made, labels)
    with pytest.raises(InputError, match=r"pass levels=plan\.levels"):
        policy.observe(torch.zeros(7, CLASSES), labels[:7])


def test_views_count_their_first_answers() -> None:
    policy = load({**COUNTING, "views": {"a": [], "b": ["hflip"]}})
    made, labels = images()
    results, targets = policy(made, labels)
    assert policy.last_plan is not None
    policy.observe(nn.functional.one_hot(targets, CLASSES).float())
    level = policy.last_plan.levels["answers"]
    assert torch.equal(read(results[: len(made)] / 255)[2], level)
    assert policy.statistics.sums["answers.correct"].sum(0).tolist() == torch.bincount(level, minlength=11).tolist()


def test_answers_are_judged_as_told() -> None:
    policy = load(COUNTING)
    policy.answer = lambda output, targets: targets == 1
    policy(*images())
    policy.observe(torch.zeros(80, CLASSES))
    assert policy.statistics.sums["answers.correct"].sum(1).tolist() == [0, 20, 0, 0]


@pytest.mark.parametrize("document", [CURRICULUM, COUNTING], ids=["asking", "counting"])
@pytest.mark.parametrize("when", ["between", "within", "begun"])
def test_a_resumed_run_goes_on_exactly(document: dict[str, Any], when: str) -> None:
    probability = torch.rand(CLASSES, 11, generator=torch.Generator().manual_seed(2)) * 0.5 + 0.4
    made, labels = images()

    def part(policy: Policy) -> Tensor:
        results, _ = policy(made, labels, index=torch.arange(len(made)))
        policy.observe(nn.functional.one_hot((labels + (labels + policy.step) % 3) % CLASSES, CLASSES).float())
        return results

    def fresh() -> Policy:
        policy = load(document)
        policy.attach_model(Oracle(probability), ProbePool(made, labels), answer=lambda o, t: (t + len(o)) % 5 > 0)
        return policy

    policy = fresh()
    for _ in range(3):
        part(policy)
        policy.end_epoch()
    if when != "between":
        policy.begin_epoch()
    if when == "within":
        part(policy)
    other = fresh()
    other.load_state_dict(policy.state_dict())
    for _ in range(3):
        assert torch.equal(part(policy), part(other))
        policy.end_epoch()
        other.end_epoch()
        assert policy.state["depth"].tolist() == other.state["depth"].tolist()
    for own, its in zip(policy.history, other.history, strict=True):
        assert own.keys() == its.keys() and all(
            torch.equal(torch.as_tensor(own[n]), torch.as_tensor(its[n])) for n in own
        )
