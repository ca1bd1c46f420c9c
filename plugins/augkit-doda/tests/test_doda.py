"""DODA as published, step by step: against the rule written out in plain Python, following the same random numbers."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare, kstest
from torch import Tensor

from augkit import Policy
from augkit.engine.environment import Environment
from augkit.errors import StateError
from augkit.lab.augmentation import strategy_of
from augkit.lab.recipe import load_recipe
from augkit.plugins import load_registry, registry

OPERATORS = (
    *("vflip", "hflip", "edge_enhance", "detail", "smooth", "autocontrast", "equalize", "invert"),
    *("gaussian_blur", "rotate"),
)
SEEN = 20
DRAWS = list[list[float]]


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> DRAWS:
    """The uniform numbers, one a class, that each epoch's start takes; taking note of them changes none."""
    taken: DRAWS = []
    original = Environment.uniform

    def noted(self: Environment, site: str, axes: tuple[str, ...], count: int) -> Tensor:
        numbers = original(self, site, axes, count)
        if axes == ("classes",):
            taken.append(numbers.flatten().tolist())
        return numbers

    monkeypatch.setattr(Environment, "uniform", noted)
    return taken


def drawn_from(weights: list[float], u: float) -> int:
    """The first position whose share of the sum, together with those before it, is more than u."""
    reach, total = u * sum(weights), 0.0
    for position, weight in enumerate(weights):
        total += weight
        if total > reach:
            return position
    return len(weights) - 1


class Published:
    """The rule as the paper has it: lists, loops and the random numbers that it is handed."""

    def __init__(self, classes: int, warm: int) -> None:
        self.warm, self.epoch = warm, 0
        self.weight = [[1.0] * len(OPERATORS) for _ in range(classes)]
        self.chosen = [0] * classes
        self.previous = [0] * classes

    def begin(self, numbers: list[float]) -> None:
        self.chosen = [drawn_from(weights, u) for weights, u in zip(self.weight, numbers, strict=True)]

    def end(self, correct: list[int]) -> None:
        for c, count in enumerate(correct):
            if self.epoch > self.warm and count > self.previous[c]:
                self.weight[c][self.chosen[c]] += 1
            elif self.epoch > self.warm and count < self.previous[c]:
                self.weight[c][self.chosen[c]] = max(1.0, self.weight[c][self.chosen[c]] - 1)
        self.previous = list(correct)
        self.epoch += 1


def answers(correct: list[int]) -> tuple[Tensor, Tensor]:
    """Logits and labels of SEEN images of each class, of which so many are answered rightly."""
    classes = len(correct)
    labels = torch.arange(classes).repeat_interleave(SEEN)
    right = torch.cat([torch.arange(SEEN) < count for count in correct])
    said = torch.where(right, labels, (labels + 1) % classes)
    return torch.nn.functional.one_hot(said, classes).float(), labels


def small(classes: int, each: int = 1) -> tuple[Tensor, Tensor]:
    return torch.zeros(classes * each, 3, 4, 4, dtype=torch.uint8), torch.arange(classes).repeat(each)


def chosen(policy: Policy) -> list[int]:
    return policy.state["chosen"].argmax(1).tolist()


def test_augkit_finds_both_documents() -> None:
    found = load_registry()
    for name in ("doda", "doda_uniform"):
        assert found.origins["strategies", name].startswith("augkit-doda ")
    policy = Policy.load("doda", class_counts=[SEEN] * 3)
    assert tuple(choice.operator.name for choice in policy.program.choices[:10]) == OPERATORS
    assert (policy.strategy.image.resample, policy.strategy.image.fill) == ("nearest", "black")


