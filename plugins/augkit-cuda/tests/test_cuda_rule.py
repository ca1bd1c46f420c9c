"""The curriculum as published, step by step: a scripted model against the rule written out in plain Python."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.stats import binomtest, chisquare
from torch import Tensor, nn

import augkit.learning.probes as probes
from augkit import Policy, answers
from augkit.engine.plan import Plan
from augkit.errors import DocumentError, StateError
from augkit.learning.probe_pool import ProbePool
from augkit.plugins import load_registry

Script = Callable[[int, int, int], float]
"""(epoch, class, level) to the probability of a right answer."""
CLASSES, DEEPEST = 5, 10
DOCUMENTS = ("cuda", "cuda_monotone", "cuda_agnostic", "cuda_online")


class Silent(nn.Module):
    """Answers nothing of its own: the script says what is right."""

    def forward(self, images: Tensor) -> Tensor:
        return images.new_zeros(len(images), CLASSES)


class Scripted:
    """Says which answers are right, knows what was asked from the plans alone, and counts by class and level."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, script: Script) -> None:
        self.script, self.rng, self.epoch = script, random.Random(1), 0
        self.plans: list[Plan] = []
        self.rows: list[int] = []
        self.begin()
        original, take = probes.draw, ProbePool.take

        def noted(*args: Any, **options: Any) -> Plan:
            self.told = 0
            self.plans.append(original(*args, **options))
            return self.plans[-1]

        def taken(pool: ProbePool, classes: Tensor, u: Tensor) -> Tensor:
            rows = take(pool, classes, u)
            self.rows += rows.tolist()
            return rows

        monkeypatch.setattr(probes, "draw", noted)
        monkeypatch.setattr(ProbePool, "take", taken)

    def begin(self) -> None:
        self.right: dict[tuple[int, int], int] = {}
        self.asked: dict[tuple[int, int], int] = {}
        self.plans.clear()
        self.rows.clear()

    def __call__(self, output: Tensor, targets: Tensor) -> Tensor:
        levels = operators(self.plans[-1])[self.told : self.told + len(targets)]  # a plan may be several batches
        self.told += len(targets)
        assert len(levels) == len(targets) == len(output)
        said = [self.one(c, level) for c, level in zip(targets.tolist(), levels.tolist(), strict=True)]
        return torch.tensor(said)

    def one(self, c: int, level: int) -> bool:
        right = self.rng.random() < self.script(self.epoch, c, level)
        self.asked[c, level] = self.asked.get((c, level), 0) + 1
        self.right[c, level] = self.right.get((c, level), 0) + right
        return right

    def next(self, depth: list[int], gamma: float = 0.6) -> list[int]:
        """Passed at every level up to its own: one up. Otherwise one down."""
        own = range(CLASSES)
        return [moved(depth[c], [self.passed((c,), level, gamma) for level in range(depth[c] + 1)]) for c in own]

    def passed(self, classes: tuple[int, ...], level: int, gamma: float) -> bool:
        asked = sum(self.asked.get((c, level), 0) for c in classes)
        return asked == 0 or sum(self.right.get((c, level), 0) for c in classes) / asked > gamma


@pytest.fixture
def no_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The script reads no pixels: images reach the model as they are, where rules alone are watched."""
    monkeypatch.setattr(answers, "execute", lambda images, plan, executor, **options: images)


def moved(depth: int, passed: list[bool]) -> int:
    return min(DEEPEST, depth + 1) if all(passed) else max(0, depth - 1)


def as_strong_as(plan: Plan, levels: Tensor) -> bool:
    """Whether every operator that has a strength has the level's."""
    on = (plan.choice >= 0) & ~plan.strength.isnan()
    return bool(on.any()) and torch.allclose(plan.strength[on], levels[:, None].expand_as(plan.choice)[on])


def operators(plan: Plan) -> Tensor:
    """[B] how many operators each image meets: its level."""
    return (plan.choice >= 0).sum(1)


def pool(each: int = 6) -> ProbePool:
    labels = torch.arange(CLASSES).repeat_interleave(each)
    generator = torch.Generator().manual_seed(0)
    return ProbePool(torch.randint(0, 256, (len(labels), 3, 8, 8), dtype=torch.uint8, generator=generator), labels)


def policy_of(name: str, model: Scripted, **options: Any) -> Policy:
    policy = Policy.load(name, class_counts=[6] * CLASSES, seed=2, **options)
    policy.attach_model(Silent(), pool(), answer=model, batch=1000)
    return policy


