"""Documents that do something else as the epochs go by: what happens when."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from augkit import Policy
from augkit.engine.plan import Plan

LABELS = torch.arange(400) % 4


def plans(name: str, epochs: int, **params: float) -> list[Plan]:
    """One batch of each epoch."""
    policy, found = Policy.load(name, class_counts=[100] * 4, epochs=epochs, **params), []
    for _ in range(epochs):
        found.append(policy.plan(LABELS, index=torch.arange(400)))
        policy.end_epoch()
    return found


def met(plan: Plan) -> Tensor:
    """[B] bool: which images an operator is drawn for."""
    return (plan.choice >= 0).any(1)


@pytest.mark.parametrize(("real", "augmented"), [(1, 1), (2, 1), (1, 3), (0, 2), (2, 0), (0, 0), (-1, 2), (3, -2)])
def test_cyclic_ordering_augments_the_last_epochs_of_each_cycle_and_all_images_of_them(
    real: int, augmented: int
) -> None:
    found = [met(plan).float().mean().item() for plan in plans("cyclic_ordering", 8, real=real, augmented=augmented)]
    real, augmented = max(0, real), max(0, augmented)
    cycle = [0.0] * real + [1.0] * augmented or [1.0]
    assert found == [cycle[epoch % len(cycle)] for epoch in range(8)]


def test_a_cycle_of_no_epochs_divides_by_nothing() -> None:
    policy = Policy.load("cyclic_ordering", class_counts=[100] * 4, epochs=2, real=0, augmented=0)
    policy.plan(LABELS, index=torch.arange(400))
    assert not policy.memory.complaint(0)


def test_augmented_epochs_are_those_of_trivialaugment() -> None:
    inside, alone = Policy.load("cyclic_ordering"), Policy.load("trivialaugment")
    assert inside.strategy.image == alone.strategy.image
    names = [[choice.operator.name for choice in policy.program.choices] for policy in (inside, alone)]
    assert names[0] == names[1]


def ramp(progress: float, start: float, stop: float, smooth: bool) -> float:
    progress = min(1.0, progress)
    share = (1 - math.cos(math.pi * progress)) / 2 if smooth else progress
    return start + (stop - start) * share


CASES = [(0, 1, 1.0, 0), (0, 1, 1.0, 1), (1, 0.2, 0.5, 0), (0.3, 0.9, 0.6, 1)]


@pytest.mark.parametrize(("start", "stop", "over", "smooth"), CASES)
def test_trivialaugment_s_strengths_reach_as_far_as_the_ramp(
    start: float, stop: float, over: float, smooth: int
) -> None:
    told = {"start": start, "stop": stop, "over": over, "smooth": smooth}
    for epoch, plan in enumerate(plans("scheduled_trivialaugment", 9, **told)):
        assert met(plan).all()
        top = ramp(epoch / (over * 8), start, stop, bool(smooth))
        strength = plan.strength[~plan.strength.isnan()]
        assert float(strength.max()) == pytest.approx(top, abs=1e-5)  # 31 strengths, and hundreds of images
        assert float(strength.mean()) == pytest.approx(top / 2, abs=0.06)


@pytest.mark.parametrize(("start", "stop", "over", "smooth"), CASES)
def test_randaugment_s_magnitude_is_the_ramp(start: float, stop: float, over: float, smooth: int) -> None:
    told = {"start": 10 * start, "stop": 10 * stop, "over": over, "smooth": smooth}
    for epoch, plan in enumerate(plans("scheduled_randaugment", 9, **told)):
        assert (plan.choice >= 0).sum(1).eq(2).all()
        strength = plan.strength[~plan.strength.isnan()]
        expected = ramp(epoch / (over * 8), start, stop, bool(smooth))
        assert torch.allclose(strength, torch.full_like(strength, expected), atol=1e-5)


@pytest.mark.parametrize("name", ["scheduled_trivialaugment", "scheduled_randaugment"])
def test_a_single_epoch_is_the_first_of_a_ramp(name: str) -> None:
    (plan,) = plans(name, 1)
    assert float(plan.strength.nan_to_num(0).max()) == 0
    assert Policy.load(name, epochs=1).warnings == []