SCRIPTS: dict[str, Callable[[random.Random, int, int], int]] = {
    "at random": lambda rng, epoch, c: rng.randrange(SEEN + 1),
    "few ties broken": lambda rng, epoch, c: rng.choice((7, 8)),
    "always rising, then level": lambda rng, epoch, c: min(SEEN, epoch // 4 + c),
    "always falling": lambda rng, epoch, c: max(0, SEEN - epoch // 4 - c),
    "up and down": lambda rng, epoch, c: 5 + (epoch + c) % 2,
}


@pytest.mark.parametrize(("warm", "epochs"), [(50, 75), (0, 30), (-1, 12)])
@pytest.mark.parametrize("script", SCRIPTS)
def test_weights_and_choices_follow_the_published_rule(script: str, warm: int, epochs: int, draws: DRAWS) -> None:
    classes, rng = 6, random.Random(epochs)
    params = {} if warm == 50 else {"warm": warm}
    policy, oracle = (
        Policy.load("doda", class_counts=[SEEN] * classes, seed=warm + 5, **params),
        Published(classes, warm),
    )
    moved = 0
    for epoch in range(epochs):
        draws.clear()
        policy.plan(small(classes)[1])
        (numbers,) = draws
        oracle.begin(numbers)
        assert chosen(policy) == oracle.chosen
        assert policy.state["chosen"].sum(1).tolist() == [1.0] * classes
        correct = [SCRIPTS[script](rng, epoch, c) for c in range(classes)]
        policy.observe(*answers(correct))
        policy.end_epoch()
        oracle.end(correct)
        assert policy.state["weight"].tolist() == oracle.weight
        assert policy.state["previous"].tolist() == oracle.previous
        moved += epoch > warm and oracle.weight != [[1.0] * 10] * classes
    assert policy.epoch == epochs
    # a weight is never below 1, so counts that only fall move none
    assert (moved > 0) is (script != "always falling" or warm == -1)


def test_nothing_moves_up_to_and_including_the_epoch_called_warm() -> None:
    policy = Policy.load("doda", class_counts=[SEEN] * 2, warm=3)
    for epoch in range(6):
        policy(*small(2))
        policy.observe(*answers([epoch + 1, epoch + 2]))
        policy.end_epoch()
        assert float(policy.state["weight"].sum() - 20) == 2 * max(0, epoch - 3)


def test_an_operator_is_drawn_in_proportion_to_its_weight() -> None:
    classes = 4000
    policy = Policy.load("doda", class_counts=[1] * classes, seed=3)
    weights = torch.tensor([1.0, 1, 1, 2, 3, 5, 8, 1, 12, 1])
    policy.state["weight"].copy_(weights.expand(classes, -1))
    policy.begin_epoch()
    counts = torch.bincount(policy.state["chosen"].argmax(1), minlength=10)
    assert chisquare(counts, weights / weights.sum() * classes).pvalue > 0.001


def own(policy: Policy) -> tuple[Tensor, Tensor, Tensor]:
    """[B] position in the palette (-1 for none), value and strength of each image's operator of DODA."""
    plan = policy.last_plan
    assert plan is not None
    inside = (plan.choice >= 0) & (plan.choice < len(OPERATORS))
    assert int(inside.sum(1).max()) == 1
    where = inside.float().argmax(1, keepdim=True)

    def of(values: Tensor) -> Tensor:
        return values.gather(1, where)[:, 0]

    return torch.where(inside.any(1), of(plan.choice), -1), of(plan.value), of(plan.strength)


@pytest.mark.parametrize("params", [{}, {"p": 0.2, "autoaugment": 0}])
def test_an_image_meets_the_operator_of_its_class_with_probability_p(params: dict[str, float]) -> None:
    classes, each, p = 40, 400, params.get("p", 0.5)
    policy = Policy.load("doda", class_counts=[each] * classes, seed=8, **params)
    _, targets = small(classes, each)
    policy.plan(targets)
    choice, value, strength = own(policy)
    expected = torch.tensor(chosen(policy))
    assert len(set(chosen(policy))) == len(OPERATORS)
    met = choice >= 0
    assert torch.equal(choice[met], expected[targets[met]])
    by_class = torch.zeros(classes).scatter_add_(0, targets, met.float())
    # with the share p known, each class's count is binomial: classes degrees of freedom
    deviations = ((by_class - each * p) ** 2 / (each * p * (1 - p))).sum()
    assert kstest([float(deviations)], "chi2", args=(classes,)).pvalue > 0.001
    for name, high in (("gaussian_blur", 2.0), ("rotate", 30.0)):
        here = choice == OPERATORS.index(name)
        assert kstest(strength[here].numpy(), "uniform").pvalue > 0.001
        assert kstest((value[here].abs() / high).numpy(), "uniform").pvalue > 0.001
    turned = value[choice == OPERATORS.index("rotate")]
    assert chisquare([int((turned > 0).sum()), int((turned < 0).sum())]).pvalue > 0.001
    assert bool((value[choice == OPERATORS.index("gaussian_blur")] >= 0).all())


@pytest.mark.parametrize(("autoaugment", "met"), [(1, True), (0, False)])
def test_autoaugment_comes_before_and_can_be_left_out(autoaugment: float, met: bool) -> None:
    policy = Policy.load("doda", class_counts=[64] * 4, autoaugment=autoaugment)
    plan = policy.plan(small(4, 64)[1])
    assert bool((plan.choice >= len(OPERATORS)).any()) is met


def test_a_recipe_crops_flips_runs_autoaugment_then_doda_then_cutout() -> None:
    recipe = load_recipe("cifar100-lt", registry(), ["policy=doda", "seed=2"])
    policy = Policy(strategy_of(recipe, registry()), class_counts=[100] * 5, registry=registry())
    bounds = policy.program.bounds
    doda = next(b for b in bounds if b.strategy.name == "doda")
    table = next(b for b in bounds if b.strategy.name == "autoaugment_cifar10")
    root = policy.program.root
    stage = dict.fromkeys(range(doda.offset, doda.offset + doda.ops), 2)
    stage |= dict.fromkeys(table.single.values(), 1)
    stage |= {
        column: (3 if policy.program.choices[column].operator.name == "cutout" else 0)
        for column in root.single.values()
    }
    rows = policy.plan(small(5, 100)[1]).choice.tolist()
    stages = [[stage.get(column, 1) for column in row if column >= 0] for row in rows]
    assert all(row == sorted(row) for row in stages)
    assert sum({0, 1, 2, 3} == set(row) for row in stages) > 100


@pytest.mark.slow
def test_the_control_draws_alike_until_weights_move_and_never_learns() -> None:
    pair = [
        Policy.load("doda", class_counts=[SEEN] * 50, seed=4, warm=5),
        Policy.load("doda_uniform", class_counts=[SEEN] * 50, seed=4),
    ]
    assert "observe" in pair[0].needs and not pair[1].needs
    images = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8)
    for epoch in range(25):
        results = [policy(images, torch.arange(50))[0] for policy in pair]
        assert torch.equal(*results) or epoch > 6
        pair[0].observe(*answers([epoch // 2 for _ in range(50)]))
        for policy in pair:
            policy.end_epoch()
        assert (chosen(pair[0]) == chosen(pair[1])) or epoch > 6
    assert bool((pair[1].state["weight"] == 1).all())
    assert float(pair[0].state["weight"].max()) > 1 and chosen(pair[0]) != chosen(pair[1])


def test_the_control_draws_every_operator_equally_often() -> None:
    policy = Policy.load("doda_uniform", class_counts=[1] * 500, seed=9)
    counts, same, before = torch.zeros(10), 0, torch.zeros(500, dtype=torch.int64)
    for _ in range(10):
        policy.begin_epoch()
        now = policy.state["chosen"].argmax(1)
        counts += torch.bincount(now, minlength=10)
        same += int((now == before).sum())
        before = now
        policy.end_epoch()
    assert chisquare(counts).pvalue > 0.001
    assert chisquare([same, 5000 - same], [500, 4500]).pvalue > 0.001  # a class's choice says nothing of its next


def test_it_refuses_to_run_unwatched() -> None:
    policy = Policy.load("doda", class_counts=[SEEN] * 2)
    policy(*small(2))
    with pytest.raises(StateError, match='strategy "doda" learns from the model\'s answers but saw none in epoch 0'):
        policy.end_epoch()


@pytest.mark.parametrize("at", [0, 1, 4])
def test_a_stored_state_goes_on_exactly(at: int) -> None:
    def run(policy: Policy, first: int, last: int) -> list[Any]:
        rng, seen = random.Random(1), []
        scripted = [[rng.randrange(SEEN) for _ in range(5)] for _ in range(last)]
        for epoch in range(first, last):
            policy(*small(5))
            policy.observe(*answers(scripted[epoch]))
            policy.end_epoch()
            seen.append((chosen(policy), policy.state["weight"].tolist()))
        return seen

    def fresh() -> Policy:
        return Policy.load("doda", class_counts=[SEEN] * 5, seed=6, warm=0)

    whole, half = run(fresh(), 0, 8), fresh()
    run(half, 0, at)
    state, other = copy.deepcopy(half.state_dict()), fresh()
    other.load_state_dict(state)
    assert run(other, at, 8) == whole[at:]


def test_a_class_without_images_keeps_its_weights() -> None:
    policy = Policy.load("doda", class_counts=[SEEN, 0, SEEN], warm=-1)
    for epoch in range(4):
        policy(small(3)[0][:2], torch.tensor([0, 2]))
        logits, labels = answers([epoch + 1] * 3)
        present = labels != 1
        policy.observe(logits[present], labels[present])
        policy.end_epoch()
    assert policy.state["weight"].sum(1).tolist() == [14.0, 10.0, 14.0]


def test_documents_are_all_that_is_packed() -> None:
    import augkit_doda

    folder = Path(augkit_doda.__file__).parent
    assert {path.name for path in (folder / "strategies").iterdir()} == {"doda.yaml", "doda_uniform.yaml"}
    assert [path.name for path in folder.glob("*.py")] == ["__init__.py"]