def depth(policy: Policy) -> list[int]:
    return [int(level) for level in policy.state["depth"].flatten().tolist()]


def test_augkit_finds_the_documents() -> None:
    found = load_registry()
    assert found.broken == ()
    for name in DOCUMENTS:
        assert found.origins["strategies", name].startswith("augkit-cuda ")


SCRIPTS: dict[str, Script] = {
    "always right": lambda epoch, c, level: 1.0,
    "never right": lambda epoch, c, level: 0.0,
    "known probabilities": lambda epoch, c, level: max(0.0, 1 - 0.1 * c - (0.01 + 0.02 * c) * level),
    "near the threshold": lambda epoch, c, level: 0.66 - 0.01 * level,
    "learned, then forgotten": lambda epoch, c, level: 0.95 if epoch < 6 + c else 0.3,
    "a level that fails": lambda epoch, c, level: 0.1 if level == c and epoch > 8 else 0.99,
}


CASES = [*(("cuda", script) for script in SCRIPTS), ("cuda_monotone", "known probabilities")]


@pytest.mark.parametrize(("name", "script"), CASES)
@pytest.mark.usefixtures("no_pixels")
def test_levels_follow_the_published_rule(name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Scripted(monkeypatch, SCRIPTS[script])
    policy, expected = policy_of(name, model), [0] * CLASSES
    seen = set()
    for epoch in range(16):
        model.begin()
        model.epoch = epoch
        policy.begin_epoch()
        wanted = {(c, level): 10 * (level + 1) for c in range(CLASSES) for level in range(expected[c] + 1)}
        assert model.asked == wanted and policy.probe_images == sum(wanted.values())
        expected = model.next(expected)
        assert depth(policy) == expected, epoch
        seen.add(tuple(expected))
        policy.end_epoch()
    assert len(seen) > (1 if script == "never right" else 3) - (script == "never right")


@pytest.mark.usefixtures("no_pixels")
def test_a_model_that_is_always_right_is_at_level_ten_in_ten_epochs_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of("cuda", Scripted(monkeypatch, lambda epoch, c, level: 1.0))
    for epoch in range(12):
        policy.begin_epoch()
        assert depth(policy) == [min(epoch + 1, 10)] * CLASSES
        policy.end_epoch()
    assert policy.probe_images == 660 * CLASSES  # all that a class can cost
    assert [int(row["depth"][0]) for row in policy.history] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10]


@pytest.mark.parametrize(("right", "passes"), [(6, False), (7, True)])
def test_the_share_must_be_exceeded(right: int, passes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Scripted(monkeypatch, lambda epoch, c, level: 0)
    monkeypatch.setattr(model, "one", lambda c, level: counted(model, c, level) < right * (level + 1))
    policy = policy_of("cuda", model)
    for _ in range(4):
        model.begin()
        policy.begin_epoch()
        policy.end_epoch()
    assert depth(policy) == [4 if passes else 0] * CLASSES


def counted(model: Scripted, c: int, level: int) -> int:
    """Which image of its class and level this is, from 0."""
    before = model.asked.get((c, level), 0)
    model.asked[c, level] = before + 1
    return before


@pytest.mark.usefixtures("no_pixels")
@pytest.mark.parametrize("params", [{"trials": 4, "gamma": 0.35}, {"deepest": 3, "full": 10}])
def test_params_change_the_rule(params: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    model = Scripted(monkeypatch, SCRIPTS["near the threshold" if "gamma" in params else "always right"])
    policy, expected = policy_of("cuda", model, **params), [0] * CLASSES
    for _ in range(8):
        model.begin()
        policy.begin_epoch()
        assert all(count == params.get("trials", 10) * (level + 1) for (_, level), count in model.asked.items())
        expected = [min(level, params.get("deepest", 10)) for level in model.next(expected, params.get("gamma", 0.6))]
        assert depth(policy) == expected
        policy.end_epoch()
    if "full" in params:
        plan = policy.plan(torch.zeros(50, dtype=torch.int64))
        assert as_strong_as(plan, torch.full((50,), 0.3))


@pytest.mark.usefixtures("no_pixels")
def test_probes_are_certain_even_and_as_strong_as_the_level(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Scripted(monkeypatch, lambda epoch, c, level: 1.0)
    policy = policy_of("cuda", model)
    for _ in range(9):
        policy.begin_epoch()
        policy.end_epoch()
    model.begin()
    policy.begin_epoch()
    asked = torch.cat([operators(plan) for plan in model.plans])
    assert torch.equal(torch.bincount(asked), 10 * CLASSES * torch.arange(1, 11))
    assert all(as_strong_as(plan, operators(plan) / 30) for plan in model.plans)
    choices = torch.cat([plan.choice[plan.choice >= 0] for plan in model.plans])
    assert chisquare(torch.bincount(choices, minlength=22)).pvalue > 0.001
    twos = torch.cat([p.choice[operators(p) >= 2][:, :2] for p in model.plans])
    assert binomtest(int((twos[:, 0] == twos[:, 1]).sum()), len(twos), 1 / 22).pvalue > 0.001
    assert chisquare(torch.bincount(torch.tensor(model.rows), minlength=6 * CLASSES)).pvalue > 0.001


@pytest.mark.usefixtures("no_pixels")
def test_the_control_has_one_level_for_all_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Scripted(monkeypatch, SCRIPTS["known probabilities"])
    policy, expected, levels = policy_of("cuda_agnostic", model), 0, set()
    for epoch in range(20):
        model.begin()
        model.epoch = epoch
        policy.begin_epoch()
        assert model.asked == {(c, level): 10 * (level + 1) for c in range(CLASSES) for level in range(expected + 1)}
        everyone = tuple(range(CLASSES))
        expected = moved(expected, [model.passed(everyone, level, 0.6) for level in range(expected + 1)])
        assert depth(policy) == [expected]
        levels.add(expected)
        plan = policy.plan(torch.arange(CLASSES).repeat(20))
        assert set(operators(plan).tolist()) <= {0, expected}
        policy.end_epoch()
    assert max(levels) > 3


@pytest.mark.parametrize("spread", [0, 1])
@pytest.mark.parametrize("script", SCRIPTS)
def test_training_answers_move_the_levels_of_the_online_variant(
    script: str, spread: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Scripted(monkeypatch, SCRIPTS[script])
    policy, expected = Policy.load("cuda_online", class_counts=[30] * CLASSES, seed=4, spread=spread), [0] * CLASSES
    assert policy.needs == {"observe"}
    between = 0
    for epoch in range(14):
        model.begin()
        model.epoch = epoch
        for _ in range(3):
            targets = torch.arange(CLASSES).repeat(10)
            levels = operators(policy.plan(targets)).tolist()
            between += sum(0 < level < expected[c] for c, level in zip(targets.tolist(), levels, strict=True))
            assert all(level <= expected[c] for c, level in zip(targets.tolist(), levels, strict=True))
            right = torch.tensor([model.one(c, level) for c, level in zip(targets.tolist(), levels, strict=True)])
            policy.observe(nn.functional.one_hot((targets + ~right) % CLASSES, CLASSES).float())
        expected = model.next(expected)
        policy.end_epoch()
        assert depth(policy) == expected
    assert (between > 0) is (bool(spread) and script != "never right")


def test_a_class_that_was_not_met_keeps_its_level() -> None:
    policy = Policy.load("cuda_online", class_counts=[30, 30], seed=4)
    for epoch in range(3):
        targets = torch.zeros(40, dtype=torch.int64)
        policy.plan(targets)
        policy.observe(nn.functional.one_hot(targets, 2).float())
        policy.end_epoch()
        assert depth(policy) == [epoch + 1, 0]


def test_the_online_variant_trains_on_what_the_curriculum_trains_on(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy.load("cuda_online", class_counts=[10] * 11, seed=4)
    policy.state["depth"].copy_(torch.arange(11.0))
    targets = torch.arange(11).repeat(400)
    plan = policy.plan(targets)
    number = operators(plan)
    assert bool(((number == 0) | (number == targets)).all())
    met = torch.bincount(targets[number > 0], minlength=11)[1:]
    assert chisquare(torch.stack([met, 400 - met]).flatten(), [200] * 20, ddof=9).pvalue > 0.001
    assert as_strong_as(plan, targets / 30)
    assert chisquare(torch.bincount(plan.choice[plan.choice >= 0], minlength=22)).pvalue > 0.001


def test_a_cost_beyond_the_cap_is_refused_and_the_cap_can_be_raised() -> None:
    with pytest.raises(DocumentError, match=r"132,?000"):
        Policy.load("cuda", class_counts=[1] * 200)
    assert Policy.load("cuda", class_counts=[1] * 200, most=132_000).num_classes == 200
    assert Policy.load("cuda_online", class_counts=[1] * 2000).num_classes == 2000


def test_nothing_runs_without_a_model_to_ask() -> None:
    policy = Policy.load("cuda", class_counts=[4, 4])
    with pytest.raises(StateError, match="attach_model"):
        policy.plan(torch.tensor([0, 1]))
